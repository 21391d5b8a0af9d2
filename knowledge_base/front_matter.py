"""What a document says of itself, read leniently: a wrong entry is left out and named, the document stays."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from datetime import date, datetime
from typing import Annotated, Literal, get_args

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from knowledge_base.text import cleaned

Kind = Literal["runbook", "postmortem", "note"]
TRUST: Mapping[Kind, float] = {"runbook": 1.0, "postmortem": 0.8, "note": 0.6}
"""How far a document is trusted that does not say it: what was written to be followed comes first."""
MAX_FRONT_MATTER_CHARS = 20_000
TITLE_CHARS = 200
_MAX_NAMES = 50
_MAX_NESTING = 200
"""Brackets and dashes that open a level: the YAML parser takes seconds for thousands inside each other."""
_SINGULAR = {"service": "services", "alert": "alerts"}

_FENCED = re.compile(r"\A(---|\+\+\+)[ \t]*\n(?:(.*?)\n)??\1[ \t]*(?:\n|\Z)", re.DOTALL)
_OPENS = re.compile(r"[\[{]|(?:- |\? )(?=- |\? )")
_TITLE_LINE = re.compile(r"^title[ \t]*[:=][ \t]*(.+?)[ \t]*$", re.MULTILINE)


def _text(value: object) -> object:
    if value is None:
        return ""
    if isinstance(value, list | tuple) and not any(isinstance(part, list | tuple | dict) for part in value):
        return cleaned(", ".join(map(str, value)))
    plain = isinstance(value, str | int | float | date) and not isinstance(value, bool)
    return cleaned(str(value)).strip() if plain else value


def _lower(value: object) -> object:
    text = _text(value)
    return text.lower() if isinstance(text, str) else text


def _title(value: object) -> object:
    text = _text(value)
    return " ".join(text.split())[:TITLE_CHARS] if isinstance(text, str) else text


def _names(value: object) -> object:
    if value is None:
        return ()
    if isinstance(value, str):
        value = value.split(",")
    if not isinstance(value, list | tuple) or not all(isinstance(name, str | int | float) for name in value):
        return value
    texts = [cleaned(str(name)).strip()[:TITLE_CHARS] for name in value[:_MAX_NAMES]]
    return tuple(dict.fromkeys(text for text in texts if text))


def _kind(value: object) -> object:
    return re.sub(r"[^a-z]", "", value.lower()) if isinstance(value, str) else value


def _day(value: object) -> object:
    return value.date() if isinstance(value, datetime) else value


_Text = Annotated[str, BeforeValidator(_text), Field(max_length=TITLE_CHARS)]
_Word = Annotated[str, BeforeValidator(_lower), Field(max_length=TITLE_CHARS)]
_Names = Annotated[tuple[str, ...], BeforeValidator(_names)]


class FrontMatter(BaseModel):
    """What a document says of itself. Keys that other tools put there are left alone.

    ``alerts``: names of alerts it answers. ``trust``: 0..1; a parsed document always has one, by ``TRUST`` if not its
    own. ``platform`` and ``category`` are in lower case.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")
    title: Annotated[str, BeforeValidator(_title)] = ""
    services: _Names = ()
    category: _Word = ""
    platform: _Word = ""
    owner: _Text = ""
    last_verified: Annotated[date | None, BeforeValidator(_day)] = None
    kind: Annotated[Kind, BeforeValidator(_kind)] = "runbook"
    trust: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] | None = None
    alerts: _Names = ()


def take_front_matter(text: str) -> tuple[dict[str, object], str, list[str]]:
    """The entries at the head of ``text`` (YAML between ``---``, TOML between ``+++``), what follows, and complaints.

    Two rules with plain text between them are no front matter: nothing is taken.
    """
    found = _FENCED.match(text)
    if found is None:
        return {}, text, []
    raw, rest = found[2] or "", text[found.end() :]
    if len(raw) > MAX_FRONT_MATTER_CHARS:
        return {}, rest, [f"longer than {MAX_FRONT_MATTER_CHARS // 1000} kB, left out"]
    if len(_OPENS.findall(raw)) > _MAX_NESTING:
        return {}, rest, [f"more than {_MAX_NESTING} lists in it, left out"]
    try:
        loaded = yaml.safe_load(raw) if found[1] == "---" else tomllib.loads(raw)
    except (yaml.YAMLError, ValueError, OverflowError, RecursionError) as error:
        title = _TITLE_LINE.search(raw)
        language = "YAML" if found[1] == "---" else "TOML"
        reason = (str(error) or type(error).__name__).splitlines()[0]
        return (
            {"title": title[1].strip("'\"")} if title else {},
            rest,
            [f"not {language}: {reason}; only its title was used" if title else f"not {language}: {reason}"],
        )
    if loaded is None:
        return {}, rest, []
    if isinstance(loaded, dict):
        return {str(key): value for key, value in loaded.items()}, rest, []
    if isinstance(loaded, str):
        return {}, text, []
    return {}, rest, [f"a {type(loaded).__name__} where names and values are needed, left out"]


def read_entries(entries: Mapping[str, object]) -> tuple[FrontMatter, list[str]]:
    """``entries`` as front matter without what is wrong in it, and one complaint for each wrong entry.

    Names are taken in any case, with ``-`` for ``_``, and ``service`` for ``services``.
    """
    plain = {re.sub(r"[-\s]+", "_", key.strip().lower()): value for key, value in entries.items()}
    known = {_SINGULAR.get(key, key): value for key, value in plain.items()}
    try:
        return FrontMatter.model_validate(known), []
    except ValidationError as error:
        wrong = {str(detail["loc"][0]): detail["msg"] for detail in error.errors(include_input=False)}
    if "kind" in wrong:
        wrong["kind"] = f"write {', '.join(get_args(Kind)[:-1])} or {get_args(Kind)[-1]}"
    kept = {name: value for name, value in known.items() if name not in wrong}
    return FrontMatter.model_validate(kept), [f"{name}: {said}" for name, said in wrong.items()]
