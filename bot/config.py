"""The settings: one frozen tree, and the only reader of the environment and of ``.env``.

Every setting states its variable, its unit, why it is there, and its default. An unknown or wrong one stops the start
with one line each; values of secrets are never printed.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterator, Mapping
from io import StringIO
from pathlib import Path
from typing import Annotated, Any, Literal, get_origin

from dotenv import dotenv_values
from dotenv.parser import parse_stream
from pydantic import AfterValidator, BaseModel, Field, SecretStr, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from bot.config_guard import GuardSettings
from bot.config_model import KnowledgeSettings, ModelSettings
from bot.config_targets import TargetSettings
from bot.config_telemetry import TelemetrySettings
from bot.config_types import Group, Positive, Ratio, Variable
from pipeline.domain.approval import UserIdText
from pipeline.domain.errors import ConfigurationError

_NAME = re.compile(r"[A-Z][A-Z0-9_]*")


class StoreSettings(Group):
    data_dir: Annotated[Path, Variable("SRE_DATA_DIR", "path", "where the embedded servers and the demo keep data")] = (
        Path(".sre-bot")
    )
    database_url: Annotated[
        SecretStr | None, Variable("DATABASE_URL", "URL", "any PostgreSQL ≥ 14; empty: an embedded one is supervised")
    ] = None
    migration_database_url: Annotated[
        SecretStr | None,
        Variable("MIGRATION_DATABASE_URL", "URL", "the owner's login: migrates, so that DATABASE_URL's owns nothing"),
    ] = None
    redis_url: Annotated[
        SecretStr | None, Variable("REDIS_URL", "URL", "any Redis ≥ 6.2; empty: an embedded one is supervised")
    ] = None
    etcd_url: Annotated[
        SecretStr | None, Variable("ETCD_URL", "URL", "locks are kept in this etcd and not in Redis (extra `etcd`)")
    ] = None
    anchor_file: Annotated[
        Path | None,
        Variable("SRE_ANCHOR_FILE", "path", "anchors of the trail, outside the database; empty: in the data folder"),
    ] = None
    anchor_interval_s: Annotated[
        Positive,
        Variable("SRE_ANCHOR_INTERVAL_S", "seconds", "between anchors; an incident's end makes one too"),
    ] = 3600.0
    samples_keep_s: Annotated[
        Positive, Variable("SRE_SAMPLES_KEEP_S", "seconds", "how long samples stay in the database")
    ] = 86_400.0


class SlackSettings(Group):
    bot_token: Annotated[SecretStr | None, Variable("SLACK_BOT_TOKEN", "xoxb-…", "posts and reads as the bot")] = None
    app_token: Annotated[
        SecretStr | None, Variable("SLACK_APP_TOKEN", "xapp-…", "opens Socket Mode; empty: signed HTTP is served")
    ] = None
    signing_secret: Annotated[
        SecretStr | None, Variable("SLACK_SIGNING_SECRET", "text", "checks requests that come over HTTP")
    ] = None
    api_url: Annotated[
        str, Variable("SLACK_API_URL", "URL", "another Slack-compatible server, such as the local one")
    ] = "https://slack.com/api/"
    channel: Annotated[str, Variable("SRE_SLACK_CHANNEL", "channel id", "where incident cards are posted")] = ""
    command: Annotated[
        str, Field(pattern=r"^/[a-z0-9_-]{1,30}$"), Variable("SRE_SLACK_COMMAND", "/name", "the slash command")
    ] = "/sre"
    team_id: Annotated[
        str, Variable("SRE_SLACK_TEAM", "team id", "the workspace people may decide from; empty: the bot's own")
    ] = ""
    approvers: Annotated[
        tuple[UserIdText, ...],
        Variable("SRE_APPROVERS", "user ids, comma-separated", "who may approve, resume and set the phase"),
    ] = ()
    approver_group: Annotated[
        str,
        Field(pattern=r"^(S[A-Z0-9]{1,30})?$"),
        Variable("SRE_APPROVER_GROUP", "user group id", "members may approve as well"),
    ] = ""


class DetectionTuning(Group):
    memory_ratio: Annotated[Ratio, Variable("SRE_MEMORY_RATIO", "ratio", "memory pressure begins here")] = 0.85
    memory_sustain_s: Annotated[Positive, Variable("SRE_MEMORY_SUSTAIN_S", "seconds", "and must last this long")] = (
        300.0
    )
    latency_sigmas: Annotated[
        Positive, Variable("SRE_LATENCY_SIGMAS", "σ", "p99 this far above its rolling baseline")
    ] = 5.0
    latency_sustain_s: Annotated[
        Positive, Variable("SRE_LATENCY_SUSTAIN_S", "seconds", "and it must last this long")
    ] = 60.0
    latency_min_effect_s: Annotated[
        Positive, Variable("SRE_LATENCY_MIN_EFFECT_S", "seconds", "and be this much slower, whatever the sigmas say")
    ] = 0.05
    error_min_ratio: Annotated[Ratio, Variable("SRE_ERROR_MIN_RATIO", "ratio", "failing share of requests")] = 0.05
    error_sustain_s: Annotated[Positive, Variable("SRE_ERROR_SUSTAIN_S", "seconds", "and it must last this long")] = (
        60.0
    )
    disk_ratio: Annotated[Ratio, Variable("SRE_DISK_RATIO", "ratio", "disk use that is too much")] = 0.90
    disk_sustain_s: Annotated[Positive, Variable("SRE_DISK_SUSTAIN_S", "seconds", "and it must last this long")] = 120.0
    certificate_remaining_s: Annotated[
        Positive, Variable("SRE_CERT_REMAINING_S", "seconds", "a certificate with less time left is an incident")
    ] = 604_800.0
    traffic_surge_share: Annotated[
        Positive, Variable("SRE_TRAFFIC_SURGE_SHARE", "ratio", "traffic this share above what is expected is a surge")
    ] = 0.6
    traffic_drop_share: Annotated[
        Ratio, Variable("SRE_TRAFFIC_DROP_SHARE", "ratio", "traffic this share below what is expected is a drop")
    ] = 0.4
    traffic_sustain_s: Annotated[
        Positive, Variable("SRE_TRAFFIC_SUSTAIN_S", "seconds", "and it must last this long")
    ] = 240.0
    min_traffic_per_s: Annotated[
        Positive, Variable("SRE_MIN_TRAFFIC_PER_S", "1/s", "below it latency and errors of a service say nothing")
    ] = 0.5
    rollout_grace_s: Annotated[
        Positive, Variable("SRE_ROLLOUT_GRACE_S", "seconds", "after a change only errors of half of all requests page")
    ] = 180.0
    clear_after_s: Annotated[
        Positive, Variable("SRE_CLEAR_AFTER_S", "seconds", "inside its bounds this long, a series is well again")
    ] = 300.0


class VerificationTuning(Group):
    hold_s: Annotated[
        Positive, Variable("SRE_VERIFY_HOLD_S", "seconds", "the metric must stay inside its bound this long")
    ] = 120.0
    deadline_s: Annotated[
        Positive, Variable("SRE_VERIFY_DEADLINE_S", "seconds", "after the action; then the verdict is given")
    ] = 600.0


def _in_time(tuning: VerificationTuning) -> VerificationTuning:
    if tuning.hold_s >= tuning.deadline_s:
        raise ValueError(
            f"SRE_VERIFY_HOLD_S: {tuning.hold_s:g} s must be less than SRE_VERIFY_DEADLINE_S ({tuning.deadline_s:g} s),"
            " or no action could ever be found to have helped"
        )
    return tuning


class RuntimeSettings(Group):
    host: Annotated[str, Variable("SRE_HTTP_HOST", "address", "of health, metrics and signed Slack HTTP")] = "127.0.0.1"
    intake_token: Annotated[
        SecretStr | None,
        Field(min_length=16),
        Variable("SRE_INTAKE_TOKEN", "text", "lets pipelines post changes and Alertmanager alerts; empty: shut"),
    ] = None
    port: Annotated[int, Field(ge=0, le=65_535), Variable("SRE_HTTP_PORT", "port", "0 takes a free one")] = 8090
    lease_s: Annotated[Positive, Variable("SRE_LEASE_S", "seconds", "a worker silent for longer is taken over")] = 15.0
    settle_timeout_s: Annotated[
        Positive, Variable("SRE_SETTLE_TIMEOUT_S", "seconds", "a target may take to carry out one step")
    ] = 120.0
    log_level: Annotated[
        Literal["DEBUG", "INFO", "WARNING", "ERROR"], Variable("SRE_LOG_LEVEL", "level", "what is logged to stderr")
    ] = "INFO"


class Settings(Group):
    """All settings. Read once at start by ``load`` and handed on; nothing else looks at the environment."""

    store: StoreSettings = StoreSettings()
    slack: SlackSettings = SlackSettings()
    telemetry: TelemetrySettings = TelemetrySettings()
    detection: DetectionTuning = DetectionTuning()
    verification: Annotated[VerificationTuning, AfterValidator(_in_time)] = VerificationTuning()
    model: ModelSettings = ModelSettings()
    knowledge: KnowledgeSettings = KnowledgeSettings()
    guard: GuardSettings = GuardSettings()
    targets: TargetSettings = TargetSettings()
    runtime: RuntimeSettings = RuntimeSettings()


def load(environ: Mapping[str, str] | None = None, env_file: Path | None = Path(".env")) -> Settings:
    """Reads ``.env`` (lower) and the environment (higher). Raises ConfigurationError with one line a mistake."""
    from_file = _from_file(env_file)
    merged = {**from_file, **(os.environ if environ is None else environ)}
    known = {variable.name: (group, field) for group, field, variable, _ in variables()}
    problems = [_unknown(name, known) for name in sorted(_ours(merged, from_file) - set(known))]
    tree: dict[str, dict[str, Any]] = {}
    for name, (group, field) in known.items():
        value = merged.get(name, "").strip()
        if value:
            parts = [part.strip() for part in value.split(",") if part.strip()]
            tree.setdefault(group, {})[field] = parts if _is_list(group, field) else value
    try:
        settings = Settings.model_validate(tree)
    except ValidationError as error:
        names = {(group, field): name for name, (group, field) in known.items()}
        problems += [_wrong(one, names) for one in error.errors()]
    if problems:
        raise ConfigurationError("\n".join(problems))
    return settings


def variables() -> Iterator[tuple[str, str, Variable, FieldInfo]]:
    """Every setting as (group, field, variable, field info), in the order of the tree."""
    for group, info in Settings.model_fields.items():
        model = info.annotation
        assert isinstance(model, type)
        assert issubclass(model, BaseModel)
        for field, field_info in model.model_fields.items():
            variable = next(item for item in field_info.metadata if isinstance(item, Variable))
            yield group, field, variable, field_info


def _is_list(group: str, field: str) -> bool:
    model = Settings.model_fields[group].annotation
    assert isinstance(model, type)
    assert issubclass(model, BaseModel)
    kind: object = get_origin(model.model_fields[field].annotation)
    return kind is tuple


def _from_file(path: Path | None) -> dict[str, str]:
    if path is None or not path.is_file():
        return {}
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path}: cannot be read ({error})") from error
    if malformed := list(_malformed(text)):
        lines = (f"{path}, line {number}: not of the form NAME=value (capital letters)" for number in malformed)
        raise ConfigurationError("\n".join(lines))
    return {name: value or "" for name, value in dotenv_values(stream=StringIO(text)).items()}


def _malformed(text: str) -> Iterator[int]:
    """Numbers of the lines that set nothing. Their text may be a secret that lost its name: it is never shown."""
    for binding in parse_stream(StringIO(text)):
        named = binding.key is not None and binding.value is not None and _NAME.fullmatch(binding.key)
        if not named and (binding.error or binding.key is not None):
            original = binding.original.string
            yield binding.original.line + original[: len(original) - len(original.lstrip())].count("\n")


def _ours(merged: Mapping[str, str], from_file: Mapping[str, str]) -> set[str]:
    """Names that must be known: all of ``.env``, and everything in the environment that begins with ``SRE_``."""
    return {name for name in merged if name.startswith("SRE_")} | set(from_file)


def _wrong(error: ErrorDetails, names: Mapping[tuple[str, str], str]) -> str:
    """One line on a wrong setting; a mistake of several together says itself which they are."""
    if len(error["loc"]) < 2:
        return error["msg"].removeprefix("Value error, ")
    message = error["msg"]
    return f"{names[(str(error['loc'][0]), str(error['loc'][1]))]}: {message[:1].lower()}{message[1:]}"


def _unknown(name: str, known: Mapping[str, object]) -> str:
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f"{name}: no such setting" + (f"; did you mean {close[0]}?" if close else "; `sre-bot config` lists them")
