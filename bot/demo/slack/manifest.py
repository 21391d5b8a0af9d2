"""What the app asked for when it was installed: slash commands, scopes, event subscriptions."""

from dataclasses import dataclass
from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict, Field


@dataclass(frozen=True, slots=True)
class CommandSpec:
    """One slash command, e.g. CommandSpec("/sre", "status | incidents | help", "Ask the bot")."""

    command: str
    usage_hint: str
    description: str


@dataclass(frozen=True, slots=True)
class AppManifest:
    """The part of manifest.yml that decides what the local Slack allows and delivers.

    `events` are names as in the manifest ("app_mention", "message.channels", …); `scopes` bot scopes.
    """

    commands: tuple[CommandSpec, ...]
    scopes: frozenset[str]
    events: frozenset[str]


DEFAULT_MANIFEST = AppManifest(
    commands=(
        CommandSpec("/sre", "status | incidents | approvals | kill | phase | help", "Ask sre-bot or steer it"),
        CommandSpec("/sre-kill", "[service|all] <reason>", "Stop every automatic action now"),
        CommandSpec("/sre-phase", "", "Phase and graduation criteria"),
    ),
    scopes=frozenset(
        {"chat:write", "commands", "app_mentions:read", "im:history", "channels:history", "groups:history"}
        | {"users:read", "usergroups:read", "files:write", "files:read"}
    ),
    events=frozenset({"app_mention", "message.channels", "message.groups", "app_home_opened"}),
)


class _Loose(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class _Command(_Loose):
    command: str
    description: str
    usage_hint: str = ""


class _Features(_Loose):
    slash_commands: tuple[_Command, ...] = ()


class _Scopes(_Loose):
    bot: tuple[str, ...]


class _OAuth(_Loose):
    scopes: _Scopes


class _Events(_Loose):
    bot_events: tuple[str, ...] = ()


class _Settings(_Loose):
    event_subscriptions: _Events = Field(default_factory=_Events)


class _File(_Loose):
    features: _Features = Field(default_factory=_Features)
    oauth_config: _OAuth
    settings: _Settings = Field(default_factory=_Settings)


def read_manifest(path: Path) -> AppManifest:
    """Read a manifest in Slack's YAML format. Raises OSError, yaml.YAMLError or pydantic.ValidationError."""
    file = _File.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    return AppManifest(
        commands=tuple(CommandSpec(c.command, c.usage_hint, c.description) for c in file.features.slash_commands),
        scopes=frozenset(file.oauth_config.scopes.bot),
        events=frozenset(file.settings.event_subscriptions.bot_events),
    )
