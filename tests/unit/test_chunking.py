"""Markdown into chunks: headings, front matter, fences, sizes."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from knowledge_base.chunking import MAX_PIECES, parse_markdown
from pipeline.domain.errors import PermanentError

RUNBOOK = """---
title: Memory leak
services: checkout
category: memory
platform: kubernetes
owner: shop
last_verified: 2026-11-01
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


def test_headings_become_paths_and_fences_stay_whole() -> None:
    document = parse_markdown("memory.md", RUNBOOK)
    assert [chunk.heading for chunk in document.chunks] == [
        "Memory leak",
        "Memory leak › Confirm",
        "Memory leak › Confirm › By hand",
        "Memory leak › Rollback",
    ]
    assert document.chunks[1].text == "```bash\n# not a heading\ntop\n```"


def test_front_matter_is_read_and_foreign_keys_are_left_alone() -> None:
    meta = parse_markdown("memory.md", RUNBOOK).meta
    assert (meta.services, meta.category, meta.platform, meta.owner) == (("checkout",), "memory", "kubernetes", "shop")
    assert meta.last_verified is not None
    assert meta.last_verified.isoformat() == "2026-11-01"


def test_title_falls_back_to_the_first_heading_then_to_the_file() -> None:
    assert parse_markdown("a/disk.md", "text\n\n# Disk full\n\nmore").title == "Disk full"
    assert parse_markdown("a/disk.md", "text only").title == "disk"


@pytest.mark.parametrize(
    ("front", "said"),
    [
        ("services: {a: 1}", "services"),
        ("last_verified: soon", "last_verified"),
        ("a: [", "not YAML"),
        ("- x", "front"),
    ],
)
def test_wrong_front_matter_is_named(front: str, said: str) -> None:
    with pytest.raises(PermanentError, match=rf"^x\.md: .*{said}") as error:
        parse_markdown("x.md", f"---\n{front}\n---\ntext")
    assert "\n" not in str(error.value)


def test_long_sections_are_cut_between_paragraphs() -> None:
    paragraphs = [f"Paragraph {number} " + "word " * 60 for number in range(8)]
    document = parse_markdown("long.md", "# Long\n\n" + "\n\n".join(paragraphs))
    assert [chunk.text.count("Paragraph") for chunk in document.chunks] == [3, 3, 2]
    assert all(chunk.text.startswith("Paragraph") for chunk in document.chunks)


@given(st.text(alphabet=st.sampled_from("ab #`~\n.-é"), max_size=2000), st.integers(1, 40))
def test_nothing_but_headings_is_lost_and_no_chunk_is_too_long(body: str, repeat: int) -> None:
    document = parse_markdown("x.md", "start\n\n" + (body + "\n") * repeat)
    words = re.compile(r"\w+")
    kept = {word for chunk in document.chunks for word in words.findall(chunk.searchable)}
    assert set(words.findall(body)) <= kept | set(words.findall(" ".join(_heading_lines(body))))
    assert all(len(re.findall(r"\w+|[^\w\s]", chunk.text)) <= MAX_PIECES for chunk in document.chunks)


def _heading_lines(body: str) -> list[str]:
    return [line for line in body.split("\n") if line.startswith("#")]
