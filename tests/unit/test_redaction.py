"""Redaction: no secret of any kind survives, nothing else changes. All secrets here are made up at run time."""

import base64
import json
import random
import string
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.domain.redaction import MAX_DEPTH, TOO_DEEP, Redactor
from pipeline.domain.redaction_values import PLACEHOLDER

REDACTOR = Redactor()
INNOCENT = (Path(__file__).parent / "innocent_lines.txt").read_text(encoding="utf-8").splitlines()
ALNUM = string.ascii_letters + string.digits
HEX = "0123456789abcdef"
URLSAFE = ALNUM + "-_"
BASE64 = ALNUM + "+/"
FRAGMENT = 6
"""So many characters in a row of a secret are taken for a part of it that survived."""


def some(alphabet: str, least: int, most: int | None = None) -> Callable[[random.Random], str]:
    """Makes words; the first characters have a digit and letters of both cases where the alphabet has them."""

    def make(rng: random.Random) -> str:
        size = rng.randint(least, most or least)
        sure = [
            rng.choice([c for c in alphabet if test(c)] or alphabet) for test in (str.isdigit, str.isupper, str.islower)
        ]
        chars = sure + [rng.choice(alphabet) for _ in range(size - len(sure))]
        rng.shuffle(chars)
        return "".join(chars)

    return make


def after(prefix: str, make: Callable[[random.Random], str]) -> Callable[[random.Random], str]:
    return lambda rng: prefix + make(rng)


def jwt(rng: random.Random) -> str:
    head, body = (
        {"alg": "HS256", "kid": some(ALNUM, 8)(rng)},
        {"sub": some(ALNUM, 10)(rng), "exp": rng.getrandbits(31)},
    )
    parts = [base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in (head, body)]
    return ".".join([*parts, some(URLSAFE, 43)(rng)])


def pem(label: str, newline: str) -> Callable[[random.Random], str]:
    def make(rng: random.Random) -> str:
        lines = [some(BASE64, 64)(rng) for _ in range(rng.randint(2, 6))] + [some(BASE64, 20)(rng) + "=="]
        return newline.join([f"-----BEGIN {label}-----", *lines, f"-----END {label}-----"])

    return make


def card(rng: random.Random) -> str:
    digits = [4, *(rng.randrange(10) for _ in range(14))]
    total = sum(2 * d - 9 * (d > 4) if place % 2 == 0 else d for place, d in enumerate(digits))
    digits.append(-total % 10)
    text = "".join(map(str, digits))
    return rng.choice(["", " ", "-"]).join(text[at : at + 4] for at in range(0, 16, 4))


FORMATS: dict[str, Callable[[random.Random], str]] = {
    "jwt": jwt,
    "github-classic": after("ghp_", some(ALNUM, 36)),
    "github-app": after("ghs_", some(ALNUM, 36)),
    "github-fine": after("github_pat_", some(ALNUM, 82)),
    "gitlab": after("glpat-", some(URLSAFE, 20)),
    "slack-bot": after("xoxb-", some(string.digits + ALNUM, 40)),
    "slack-app": after("xapp-1-", some(ALNUM, 60)),
    "slack-webhook": lambda rng: f"services/T{some(ALNUM, 9)(rng)}/B{some(ALNUM, 9)(rng)}",
    "aws-key-id": after("AKIA", some(string.ascii_uppercase + "234567", 16)),
    "google-api": after("AIza", some(URLSAFE, 35)),
    "google-oauth": after("ya29.", some(URLSAFE, 60)),
    "stripe": after("sk_live_", some(ALNUM, 24)),
    "stripe-webhook": after("whsec_", some(ALNUM, 32)),
    "anthropic": after("sk-ant-api03-", some(URLSAFE, 80)),
    "openai": after("sk-proj-", some(URLSAFE, 48)),
    "npm": after("npm_", some(ALNUM, 36)),
    "pypi": after("pypi-AgEIcHlwaS5vcmc", some(URLSAFE, 80)),
    "twilio": after("SK", some(HEX, 32)),
    "sendgrid": lambda rng: f"SG.{some(URLSAFE, 22)(rng)}.{some(URLSAFE, 43)(rng)}",
    "mailgun": after("key-", some(HEX, 32)),
    "hugging-face": after("hf_", some(ALNUM, 34)),
    "vault": after("hvs.", some(URLSAFE, 90)),
    "digitalocean": after("dop_v1_", some(HEX, 64)),
    "grafana": after("glsa_", some(ALNUM, 32)),
    "new-relic": after("NRAK-", some(string.ascii_uppercase + string.digits, 27)),
    "databricks": after("dapi", some(HEX, 32)),
    "square": after("sq0csp-", some(URLSAFE, 43)),
    "mailchimp": lambda rng: some(HEX, 32)(rng) + "-us12",
    "artifactory": after("AKCp", some(ALNUM, 69)),
    "rsa-key": pem("RSA PRIVATE KEY", "\n"),
    "ssh-key": pem("OPENSSH PRIVATE KEY", "\n"),
    "escaped-key": pem("PRIVATE KEY", "\\n"),
    "key-on-one-line": pem("EC PRIVATE KEY", " "),
    "key-in-base64": lambda rng: base64.b64encode(pem("PRIVATE KEY", "\n")(rng).encode()).decode(),
    "card": card,
}
AROUND = (
    "{}",
    "2026-11-23T08:14:02Z WARN upstream said {}",
    '{{"msg":"got {} from peer","code":7}}',
    "retry with '{}' failed (3 of 5)",
    "<{}>",
    "a={} b=2",
    "https://example.net/cb?x={}&y=2",
    "first line\\n{}\\nlast line",
    "\x1b[32mINFO\x1b[0m {} done",
)
PLACES = (
    "password={}",
    "user=app password={} host=db",
    "PGPASSWORD={} psql -h db",
    "passwd: {}",
    "  db_pwd: {}",
    "DB_PASSWORD:  {}",
    "--password {} --host db",
    "--db-password={}",
    "api_key={}&page=2",
    "GET /v1/orders?access_token={}&page=2 HTTP/1.1",
    "X-Api-Key: {}",
    "x-auth-token: {}",
    "Authorization: Bearer {}",
    "authorization: token {}",
    "proxy-authorization=Bearer {}",
    "Bearer {}",
    "headers=map[Authorization:[Bearer {}] Accept:[*/*]]",
    "Cookie: session={}; theme=x",
    "Set-Cookie: sid={}; Path=/; HttpOnly; Secure",
    "JSESSIONID={}",
    "postgres://app:{}@db.example.net:5432/shop?sslmode=require",
    "redis://:{}@redis:6379/0",
    "amqp://guest:{}@mq:5672/%2F",
    "mongodb+srv://app:{}@a.example.net,b.example.net/shop",
    "https://deploy:{}@git.example.net/shop.git",
    "app:{}@tcp(db:3306)/shop",
    "Server=db;User Id=sa;Password={};Encrypt=true",
    "AccountName=shop;AccountKey={};EndpointSuffix=core.example.net",
    "https://shop.example.net/c?sv=2022&sig={}&se=2026",
    "aws_secret_access_key = {}",
    "client_secret={}",
    "{{Name:app Password:{} Port:5432}}",
    "map[password:{} user:app]",
    "\x1b[36mpassword\x1b[0m=\x1b[33m{}\x1b[0m host=db",
    "- name: DB_PASSWORD value: {}",
    "- name: API_TOKEN\n  value: {}\n- name: MODE",
    "kubeadm join 10.0.0.1:6443 --token {} --discovery-token-unsafe-skip-ca-verification",
    "curl -u admin:{} https://example.net/",
)
QUOTED_PLACES = (
    '{{"user":"app","password":{},"port":5432}}',
    '{{"clientSecret" : {} }}',
    '{{"accessToken":{}',
    '{{"name":"DB_PASSWORD","value":{}}}',
    "password: {}",
    "  api_key: {}  # for the test",
    "SECRET_KEY = {}",
    'settings = {{"AWS_SECRET_ACCESS_KEY": {}}}',
)
QUOTED_TIGHT = (
    "ALTER ROLE app PASSWORD '{}'",
    "CREATE USER app IDENTIFIED BY '{}';",
    "{{'password': '{}', 'port': 1}}",
    "password=b'{}'",
)
UNQUOTED_ALPHABET = ALNUM + "-_.~!*+^%$"
QUOTED_ALPHABET = UNQUOTED_ALPHABET + '"\\ ,;&|(){}[]@:#/?=<>é'
FEW = settings(max_examples=6)
SEEDS = st.integers(0, 2**32)


def assert_gone(secret: str, around: str, redactor: Redactor = REDACTOR) -> str:
    text = redactor.text(around).text
    shown = PLACEHOLDER.sub("", text)
    rest = PLACEHOLDER.sub("", around.replace(secret, "\x00"))
    pieces = {secret[at : at + FRAGMENT] for at in range(max(1, len(secret) - FRAGMENT + 1))}
    left = [piece for piece in pieces if piece in shown and piece not in rest]
    assert not left, (around, text, left)
    assert redactor.text(text).text == text, "a second time changes nothing"
    return text


@pytest.mark.parametrize("name", FORMATS)
@FEW
@given(seed=SEEDS, around=st.sampled_from(AROUND))
def test_a_token_of_a_known_format_goes_wherever_it_stands(name: str, seed: int, around: str) -> None:
    secret = FORMATS[name](random.Random(seed))
    if name == "card" and around.startswith("https"):
        around = "{}"
    if name == "slack-webhook":
        around = around.replace("{}", "https://hooks.slack.com/{}")
    assert_gone(secret, around.format(secret))


@pytest.mark.parametrize("place", PLACES)
@FEW
@given(
    seed=SEEDS, size=st.integers(8, 40), before=st.sampled_from(["", "08:14:02 ERROR ", "level=warn ", "(", '{"m":"'])
)
def test_what_stands_where_secrets_are_written_goes(place: str, seed: int, size: int, before: str) -> None:
    secret = some(UNQUOTED_ALPHABET, size)(random.Random(seed)).strip(UNQUOTED_ALPHABET[62:]) + "x7"
    text = assert_gone(secret, before + place.format(secret))
    assert len(PLACEHOLDER.findall(text)) >= 1
    for word in ("host=db", "page=2", "/shop", "example.net", "Path=/", "Port:5432", "Encrypt=true"):
        assert (word in text) == (word in place), "what stands beside it stays"


@pytest.mark.parametrize("place", QUOTED_PLACES)
@FEW
@given(seed=SEEDS, size=st.integers(8, 40))
def test_a_quoted_value_goes_to_its_own_end(place: str, seed: int, size: int) -> None:
    secret = some(QUOTED_ALPHABET, size)(random.Random(seed)) + "x7"
    line = place.format(json.dumps(secret, ensure_ascii=False))
    text = assert_gone(json.dumps(secret, ensure_ascii=False)[1:-1], line)
    assert ("5432" in text) == ("5432" in place)
    within = json.dumps({"log": line})
    assert_gone(json.dumps(json.dumps(secret, ensure_ascii=False)[1:-1], ensure_ascii=False)[1:-1], within)


@pytest.mark.parametrize("place", QUOTED_TIGHT)
@FEW
@given(seed=SEEDS)
def test_a_value_in_single_quotes_goes(place: str, seed: int) -> None:
    secret = some(UNQUOTED_ALPHABET + " ,;&", 12)(random.Random(seed)) + "x7"
    assert_gone(secret, place.format(secret))


def test_nothing_else_changes() -> None:
    assert len(INNOCENT) >= 200
    changed = {line: text for line in INNOCENT if (text := REDACTOR.text(line).text) != line}
    assert changed == {}
    together = "\n".join(INNOCENT)
    assert REDACTOR.text(together).text == together
    assert REDACTOR.json({"lines": list(INNOCENT)}) == {"lines": list(INNOCENT)}


@given(st.text(max_size=200))
def test_whatever_comes_redacting_twice_is_redacting_once(text: str) -> None:
    once = REDACTOR.text(text).text
    assert REDACTOR.text(once).text == once


@given(
    st.lists(
        st.sampled_from(
            [
                "password",
                "token=",
                ":",
                '"',
                "\\",
                "'",
                "\n",
                " ",
                "secret",
                "=",
                "‹secret:",
                "›",
                "[",
                "Bearer ",
                "://",
                "@",
                "-----BEGIN PRIVATE KEY-----",
                "eyJ",
                "x1",
                "{",
                "İ",
                ",",
                "cookie: ",
            ]
        ),
        max_size=14,
    )
)
def test_pieces_of_syntax_in_any_order_are_stable(parts: list[str]) -> None:
    once = REDACTOR.text("".join(parts)).text
    assert REDACTOR.text(once).text == once


def test_one_secret_has_one_placeholder_and_another_another() -> None:
    rng = random.Random(1)
    first, second = some(ALNUM, 20)(rng), some(ALNUM, 20)(rng)
    text = REDACTOR.text(f"password={first} and password={second}\npostgres://app:{first}@db/x").text
    one, two, three = PLACEHOLDER.findall(text)
    assert one == three != two
    assert one.startswith("‹secret:password:")
    tokens = {PLACEHOLDER.findall(REDACTOR.text(f"token={some(ALNUM, 16)(rng)}").text)[0] for _ in range(300)}
    assert len(tokens) == 300


def test_a_placeholder_tells_nothing_without_the_salt() -> None:
    line = "password=" + some(ALNUM, 8)(random.Random(2))
    assert Redactor().text(line).text != Redactor().text(line).text
    assert Redactor(b"a").text(line).text == Redactor(b"a").text(line).text
    assert Redactor(b"a").text(line).text != Redactor(b"b").text(line).text
    for salt in (b"", b"x" * 65):
        with pytest.raises(ValueError, match="1 to 64 bytes"):
            Redactor(salt)


def test_what_was_found_is_counted_by_kind() -> None:
    rng = random.Random(3)
    secret = some(ALNUM, 20)
    tokens = f"token={secret(rng)} token={secret(rng)} {FORMATS['npm'](rng)}"
    found = REDACTOR.text(f"password={secret(rng)} {tokens} Authorization: Bearer {secret(rng)}").found
    assert found == {"password": 1, "token": 2, "bearer": 1, "npm": 1}
    assert REDACTOR.text("password rejected").found == {}


def test_a_forged_placeholder_hides_nothing() -> None:
    secret = some(ALNUM, 12)(random.Random(4))
    for forged in ("‹secret:{}›", "‹secret:password:{}›", "‹secret:password:000000›{}", "<secret>{}"):
        assert_gone(secret, "password=" + forged.format(secret))


def test_an_aws_secret_goes_beside_its_id_and_a_hash_stays() -> None:
    rng = random.Random(5)
    key, secret, commit = FORMATS["aws-key-id"](rng), some(BASE64, 40)(rng), some(HEX, 40)(rng)
    text = assert_gone(secret, f"{key} {secret} at {commit}")
    assert commit in text
    assert secret in REDACTOR.text(f"object {secret}").text, "alone it may be anything"


def test_basic_credentials_are_known_by_what_they_decode_to() -> None:
    pair = base64.b64encode(b"admin:" + some(ALNUM, 12)(random.Random(6)).encode()).decode()
    for line in ("Basic {}", '{{"auths":{{"example.net":{{"auth":"{}"}}}}}}', "Authorization: Basic {}"):
        assert_gone(pair, line.format(pair))


def test_lines_of_a_key_that_were_cut_apart_go() -> None:
    key = FORMATS["rsa-key"](random.Random(7))
    for line in key.splitlines()[1:-2]:
        assert_gone(line, f"2026-11-23T08:14:02Z stdout F {line}")
    for cut in range(80, len(key) - 60, 37):
        body = "".join(key[:cut].splitlines()[1:])
        assert_gone(body, key[:cut])
    assert REDACTOR.text(key[:200] + "\nnext: the plan was made at noon").text.endswith("the plan was made at noon")


def test_a_block_of_yaml_goes_and_its_neighbours_stay() -> None:
    secret = some(ALNUM, 12)(random.Random(8))
    text = REDACTOR.text(f"spec:\n  password: |\n    {secret}\n    {secret}\n  replicas: 2\n").text
    assert secret not in text
    assert text.startswith("spec:\n  password: |\n")
    assert text.endswith("›\n  replicas: 2\n")
    empty = "db:\n  password:\n  user: app\n"
    assert REDACTOR.text(empty).text == empty


def test_json_is_redacted_by_its_keys() -> None:
    rng = random.Random(9)
    words = [some(ALNUM, 14)(rng) for _ in range(12)]
    value = REDACTOR.json(
        {
            "password": words[0],
            "db": {"PGPASSWORD": "correct horse", "port": 5432, "passwords_seen": 3},
            "env": [{"name": "API_TOKEN", "value": words[1]}, {"name": "MODE", "value": "prod"}],
            "headers": {
                "Authorization": f"Bearer {words[2]}",
                "Cookie": f"sid={words[3]}; theme=dark",
                "Accept": "*/*",
            },
            "secret": {"secretName": "db-credentials", "key": "password"},
            "token": [words[4], words[5]],
            "pwd": 123456,
            "ok": [True, None, 1.5, "password rejected"],
            "token_valid": True,
            "otp_token": None,
            "line": f"password={words[6]}",
            "max_tokens": 4096,
        }
    )
    text = json.dumps(value, ensure_ascii=False)
    assert not [word for word in (*words[:7], "correct horse", "123456") if word in text]
    assert isinstance(value, dict)
    assert list(value)[:4] == ["password", "db", "env", "headers"]
    assert value["secret"] == {"secretName": "db-credentials", "key": "password"}
    assert value["ok"] == [True, None, 1.5, "password rejected"]
    assert (value["token_valid"], value["otp_token"], value["max_tokens"]) == (True, None, 4096)
    assert value["env"][1] == {"name": "MODE", "value": "prod"}  # type: ignore[index, call-overload]
    assert REDACTOR.json(value) == value


def test_json_without_end_ends() -> None:
    nested: list[object] = []
    for _ in range(5000):
        nested = [nested]
    text = json.dumps(REDACTOR.json(nested), ensure_ascii=False)  # type: ignore[arg-type]
    assert TOO_DEEP in text
    assert text.count("[") == MAX_DEPTH + 1
