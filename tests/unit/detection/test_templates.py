"""Log templates: what is masked, what becomes one, what stays apart."""

import random
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.domain.detection.templates import MAX_TOKENS, TemplateMiner, mine
from pipeline.domain.detection.templates_masks import redacted
from pipeline.domain.redaction import Redactor


def template_of(line: str) -> str:
    return TemplateMiner().add(line).template


@pytest.mark.parametrize(
    ("line", "template"),
    [
        ("took 35 ms for 10.2.3.4:8080", "took <*> for <*>"),
        ("user session 0673dd71-34c5-4fbb-86c4-40623fbe45b4 ended", "user session <*> ended"),
        ("wrote /var/lib/data/part-0001.db in 3.5 seconds", "wrote <*> in <*>"),
        ("close, 1165 bytes (1.13 KB) sent, lifetime <1 sec", "close, <*> sent, lifetime <*>"),
        ("close, 27 bytes sent, lifetime 02:19", "close, <*> sent, lifetime <*>"),
        ("seen at Thu Jul  7 16:33:52 2005", "seen at <*>"),
        ("peer FE80:0000:D8A5::FECD left", "peer <*> left"),
        ('10.1.1.1 "GET /v2/servers/detail HTTP/1.1" status: 200', '<*> "GET <*> HTTP/<*>" status: <*>'),
        ('lock tag="View Lock", ws=null, uid=10037', "lock tag=<*>, ws=<*>, uid=<*>"),
        ("calls to eth1 over https://example.com/a/b?c=1 fail", "calls to eth1 over <*>=<*> fail"),
        ("no numbers at all here", "no numbers at all here"),
        ("", ""),
    ],
)
def test_what_varies_is_masked_and_words_stay(line: str, template: str) -> None:
    assert template_of(line) == template


@pytest.mark.parametrize(
    "line",
    [
        "login with password=hunter2horse ok",
        "login with password: hunter2horse ok",
        'sent {"api_key": "hunter2horse"} on',
        "header Authorization: Bearer hunter2horse.payload",
        "header bearer hunter2horsehunter",
        "cloning https://bob:hunter2horse@example.com/repo.git now",
        "got hunter2horseXqKv8ZpLm4 from the vault",
        "got QwkhUnTeRtwohORSExZvPqR from the vault",
        "TOKEN=hunter2horse",
    ],
)
def test_no_credential_reaches_a_template_or_a_sample(line: str) -> None:
    for shown in (template_of(line), redacted(line, 300)):
        assert "hunter2horse" not in shown
        assert "hUnTeRtwohORSE" not in shown


def test_secrets_are_looked_for_in_the_whole_line_and_stay_distinguishable() -> None:
    """The cut may not leave half of a secret, which nobody knows for one; nor may a mask make two secrets one."""
    jwt = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJjaGVja291dCJ9.c2lnbmF0dXJlLW9mLXRoaXM"
    redact = Redactor(b"salt")
    for before in range(200, 300):
        shown = redacted(f"{'a ' * (before // 2)}{jwt} was refused", 300, lambda text: redact.text(text).text)
        assert "eyJ" not in shown
    first, again, other = (
        redacted(
            f"login with password={one} and https://bob:{one}@db.local/ ok", 300, lambda text: redact.text(text).text
        )
        for one in ("hunter2horse", "hunter2horse", "hunter3horse")
    )
    assert "hunter" not in first
    assert first.count("‹secret:") == 2
    assert first == again != other


def test_long_names_are_no_credentials() -> None:
    line = "NetworkAnalyticsEngineController and container_allocation_manager started"
    assert template_of(line) == redacted(line, 300) == line


def test_equal_patterns_share_an_id_and_only_the_first_is_new() -> None:
    miner = TemplateMiner()
    first, second, other = miner.add("read 1 rows"), miner.add("read 22 rows"), miner.add("wrote 1 rows")
    assert (first.new, second.new, other.new) == (True, False, True)
    assert first.id == second.id != other.id


def test_a_place_with_many_names_becomes_a_wildcard_and_old_ids_lead_to_it() -> None:
    miner = TemplateMiner()
    line = "request of tenant {} was routed to the second region"
    ids = [
        miner.add(line.format(name)).id for name in ("acme", "globex", "initech", "umbrella", "hooli", "stark", "wayne")
    ]
    assert len({miner.current(one) for one in ids}) == 1
    assert miner.template(ids[0]) == line.format("<*>")
    assert miner.add(line.format("wonka")).id == miner.current(ids[0])
    assert len(miner) == 1


@pytest.mark.parametrize(
    "words", [("true", "false"), ("LOOKING", "LEADING", "FOLLOWING"), ("started", "stopped", "paused")]
)
def test_states_and_switches_stay_apart(words: tuple[str, ...]) -> None:
    found = mine([f"the worker of queue nine is now {word} again" for word in words for _ in range(20)])
    assert len({match.id for match in found}) == len(words)


def test_a_whole_file_is_grouped_as_known_at_its_end() -> None:
    lines = [f"session opened for user {name} by (uid=0)" for name in ("root", "news", "cyrus", "test")] * 3
    found = mine(lines)
    assert {match.template for match in found} == {"session opened for user <*> by (uid=<*>)"}
    assert len({match.id for match in found}) == 1


def test_memory_is_bounded_and_ids_are_never_used_again() -> None:
    rng = random.Random(5)
    miner = TemplateMiner(max_templates=50)
    words = ["".join(rng.choices("abcdefghij", k=6)) for _ in range(400)]
    ids = [miner.add(" ".join(rng.choices(words, k=7))).id for _ in range(600)]
    assert len(miner) <= 50
    assert len(set(ids)) == 600
    again = miner.add("quite another message that nobody wrote before")
    assert again.new
    assert miner.template(ids[0]) is None


def test_the_same_lines_give_the_same_groups() -> None:
    rng = random.Random(3)
    lines = [
        f"job {uuid.UUID(int=rng.getrandbits(128))} of {rng.choice('abcdefgh')}.svc ended {rng.random()}"
        for _ in range(500)
    ]
    assert mine(lines) == mine(lines)


def test_a_very_long_line_is_cut_for_comparison_only() -> None:
    words = " ".join(f"w{'x' * (n % 5)}" for n in range(MAX_TOKENS))
    miner = TemplateMiner()
    assert miner.add(f"{words} one tail").id == miner.add(f"{words} and another").id


@given(st.lists(st.text(max_size=80), max_size=30))
def test_any_text_is_taken(lines: list[str]) -> None:
    miner = TemplateMiner(max_templates=5)
    for line in lines:
        match = miner.add(line)
        assert miner.template(match.id) is not None
        assert len(miner) <= 5


def test_a_limit_below_one_is_refused() -> None:
    with pytest.raises(ValueError, match="max_templates"):
        TemplateMiner(max_templates=0)


@pytest.mark.parametrize("payload", ["a." * 100_000, "=" * 200_000, '{"k":' * 50_000, "A" * 300_000, "1." * 100_000])
def test_a_payload_of_any_length_costs_no_more_than_its_reading(payload: str) -> None:
    miner = TemplateMiner()
    assert miner.add(f"received {payload} from peer").template == "received <*> from peer"
    assert len(redacted(payload, 300)) <= 300


def test_a_name_where_addresses_stand_is_a_value_too() -> None:
    line = "reverse lookup of host for {} [10.0.0.1] has failed"
    found = mine([line.format("ns.example.com"), line.format("10.0.0.7"), line.format("mail.example.com")])
    assert len({match.id for match in found}) == 1
