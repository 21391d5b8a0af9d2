"""Freezes and change windows in the catalogue's file: whom they cover, when, and that they are read again."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from bot.catalogue import CatalogueFile, load_catalogue
from bot.config import Settings
from bot.wiring import loop_settings_of
from pipeline.domain.catalogue import Catalogue
from pipeline.domain.errors import ConfigurationError
from pipeline.domain.ids import ServiceName
from tests.builders import CHECKOUT, WEB

SERVICES = """
services:
  checkout: {tier: 1, environment: production}
  web: {tier: 2, environment: staging}
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "services.yaml"


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def frozen(catalogue: Catalogue, service: ServiceName, at: str, environment: str = "demo") -> str:
    return catalogue.calendar(service, environment).frozen(utc(at))


@pytest.mark.parametrize(
    ("freeze", "at", "checkout", "web"),
    [
        ("{from: 2026-12-20, to: 2027-01-03, reason: holidays}", "2026-12-24T12:00:00", "holidays", "holidays"),
        ("{from: 2026-12-20, to: 2027-01-03, reason: holidays}", "2027-01-03T00:00:00", "", ""),
        # 2026-01-09 is a Friday, and Berlin is an hour before UTC.
        (
            "{days: [fri], from: '16:00', to: '24:00', timezone: Europe/Berlin}",
            "2026-01-09T15:00:00",
            *["change freeze"] * 2,
        ),
        ("{days: [fri], from: '16:00', to: '24:00', timezone: Europe/Berlin}", "2026-01-09T14:59:59", "", ""),
        ("{from: 0:00, to: 24:00, services: [checkout]}", "2026-01-09T15:00:00", "change freeze", ""),
        ("{from: 0:00, to: 24:00, services: ['check*', web]}", "2026-01-09T15:00:00", *["change freeze"] * 2),
        ("{from: 0:00, to: 24:00, tiers: [1]}", "2026-01-09T15:00:00", "change freeze", ""),
        ("{from: 0:00, to: 24:00, environments: [Staging]}", "2026-01-09T15:00:00", "", "change freeze"),
        ("{from: 0:00, to: 24:00, environments: [demo]}", "2026-01-09T15:00:00", *["change freeze"] * 2),
        (
            "{from: 0:00, to: 24:00, tiers: [1, 2], environments: [production]}",
            "2026-01-09T15:00:00",
            "change freeze",
            "",
        ),
    ],
)
def test_a_freeze_covers_whoever_meets_its_conditions(
    path: Path, freeze: str, at: str, checkout: str, web: str
) -> None:
    path.write_text(f"{SERVICES}freezes: [{freeze}]")
    catalogue = load_catalogue(path)
    assert (frozen(catalogue, CHECKOUT, at), frozen(catalogue, WEB, at)) == (checkout, web)


def test_change_windows_are_of_a_service_or_of_all(path: Path) -> None:
    path.write_text(
        """
defaults: {change_windows: [{days: [mon, tue], from: 9:00, to: 17:00}]}
services: {web: {change_windows: [{from: 2:00, to: 4:00}, {from: 2026-03-01, to: 2026-03-02}]}}
"""
    )
    catalogue = load_catalogue(path)
    monday, night, once = utc("2026-01-12T10:00:00"), utc("2026-01-12T03:00:00"), utc("2026-03-01T10:00:00")

    def open_at(service: ServiceName) -> list[bool]:
        return [catalogue.calendar(service, "demo").is_open(at) for at in (monday, night, once)]

    assert open_at(CHECKOUT) == [True, False, False]
    assert open_at(WEB) == [False, True, True]
    assert Catalogue({}).calendar(WEB, "demo").is_open(night), "without windows it is always open"


@pytest.mark.parametrize(
    ("freeze", "said"),
    [
        ("{from: 2026-12-20, to: 2026-12-19}", "freezes.0.absolute: the window ends before it begins"),
        ("{from: 1:00, to: 2:00, service: web}", "freezes.0.weekly.service: extra"),
        ("{from: 1:00, to: 2:00, tiers: []}", "freezes.0.weekly.tiers"),
        ("{from: 1:00, to: 2:00, tiers: [5]}", "freezes.0.weekly.tiers.0"),
        ("{from: 1:00, to: 2:00, timezone: Nowhere}", "is no time zone"),
    ],
)
def test_a_wrong_freeze_is_named_by_its_place(path: Path, freeze: str, said: str) -> None:
    path.write_text(f"freezes: [{freeze}]")
    with pytest.raises(ConfigurationError, match=said):
        load_catalogue(path)


def test_a_freeze_that_is_written_while_the_bot_runs_is_met_by_the_stages(path: Path) -> None:
    path.write_text(SERVICES)
    file = CatalogueFile(path)
    settings = loop_settings_of(Settings(), file.current())
    assert frozen(settings.catalogue, WEB, "2026-01-09T15:00:00") == ""
    path.write_text(f"{SERVICES}freezes: [{{from: 2026-01-01, to: 2026-02-01, reason: audit}}]")
    file.current()
    assert frozen(settings.catalogue, WEB, "2026-01-09T15:00:00") == "audit"


def test_the_settings_reach_the_limits() -> None:
    guard = Settings().guard.model_copy(
        update={"rest_s": 1.0, "max_tier1_callers": 2, "max_concurrent": 4, "ineffective_s": 5.0, "max_reversals": 6}
    )
    limits = loop_settings_of(Settings().model_copy(update={"guard": guard}), Catalogue({})).limits
    assert (limits.rest_s, limits.max_tier1_callers, limits.max_concurrent) == (1.0, 2, 4)
    assert (limits.ineffective_s, limits.max_reversals) == (5.0, 6)
