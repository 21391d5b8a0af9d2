"""Markdown into chunks: headings, front matter, blocks, sizes, alerts."""

import re
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from knowledge_base.chunking import Document, compose, fingerprint, parse_markdown
from knowledge_base.front_matter import MAX_FRONT_MATTER_CHARS
from knowledge_base.tokens import MAX_TOKENS, estimate_tokens

RUNBOOK = """---
title: Memory leak
services: checkout
category: memory
platform: Kubernetes
owner: shop
last_verified: 2026-11-01
alerts: [CheckoutMemoryHigh]
tags: [ours, not yours]
---
# Memory leak

Intro.

## Confirm

```bash
# not a heading
top
```

### By hand

Look.

## Rollback

None.
"""


def headings(document: Document) -> list[str]:
    return [chunk.heading for chunk in document.chunks]


def texts(document: Document) -> list[str]:
    return [chunk.text for chunk in document.chunks]


def test_headings_become_paths_and_fences_stay_whole() -> None:
    document = parse_markdown("memory.md", RUNBOOK)
    assert headings(document) == [
        "Memory leak",
        "Memory leak › Confirm",
        "Memory leak › Confirm › By hand",
        "Memory leak › Rollback",
    ]
    assert document.chunks[1].text == "```bash\n# not a heading\ntop\n```"


def test_underlined_headings_count_and_rules_do_not() -> None:
    source = "Disk full\n=========\n\nIntro.\n\nConfirm\n-------\nLook.\n\n---\n\n- item\n---\nend"
    assert headings(parse_markdown("x.md", source)) == ["Disk full", "Disk full › Confirm"]


def test_comments_are_left_out_but_not_from_code() -> None:
    source = "# A\n\nseen <!-- hidden\n\n# Hidden\n--> also seen\n\n```\n<!-- code -->\n```\n\nlast <!-- open"
    assert texts(parse_markdown("x.md", source)) == ["seen \n also seen\n\n```\n<!-- code -->\n```\n\nlast <!-- open"]


def test_front_matter_is_read_and_foreign_keys_are_left_alone() -> None:
    meta = parse_markdown("memory.md", RUNBOOK).meta
    assert (meta.services, meta.category, meta.platform, meta.owner) == (("checkout",), "memory", "kubernetes", "shop")
    assert meta.last_verified is not None
    assert meta.last_verified.isoformat() == "2026-11-01"
    assert (meta.kind, meta.trust, meta.alerts) == ("runbook", 1.0, ("CheckoutMemoryHigh",))


@pytest.mark.parametrize(
    ("path", "front", "kind", "trust"),
    [
        ("a.md", "kind: Post-Mortem", "postmortem", 0.8),
        ("post-mortems/2026-01.md", "owner: x", "postmortem", 0.8),
        ("postmortems/how-to.md", "kind: note\ntrust: 0.3", "note", 0.3),
        ("a.md", "trust: 0", "runbook", 0.0),
        ("a.md", "Last-Verified: 2026-01-02T10:00:00Z", "runbook", 1.0),
    ],
)
def test_kind_and_trust_have_defaults(path: str, front: str, kind: str, trust: float) -> None:
    document = parse_markdown(path, f"---\n{front}\n---\ntext")
    assert (document.meta.kind, document.meta.trust, document.notes) == (kind, trust, ())


def test_toml_front_matter_is_read_and_two_rules_are_none() -> None:
    assert parse_markdown("x.md", '+++\ntitle = "Disk"\nservices = ["db"]\n+++\ntext').meta.services == ("db",)
    ruled = parse_markdown("x.md", "---\nonly text\n---\nmore")
    assert (texts(ruled), ruled.notes) == (["---\nonly text\n---\nmore"], ())


def test_title_falls_back_to_the_first_heading_then_to_the_file() -> None:
    assert parse_markdown("a/disk.md", "text\n\n# Disk full\n\nmore").title == "Disk full"
    assert parse_markdown("a/disk.md", "text only").title == "disk"


@pytest.mark.parametrize(
    ("front", "said"),
    [
        ("services: {a: 1}", "services"),
        ("last_verified: soon", "last_verified"),
        ("kind: guide", "kind: write runbook, postmortem or note"),
        ("trust: 7", "trust"),
        ("owner: true", "owner"),
        ("a: [", "not YAML"),
        ("last_verified: 2026-13-45", "not YAML"),
        ("? {a: b}: c", "not YAML"),
        ("a: [[[[ {{{{", "not YAML"),
        ("a: " + "[" * 5000, "more than 200 lists"),
        ("- " * 5000, "more than 200 lists"),
        ("- x\n-", "not YAML"),
        ("a: " + "x" * MAX_FRONT_MATTER_CHARS, "longer than 20 kB"),
    ],
)
def test_wrong_front_matter_is_named_and_the_document_stays(front: str, said: str) -> None:
    document = parse_markdown("x.md", f"---\n{front}\nplatform: ecs\n---\n# Known\n\ntext")
    assert (document.title, texts(document)) == ("Known", ["text"])
    (note,) = document.notes
    assert said in note
    assert "\n" not in note
    assert document.meta.platform in ("ecs", "")


def test_a_list_is_no_front_matter() -> None:
    document = parse_markdown("x.md", "---\n- x\n---\ntext")
    assert (texts(document), document.notes) == (
        ["text"],
        ("front matter, a list where names and values are needed, left out",),
    )


def test_the_title_is_saved_from_front_matter_that_is_broken() -> None:
    document = parse_markdown("x.md", "---\ntitle: Disk: full\n---\ntext")
    assert document.title == "Disk: full"
    assert "only its title was used" in document.notes[0]


def test_what_nobody_sees_and_no_database_keeps_is_gone() -> None:
    document = parse_markdown("x.md", '---\ntitle: "a\\0b\\ud800"\n---\nte\x00xt\u202e \U000e0041end\r\nnext')
    assert (document.title, texts(document)) == ("ab", ["text end\nnext"])


def test_long_sections_are_cut_between_paragraphs() -> None:
    paragraphs = [f"Paragraph {number} " + "word " * 60 for number in range(8)]
    document = parse_markdown("long.md", "# Long\n\n" + "\n\n".join(paragraphs))
    assert [chunk.text.count("Paragraph") for chunk in document.chunks] == [3, 3, 2]
    assert all(chunk.text.startswith("Paragraph") for chunk in document.chunks)


def _table(rows: int) -> str:
    return "| Code | Meaning |\n|---|---|\n" + "\n".join(f"| {row} | reason number {row} |" for row in range(rows))


def _list(items: int) -> str:
    return "\n".join(f"{item}. Step {item} is to look\n\n   ```\n   run {item}\n   ```" for item in range(items))


def _code(lines: int) -> str:
    return "```bash\n" + "\n".join(f'echo "line {line}"' for line in range(lines)) + "\n```"


@pytest.mark.parametrize("block", [_table, _list, _code])
def test_a_block_that_fits_into_a_chunk_is_not_torn(block: Callable[[int], str]) -> None:
    kept = block(9)
    before = " ".join(["word"] * (MAX_TOKENS - 40))
    document = parse_markdown("x.md", f"# T\n\n{before}\n\nDo this:\n\n{kept}\n\nafter")
    assert texts(document)[1] == f"Do this:\n\n{kept}\n\nafter"


def test_parts_of_torn_tables_and_code_can_be_read_alone() -> None:
    tables = texts(parse_markdown("x.md", _table(80)))
    assert len(tables) > 2
    assert all(table.startswith("| Code | Meaning |\n|---|---|\n| ") for table in tables)
    codes = texts(parse_markdown("x.md", _code(250)))
    assert len(codes) > 2
    assert all(re.fullmatch(r"```bash\n(echo \"line \d+\"\n)+```", code) for code in codes)
    steps = texts(parse_markdown("x.md", _list(40)))
    assert len(steps) > 2
    assert all(step.startswith(tuple("0123456789")) and step.endswith("```") for step in steps)


@given(
    st.text(alphabet=st.sampled_from("ab #`~\n.-é|>=:1"), max_size=2000),
    st.integers(1, 40),
)
def test_nothing_but_headings_is_lost_and_no_chunk_is_too_long(body: str, repeat: int) -> None:
    document = parse_markdown("x.md", "start\n\n" + (body + "\n") * repeat)
    words = re.compile(r"[abé1]")
    kept = {word for chunk in document.chunks for word in words.findall(chunk.searchable)}
    assert set(words.findall(body)) <= kept | set(words.findall(" ".join(_heading_lines(body))))
    assert all(estimate_tokens(chunk.searchable) <= MAX_TOKENS for chunk in document.chunks)
    assert document == parse_markdown("x.md", "start\n\n" + (body + "\n") * repeat)


def _heading_lines(body: str) -> list[str]:
    lines = body.split("\n")
    return [
        line
        for number, line in enumerate(lines)
        if line.lstrip().startswith("#") or re.match(r"^ *(=+|-+) *$", "".join(lines[number + 1 : number + 2]))
    ]


@pytest.mark.parametrize("text", ["x" * 100_000, "word " * 20_000, "a.b," * 20_000, "# " + "h " * 5000 + "\n\ntext"])
def test_text_without_seams_is_cut_all_the_same(text: str) -> None:
    document = parse_markdown("x.md", text)
    assert document.chunks
    assert all(estimate_tokens(chunk.searchable) <= MAX_TOKENS for chunk in document.chunks)


def test_the_hash_tells_bytes_apart() -> None:
    assert fingerprint(b"a") == fingerprint(b"a")
    assert len({fingerprint(b"a"), fingerprint(b"b")}) == 2
    assert parse_markdown("x.md", "é").content_hash == fingerprint("é".encode())


RULES = """# Volumes

Alerts `NodeFilesystemFull`, `disk_full` and `kubectl`.

## Alerts

- `KubePersistentVolumeFillingUp`: `critical`, from `kubelet_volume_stats_used_bytes`
- `db-disk-full`

## Rule

```yaml
- alert: "Disk almost full"  # page
  expr: a > 1
- alert: etcdNoLeader
```

Silence `alertname="NodeDiskIO"` if needed, see `AnotherAlertName`.

## TargetDown

What it means.
"""


def test_alerts_are_found_in_headings_rules_and_lists() -> None:
    assert parse_markdown("volumes.md", RULES).alerts == (
        "NodeFilesystemFull",
        "KubePersistentVolumeFillingUp",
        "db-disk-full",
        "Disk almost full",
        "etcdNoLeader",
        "NodeDiskIO",
        "TargetDown",
    )


@pytest.mark.parametrize(
    ("path", "title", "alerts"),
    [
        ("KubePodCrashLooping.md", "Pods that crash", ("KubePodCrashLooping",)),
        ("x.md", "TargetDown", ("TargetDown",)),
        ("x.md", "Runbook: KubeAPIErrorBudgetBurn", ("KubeAPIErrorBudgetBurn",)),
        ("x.md", "How we use GitHub and RabbitMQ", ()),
        ("GitHub.md", "CPU saturation", ()),
        ("MariaDB.md", "HighCPU", ("HighCPU",)),
        ("README.md", "OOM", ()),
    ],
)
def test_alerts_are_found_in_titles(path: str, title: str, alerts: tuple[str, ...]) -> None:
    assert compose(path, "text", {"title": title}, content_hash="").alerts == alerts


def test_a_document_that_lists_many_alerts_answers_none_of_them() -> None:
    rules = "\n".join(f"- alert: Alert{number:02}Fires" for number in range(30))
    assert parse_markdown("x.md", f"---\nalerts: Own\n---\n```\n{rules}\n```").alerts == ("Own",)
