"""A context made to fit: whole lines, ids and order kept, everything dropped is said, the telling lines first."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from knowledge_base.compress import WORDS_MARKER, Item, compress, fit, marker, tokens
from knowledge_base.wording import changed, essentials

NOISE = "2026-01-02T03:04:{:02d}Z info handled request {} of shop in {} ms"


def noise(count: int, start: int = 0) -> list[str]:
    return [NOISE.format(number % 60, start + number, 3 + number % 40) for number in range(count)]


def with_lines(lines: list[str], *planted: tuple[int, str]) -> str:
    for place, line in planted:
        lines.insert(place, line)
    return "\n".join(lines)


def spent(pairs: list[tuple[str, str]]) -> int:
    return sum(tokens(text) for _, text in pairs)


def test_what_fits_is_not_touched() -> None:
    items = [Item("E1", "one\n\n\ttwo  "), Item("K1", "three", citable=False), Item("E2", "")]
    assert compress(items, 100) == ["one\n\n\ttwo  ", "three", ""]


def test_the_telling_lines_stay_and_the_rest_is_said() -> None:
    killed = "container api of pod checkout-7d9f-x2 was OOMKilled, exit code 137"
    refused = "payments: connection to 10.0.0.7:5432 refused 12 times, pool not exhausted"
    log = with_lines(noise(300), (120, killed), (240, refused))
    done = compress([Item("E1", log), Item("E2", "p99 latency of checkout is 2300 ms, usually 180 ms")], 150)
    (first, second) = done
    lines = first.split("\n")
    assert {killed, refused} <= set(lines)
    assert second == "p99 latency of checkout is 2300 ms, usually 180 ms"
    kept = [line for line in lines if not line.startswith("[…")]
    assert sum(int(line.split()[1]) for line in lines if line.startswith("[…")) == 302 - len(kept)
    assert lines[-1] == marker(log.split("\n")[::-1].index(kept[-1]))
    assert len(first) < 0.1 * len(log)


def test_the_evidence_decides_among_documents() -> None:
    parts = [f"## Part {name}\n\nHow the {name} works.\nRestart the {name} with care." for name in "abcdefghij"]
    parts[6] = "## Certificates\n\nRenew it before the day.\nThe ingress certificate is renewed by cert-manager."
    document = "\n\n".join(parts)
    told_by_evidence = fit([("E1", "certificate of ingress shop ends in 2 days"), ("K1", document)], 90)
    assert told_by_evidence[0] == ("E1", "certificate of ingress shop ends in 2 days")
    lines = told_by_evidence[1][1].split("\n")
    assert "The ingress certificate is renewed by cert-manager." in lines
    assert "## Certificates" in lines


def test_lines_that_differ_in_figures_only_do_not_crowd_out_others() -> None:
    lines = [f"error: request {number} to cart timed out after {number + 5} ms" for number in range(200)]
    log = with_lines(lines, (150, "warning: deployment cart reverted to revision 41"))
    done = compress([Item("E1", log)], 120)
    assert "warning: deployment cart reverted to revision 41" in done[0]
    assert "timed out" in done[0]


def test_every_piece_of_evidence_keeps_a_line_before_one_gets_two() -> None:
    loud = "\n".join(f"error: OOM number {number} in {name}" for number, name in enumerate("abcdefgh" * 5))
    items = [Item("E1", loud), *(Item(f"E{number}", f"quiet line {number}\nmore") for number in range(2, 6))]
    done = compress(items, 150)
    assert len(done) == 5
    assert all(done)
    assert "left out" in done[0]
    assert compress(items, 0) == [""] * 5


def test_one_line_longer_than_the_budget_is_left_out_whole() -> None:
    assert compress([Item("E1", "x" * 3000 + " OOMKilled")], 100) == [""]


@given(
    texts=st.lists(
        st.lists(
            st.sampled_from(["", "# Title", "```", "a b", "error: not ready 5 %", "x" * 40, "OOM 137", "…"]),
            max_size=30,
        ),
        min_size=1,
        max_size=5,
    ),
    budget=st.integers(0, 200),
)
def test_whole_lines_in_order_within_the_budget(texts: list[list[str]], budget: int) -> None:
    sources = {f"{'EK'[number % 2]}{number}": "\n".join(lines) for number, lines in enumerate(texts)}
    kept = list(fit(list(sources.items()), budget))
    assert [name for name, _ in kept] == [name for name in sources if name in dict(kept)]
    if kept and spent(list(sources.items())) > budget:
        assert spent(kept) <= budget
    for name, text in kept:
        source = sources[name].split("\n")
        place = 0
        for line in text.split("\n"):
            if line.startswith("[… "):
                place += int(line.split()[1])
                continue
            assert source[place] == line
            place += 1
        assert place == len(source)


@pytest.mark.parametrize(
    ("source", "shorter", "lost"),
    [
        ("You should not restart payments-db now.", "not restart payments-db", ()),
        ("You should not restart payments-db now.", "restart payments-db", ("not restart",)),
        ("You should not restart payments-db now.", "not payments-db", ("not restart", "not payments-db")),
        ("The limit is 512 MiB, in prod.", "limit 512 MiB prod", ()),
        ("The limit is 512 MiB, in prod.", "limit 512 prod", ("512 mib", "512")),
        ("Pod at 10.0.0.7:5432 doesn’t answer.", "10. 0. 0. 7:5432 doesn't answer", ("10.0.0.7:5432",)),
        ("Look at KubePodOOM first, then p99.", "KubePodOOM p99", ()),
        ("Scale api-1 to 3, api-2 to 5.", "api-1 5 api-2 3", ("their order",)),
    ],
)
def test_a_lost_name_number_or_negation_is_seen(source: str, shorter: str, lost: tuple[str, ...]) -> None:
    found = changed(source, shorter)
    assert set(lost) <= set(found)
    assert bool(found) == bool(lost)


def test_essentials_are_names_numbers_and_negations() -> None:
    text = "Never delete /var/lib/db: exit code 137 at 85 % of 2 GiB, without OOM."
    assert essentials(text) == ["never delete", "var/lib/db", "137", "85 %", "2 gib", "without oom", "OOM"]


def test_prose_may_lose_words_and_evidence_may_not() -> None:
    prose = "Please be so kind as to have a careful look at the volume data-0 and do not delete the files in it. " * 8
    asked: list[str] = []

    def shorten(text: str, share: float) -> str:
        assert 0 < share < 1
        asked.append(text)
        return text.replace("Please be so kind as to have a careful look at the", "Look").strip()

    items = [Item("E1", "OOMKilled 137"), Item("K1", prose, citable=False)]
    done = compress(items, 200, shorten=shorten)
    assert asked == [prose]
    assert done[0] == "OOMKilled 137"
    assert done[1].startswith(f"{WORDS_MARKER}\nLook volume data-0 and do not delete")

    def careless(text: str, share: float) -> str:
        del share
        return text.replace("not ", "")

    document = prose.replace(". ", ".\n")
    kept = compress([items[0], Item("K1", document, citable=False)], 200, shorten=careless)[1].split("\n")
    assert set(kept) - set(document.split("\n")) == {line for line in kept if line.startswith("[… ")} != {WORDS_MARKER}


def test_only_sentences_are_shortened() -> None:
    prose = "It is usually a good idea to have a look at the pods before you do anything else to the service."
    kept = [
        "## What to do when the pods of the service are killed and nobody can tell why that is so",
        "```",
        "kubectl get pods --all-namespaces --sort-by=.status.startTime and this is a long line in a fence",
        "```",
        "    kubectl delete pod of the service that is indented, and that has to be typed as it stands here",
        "2026-01-02T03:04:05Z the service answers with errors and the pods of it are killed again and again",
        "time=03:04 level=error the service answers with errors and the pods of it are killed again and again",
        "| a row of a table | the service answers with errors and the pods of it are killed again and again |",
        "`kubectl describe pod of the service, which is a command by itself and which nobody may shorten`",
    ]
    asked: list[str] = []

    def shorten(text: str, share: float) -> str:
        asked.append(text)
        return text.replace("It is usually a good idea to have a look", "Look")

    text = "\n".join([prose, *kept, prose])
    done = compress([Item("K1", text, citable=False)], len(text) // 3 - 5, shorten=shorten)[0].split("\n")
    assert asked == [prose, prose]
    assert done[0] == WORDS_MARKER
    assert [line for line in done if line in kept] == kept


def test_the_same_choice_every_time() -> None:
    rng = random.Random(5)
    lines = [" ".join(rng.choices(["error", "disk", "of", "cart", "slow", "7", "is"], k=6)) for _ in range(200)]
    items = [Item("E1", "\n".join(lines[:100])), Item("K1", "\n".join(lines[100:]), citable=False)]
    assert compress(items, 200) == compress(items, 200)
