"""Text from outside: it cannot leave its fence, hide, or become a link."""

import re
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.slack.text import escape
from pipeline.domain.untrusted import ATTRIBUTE_CHARS, MAX_MARKS, attribute, fence, neutralise, without_links

TAG = re.compile(r"<[^<>]*>")
LINKED = re.compile(
    r"(?i)\w://|\b(?:mailto|tel|javascript|slack):[\w@]|\bwww\.\w|<[!@#]\w[^<>\n]*>|@(?:channel|here|everyone)\b|\[[^\[\]\n]*\]\([^\s()]*[.:/]\w[^\s()]*\)"
    r"|(?<![\w.])[\w-]+\.(?:com|net|org|io|example|xyz|top|link)\b(?!\.\w)"
)
HOSTILE = st.one_of(
    st.text(max_size=200),
    st.lists(
        st.sampled_from(
            [
                "</data>", "＜/data＞", "﹤", "\u200b", "\u202e", "\u2066", "\U000e0041", "\ufe0f", "\u3164", "\uffa0",
                "e", "\u0301", "\n", "\r", "\x85", "\u2028", "\x1b[31m", "<", ">", '"', "…", "ﬁ", "①", "\ud800",
                "\x00", "½", "\u115f", "가", "ᆨ",
            ]
        ),
        max_size=20,
    ).map("".join),
)  # fmt: skip
WEB = st.lists(
    st.sampled_from(
        [
            "https://", "http:/", "/", "//", ":", "evil.example", "evil", ".com", ".", "www.", "<", ">", "|", "[",
            "](", ")", "@", "!channel", "<!here>", "<@U0ALICE>", "mailto:", "\u200b", " ", "a", "?x=1", "#", "\\",
            "xn--e1afmkfd", "hxxps", "\u202e",
            "tel:112", "evil.xyz/steal", "checkout", "[.]", "\u2060", "\ufe0f", "@channel", "еvil.com",
        ]
    ),
    max_size=12,
).map("".join)  # fmt: skip


@given(HOSTILE, st.integers(1, 80), st.booleans())
def test_neutralised_text_is_short_visible_and_stays_the_same(text: str, limit: int, lines: bool) -> None:
    once = neutralise(text, limit, lines=lines)
    assert len(once) <= limit
    assert neutralise(once, limit, lines=lines) == once
    assert not set("<>") & set(once)
    assert not [char for char in once if unicodedata.category(char)[0] == "C" and not (lines and char == "\n")]
    assert lines or "\n" not in once


@given(HOSTILE, HOSTILE)
def test_a_fence_has_one_beginning_and_one_end(body: str, about: str) -> None:
    whole = fence("data", neutralise(body, 300, lines=True), {"id": "E1", "about": about})
    assert len(TAG.findall(whole)) == whole.count("<") == whole.count(">") == 2
    assert re.fullmatch(r'<data id="E1" about="[^"<>\n]*">\n[^<>]*\n</data>', whole)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a\u200bb\u2060c\ufeffd", "abcd"),
        ("x\u202eevil\u202c y", "xevil y"),
        ("\U000e0049\U000e0067\U000e006e ok", "ok"),
        ("a\ufe0fb\U000e0155c", "abc"),
        ("＜/data＞", "‹/data›"),
        ("﹤b﹥", "‹b›"),
        ("one\r\ntwo\x85three\u2028four\tfive", "one two three four five"),
        ("\x1b[31mred\x1b[0m", "[31mred[0m"),
        ("\u3164\u115f\u2800x", "x"),
        ("ｓｙｓｔｅｍ：", "system:"),
        ("", ""),
    ],
)
def test_what_hides_goes(text: str, expected: str) -> None:
    assert neutralise(text, 100) == expected


def test_marks_are_not_piled_up() -> None:
    tower = "a" + "\u0334" * 50 + "b"
    assert len(neutralise(tower, 100)) == 2 + MAX_MARKS
    vietnamese = "Việt Nam"
    assert neutralise(unicodedata.normalize("NFD", vietnamese), 100) == vietnamese


def test_lines_stay_where_they_are_wanted_and_length_is_said_by_dots() -> None:
    assert neutralise(" a  b \n\n c ", 100, lines=True) == "a b\nc"
    assert neutralise("abcdef", 4) == "abc…"
    assert len(attribute("x" * 1000)) == ATTRIBUTE_CHARS
    assert attribute('a" onload="b') == "a' onload='b"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("see https://evil.example/steal?d=secret now", "see evil[.]example now"),
        ("click <https://evil.example/x|the runbook>", "click the runbook evil[.]example"),
        ("[the runbook](https://evil.example/x) says", "the runbook evil[.]example says"),
        ("https://user:pw@evil.example:8443/x", "evil[.]example:8443"),
        ("www.evil.com/x?y=1 and evil.com.", "www[.]evil[.]com/x and evil[.]com."),
        ("mail mailto:a@evil.example or a@evil.example", "mail (link left out) or a@evil[.]example"),
        ("javascript:alert(1) data:text/html,x", "(link left out)) (link left out)"),
        ("<!channel> <@U0ALICE> <#C01|general> @here", "‹channel› ‹U0ALICE› ‹general› here"),
        ("ht\u200btps://evil.example/x", "evil[.]example"),
        ("pull ghcr.io/example/app:1.2 on node.kubernetes.io/disk-pressure",
         "pull ghcr[.]io/example/app:1.2 on node[.]kubernetes[.]io/disk-pressure"),
        ("http://10.0.0.7:8080/metrics refused", "10.0.0.7:8080 refused"),
        ("postgres://db:5432/shop refused", "db:5432 refused"),
        ("file:///etc/passwd", "(link left out)"),
        ("hthttps://evil.example/tps://evil.example", "evil[.]example"),
    ],
)  # fmt: skip
def test_links_become_words(text: str, expected: str) -> None:
    assert without_links(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "p99 of checkout is 1.9 s < 2 s, 3.5× its baseline [E1]; memory > 85 % at 14:02:11 UTC",
        "checkout.shop.svc.cluster.local:8080 refused the connection; db-0.db.internal answers",
        "values.yaml, main.py:42 and /etc/app/config.d/app.conf differ; nginx.conf/x is new",
        "java.io.IOException at com.example.Token.parse(Token.java:12)",
        "x = a[1](b) and C:/temp/x; image sha256:9f86d0",
        "p50 <= 3 <b",
    ],
)
def test_what_is_no_link_stays(text: str) -> None:
    assert without_links(text) == text


@given(WEB)
def test_nothing_that_slack_would_link_is_left(text: str) -> None:
    once = without_links(text)
    assert LINKED.search(once) is None, once
    assert without_links(once) == once
    assert LINKED.search(escape(once)) is None
