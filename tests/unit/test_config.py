"""One settings tree, and the only reader of the environment."""

import os
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr, ValidationError

from bot.config import Settings, load, variables
from pipeline.domain.anomaly import DetectionSettings
from pipeline.domain.errors import ConfigurationError

ALL = list(variables())
NAMES = [variable.name for _, _, variable, _ in ALL]
SECRETS = [variable.name for _, _, variable, info in ALL if "SecretStr" in str(info.annotation)]
HIDDEN = "xoxb-very-secret-42"


def value_of(settings: Settings, name: str) -> Any:
    group, field = next((group, field) for group, field, variable, _ in ALL if variable.name == name)
    return getattr(getattr(settings, group), field)


def mistakes(environ: dict[str, str], env_file: Path | None = None) -> list[str]:
    with pytest.raises(ConfigurationError) as caught:
        load(environ, env_file)
    return str(caught.value).splitlines()


@pytest.fixture
def env_file(tmp_path: Path) -> Path:
    return tmp_path / ".env"


def test_the_defaults_stand_by_themselves() -> None:
    settings = load({}, None)
    assert settings == Settings()
    assert Settings.model_validate(settings.model_dump()) == settings
    assert settings.guard.initial_phase == "shadow", "a new installation changes nothing"
    assert settings.guard.approvals_severe == 2


@pytest.mark.parametrize(("group", "field", "variable", "info"), ALL, ids=NAMES)
def test_every_setting_says_what_it_is(group: str, field: str, variable: Any, info: Any) -> None:
    assert variable.unit
    assert len(variable.why) > 10
    assert not info.is_required()
    assert re.fullmatch(r"[A-Z][A-Z0-9_]+", variable.name)
    in_seconds = field.endswith("_s") and not field.endswith("_per_s")
    assert in_seconds == (variable.unit == "seconds"), "the unit stands in the name"


def test_no_variable_is_read_twice() -> None:
    assert len(set(NAMES)) == len(NAMES)
    assert {"SLACK_BOT_TOKEN", "ANTHROPIC_API_KEY", "DATABASE_URL"} <= set(SECRETS)


def test_detection_is_tuned_under_the_names_the_rules_use() -> None:
    tuned = Settings().detection.model_dump()
    rules = DetectionSettings()
    assert {name: getattr(rules, name) for name in tuned} == tuned


def test_values_become_what_they_are() -> None:
    settings = load({"SRE_INTERVAL_S": " 7.5 ", "SRE_HTTP_PORT": "0", "SRE_DATA_DIR": "/tmp/x"}, None)
    assert settings.telemetry.interval_s == 7.5
    assert (settings.runtime.port, settings.store.data_dir) == (0, Path("/tmp/x"))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("U1", ("U1",)),
        ("U1,U2", ("U1", "U2")),
        (" U1 , U2 ,", ("U1", "U2")),
        (",,U1", ("U1",)),
        (",", ()),
        ("", ()),
    ],
)
def test_lists_are_separated_by_commas(text: str, expected: tuple[str, ...]) -> None:
    assert load({"SRE_APPROVERS": text}, None).slack.approvers == expected


@pytest.mark.parametrize(
    ("name", "text"), [("SRE_APPROVERS", "U1 U2"), ("SRE_APPROVERS", "U1,@alice"), ("SRE_APPROVER_GROUP", "@sre")]
)
def test_people_and_groups_are_named_by_slacks_ids(name: str, text: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"^{name}: string should match pattern"):
        load({name: text}, None)


def test_reminders_are_a_list_of_seconds() -> None:
    assert load({}, None).guard.remind_after_s == (300.0, 900.0)
    assert load({"SRE_REMIND_AFTER_S": "60, 120"}, None).guard.remind_after_s == (60.0, 120.0)
    with pytest.raises(ConfigurationError, match=r"^SRE_REMIND_AFTER_S: "):
        load({"SRE_REMIND_AFTER_S": "60,-1"}, None)


def test_a_comma_in_anything_else_is_kept() -> None:
    assert load({"SRE_KUBERNETES_CONTEXT": "a,b"}, None).targets.kubernetes_context == "a,b"


@pytest.mark.parametrize("name", NAMES)
def test_empty_means_default(name: str) -> None:
    for empty in ("", "   "):
        assert load({name: empty}, None) == Settings()


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("SRE_MEMORY_RATO", "SRE_MEMORY_RATIO"),
        ("SRE_APROVERS", "SRE_APPROVERS"),
        ("SRE_MEMORY_SUSTAIN", "SRE_MEMORY_SUSTAIN_S"),
    ],
)
def test_an_unknown_setting_gets_a_suggestion(name: str, meant: str) -> None:
    assert mistakes({name: "1"}) == [f"{name}: no such setting; did you mean {meant}?"]


def test_an_unknown_setting_like_no_other_is_pointed_to_the_list() -> None:
    assert mistakes({"SRE_ZZZZ_QQQQ_XXXX": "1"}) == ["SRE_ZZZZ_QQQQ_XXXX: no such setting; `sre-bot config` lists them"]


def test_the_rest_of_the_environment_is_none_of_our_business() -> None:
    assert load({"PATH": "/bin", "SLACK_THEME": "dark", "SREX": "1", "sre_interval_s": "9"}, None) == Settings()


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("SRE_INTERVAL_S", "soon", "valid number"),
        ("SRE_INTERVAL_S", "0", "greater than 0"),
        ("SRE_INTERVAL_S", "-1", "greater than 0"),
        ("SRE_INTERVAL_S", "15s", "valid number"),
        ("SRE_INTERVAL_S", "nan", "finite number"),
        ("SRE_MEMORY_SUSTAIN_S", "inf", "finite number"),
        ("SRE_MEMORY_SUSTAIN_S", "1e300", "less than or equal to 1000000000"),
        ("SRE_LATENCY_SIGMAS", "-inf", "finite number"),
        ("SRE_MEMORY_RATIO", "85", "less than or equal to 1"),
        ("SRE_MAX_SHARE", "0", "greater than 0"),
        ("SRE_APPROVALS_SEVERE", "0", "greater than or equal to 1"),
        ("SRE_APPROVALS_SEVERE", "1.5", "valid integer"),
        ("SRE_HTTP_PORT", "65536", "less than or equal to 65535"),
        ("SRE_HTTP_PORT", "-1", "greater than or equal to 0"),
        ("SRE_INITIAL_PHASE", "autonomous", "'shadow' or 'assist'"),
        ("SRE_LOG_LEVEL", "LOUD", "debug"),
        ("SRE_SLACK_COMMAND", "sre", "pattern"),
        ("SRE_SLACK_COMMAND", "/sre status", "pattern"),
    ],
)
def test_a_wrong_value_is_one_line_that_names_it(name: str, value: str, said: str) -> None:
    (line,) = mistakes({name: value})
    assert line.startswith(f"{name}: ")
    assert said in line.lower()


def test_the_message_keeps_the_case_of_what_is_accepted() -> None:
    (line,) = mistakes({"SRE_LOG_LEVEL": "debug"})
    assert line == "SRE_LOG_LEVEL: input should be 'DEBUG', 'INFO', 'WARNING' or 'ERROR'"


@pytest.mark.parametrize("hold_s", ["600", "900"])
def test_what_must_hold_must_fit_before_the_deadline(hold_s: str) -> None:
    (line,) = mistakes({"SRE_VERIFY_HOLD_S": hold_s})
    assert line.startswith(f"SRE_VERIFY_HOLD_S: {hold_s} s must be less than SRE_VERIFY_DEADLINE_S (600 s)")
    settings = load({"SRE_VERIFY_HOLD_S": hold_s, "SRE_VERIFY_DEADLINE_S": "901"}, None)
    assert settings.verification.hold_s == float(hold_s)


def test_every_mistake_is_told_at_once() -> None:
    wrong = {"SRE_INTERVAL_S": "soon", "SRE_HTTP_PORT": "x", "SRE_NOSUCH": "1", "SRE_INITIAL_PHASE": "bold"}
    lines = mistakes(wrong)
    assert sorted(line.split(":")[0] for line in lines) == sorted(wrong)


@pytest.mark.parametrize("name", SECRETS)
def test_secrets_are_in_no_text(name: str) -> None:
    settings = load({name: HIDDEN}, None)
    for text in (repr(settings), str(settings), str(settings.model_dump()), settings.model_dump_json()):
        assert HIDDEN not in text
    secret = value_of(settings, name)
    assert isinstance(secret, SecretStr)
    assert secret.get_secret_value() == HIDDEN


def test_secrets_are_in_no_message(env_file: Path) -> None:
    env_file.write_text("".join(f"{name}={HIDDEN}\n" for name in SECRETS) + f"SLACK_BOT_TOKN={HIDDEN}\n")
    wrong = {"SRE_INTERVAL_S": HIDDEN, "SRE_HTTP_PORT": HIDDEN, "SRE_SLACK_COMMAND": HIDDEN, "SRE_TOKEN": HIDDEN}
    lines = mistakes(wrong, env_file)
    assert len(lines) == len(wrong) + 1
    assert HIDDEN not in "\n".join(lines)


@given(st.text(st.characters(exclude_characters="\0", codec="utf-8"), min_size=1, max_size=40))
def test_no_text_in_place_of_a_number_is_more_than_one_line(value: str) -> None:
    (line,) = mistakes({"SRE_COOLDOWN_S": f"q{value}"})
    assert line.startswith("SRE_COOLDOWN_S: ")


def test_the_file_is_read_and_the_environment_wins(env_file: Path) -> None:
    env_file.write_text(
        "# ours\n\nexport SRE_INTERVAL_S=5\nSRE_HTTP_PORT='9000' # comment\nSRE_APPROVERS=\"U1,U2\"\nDATABASE_URL=\n"
    )
    settings = load({"SRE_HTTP_PORT": "9001"}, env_file)
    assert (settings.telemetry.interval_s, settings.runtime.port) == (5, 9001)
    assert settings.slack.approvers == ("U1", "U2")
    assert settings.store.database_url is None
    assert load({"SRE_INTERVAL_S": ""}, env_file).telemetry.interval_s == 15, "emptied on purpose: the default"


def test_everything_in_the_file_must_be_known(env_file: Path) -> None:
    env_file.write_text("SLACK_BOT_TOKN=x\nFOO_BAR_BAZ=1\n")
    assert mistakes({}, env_file) == [
        "FOO_BAR_BAZ: no such setting; `sre-bot config` lists them",
        "SLACK_BOT_TOKN: no such setting; did you mean SLACK_BOT_TOKEN?",
    ]


@pytest.mark.parametrize(
    "bad", [HIDDEN, "SRE_INTERVAL_S 5", f"={HIDDEN}", f"{HIDDEN}=", f"export {HIDDEN}", f"sre_interval_s={HIDDEN}"]
)
def test_a_malformed_line_is_named_by_its_number_alone(env_file: Path, bad: str) -> None:
    env_file.write_text(f"# ours\n\nSRE_HTTP_PORT=9000\n\n\n{bad}\nSRE_COOLDOWN_S=5\n{bad}\n")
    form = "not of the form NAME=value (capital letters)"
    assert mistakes({}, env_file) == [f"{env_file}, line 6: {form}", f"{env_file}, line 8: {form}"]


def test_a_wrong_value_in_the_file_counts_unless_overruled(env_file: Path) -> None:
    env_file.write_text("SRE_INTERVAL_S=soon\n")
    assert mistakes({}, env_file)[0].startswith("SRE_INTERVAL_S: ")
    assert load({"SRE_INTERVAL_S": "3"}, env_file).telemetry.interval_s == 3


def test_no_file_is_fine_and_a_broken_one_is_named(env_file: Path) -> None:
    assert load({}, env_file) == load({}, env_file.parent) == Settings()
    env_file.write_bytes(b"SRE_INTERVAL_S=\xff\xfe\n")
    (line,) = mistakes({}, env_file)
    assert str(env_file) in line
    assert "cannot be read" in line


def test_without_an_argument_the_real_environment_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("SRE_") or name in NAMES]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("SRE_INTERVAL_S", "4")
    assert load(env_file=None).telemetry.interval_s == 4


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        setattr(Settings().guard, "max_share", 1.0)  # noqa: B010 - mypy knows that it is read-only
