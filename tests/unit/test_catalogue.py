"""The service catalogue and its file."""

from datetime import UTC, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from pydantic import ValidationError

from bot.catalogue import CatalogueFile, load_catalogue
from pipeline.domain.catalogue import (
    MAX_DISCOVERED,
    Catalogue,
    Objective,
    Sensitivity,
    Service,
    Watch,
    WorkloadAddress,
)
from pipeline.domain.errors import ConfigurationError
from pipeline.domain.ids import ServiceName
from pipeline.domain.telemetry import Signal
from tests.builders import CHECKOUT, WEB

DEMO = Path(__file__).parents[2] / "bot/demo/services.yaml"
FULL = """
services:
  checkout:
    tier: 1
    owner: team-shop
    environment: prod
    financial: 0.4
    target: {platform: kubernetes, namespace: shop, name: checkout}
  web: {}
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "services.yaml"


def mistakes(path: Path, content: str | bytes) -> list[str]:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(ConfigurationError) as caught:
        load_catalogue(path)
    lines = str(caught.value).splitlines()
    assert all(line.startswith(f"SRE_CATALOGUE: {path}") for line in lines)
    return [line.removeprefix(f"SRE_CATALOGUE: {path}") for line in lines]


def test_a_full_entry_and_one_of_defaults(path: Path) -> None:
    path.write_text(FULL)
    catalogue = load_catalogue(path)
    address = WorkloadAddress(platform="kubernetes", namespace="shop", name="checkout")
    assert catalogue[CHECKOUT] == Service(tier=1, owner="team-shop", environment="prod", financial=0.4, target=address)
    assert catalogue[WEB] == Service()
    assert list(catalogue) == [CHECKOUT, WEB]


def test_a_service_nobody_listed_matters_little_and_has_no_target() -> None:
    stranger = Catalogue({})[CHECKOUT]
    assert (stranger.tier, stranger.financial, stranger.target) == (3, 0.0, None)


def test_known_are_the_listed_and_the_seen() -> None:
    catalogue = Catalogue({CHECKOUT: Service()})
    assert catalogue.known([WEB, CHECKOUT]) == {WEB, CHECKOUT}
    assert catalogue.known([]) == {CHECKOUT}


@pytest.mark.parametrize("content", ["", "# nothing yet\n", "services: {}\n", "{}"])
def test_an_empty_file_lists_nothing(path: Path, content: str) -> None:
    path.write_text(content)
    assert list(load_catalogue(path)) == []
    assert list(load_catalogue(None)) == []


@pytest.mark.parametrize(
    "content",
    ["services: [", "services:\n\tcheckout: {}", "a: b: c", "!!python/object/apply:os.system [id]", b"\xff\xfe\xfd"],
)
def test_what_is_no_yaml_is_one_line(path: Path, content: str | bytes) -> None:
    (line,) = mistakes(path, content)
    assert line.startswith(" is no YAML: ")


def test_where_a_file_is_no_yaml_is_said(path: Path) -> None:
    (line,) = mistakes(path, "services:\n  web: {tier: 1\n  checkout: {}\n")
    assert "line 3" in line


@pytest.mark.parametrize(
    ("content", "where"),
    [
        ("- checkout", ""),
        ("checkout", ""),
        ("service: {}", "service"),
        ("services: [checkout]", "services"),
        ("services:", "services"),
        ("services: {checkout: }", "services.checkout"),
        ("services: {checkout: {teir: 1}}", "services.checkout.teir"),
        ("services: {checkout: {tier: 0}}", "services.checkout.tier"),
        ("services: {checkout: {tier: 5}}", "services.checkout.tier"),
        ("services: {checkout: {tier: one}}", "services.checkout.tier"),
        ("services: {checkout: {financial: 1.5}}", "services.checkout.financial"),
        ("services: {checkout: {owner: [a]}}", "services.checkout.owner"),
        ("services: {checkout: {target: checkout}}", "services.checkout.target"),
        (
            "services: {checkout: {target: {platform: ssh, namespace: a, name: b}}}",
            "services.checkout.target.platform",
        ),
        (
            "services: {checkout: {target: {platform: kubernetes, namespace: a, name: '*'}}}",
            "services.checkout.target.name",
        ),
        ("services: {checkout: {target: {platform: kubernetes, name: b}}}", "services.checkout.target.namespace"),
    ],
)
def test_a_wrong_entry_is_named_by_its_place(path: Path, content: str, where: str) -> None:
    (line,) = mistakes(path, content)
    assert line.startswith(f": {where}: " if where else ": ")


def test_every_mistake_is_told_at_once(path: Path) -> None:
    lines = mistakes(path, "services: {web: {tier: 9, teir: 1}, checkout: {financial: 7}}")
    assert {line.split(": ")[1] for line in lines} == {
        "services.web.tier",
        "services.web.teir",
        "services.checkout.financial",
    }


def test_a_file_that_is_not_there(path: Path) -> None:
    for missing in (path, path.parent):
        with pytest.raises(ConfigurationError, match="cannot be read"):
            load_catalogue(missing)


@pytest.mark.parametrize("name", ["", "*", "app=web", "web,checkout", "wеb", "web\n", "../web"])
def test_an_address_is_a_plain_name(name: str) -> None:
    for changes in ({"name": name}, {"namespace": name}):
        with pytest.raises(ValidationError):
            WorkloadAddress.model_validate({"platform": "kubernetes", "namespace": "a", "name": "b", **changes})


def test_the_demos_own_file_is_right() -> None:
    catalogue = load_catalogue(DEMO)
    assert {"web", "checkout", "payments", "worker"} <= set(catalogue)
    for name in catalogue:
        target = catalogue[ServiceName(name)].target
        assert target is not None
        assert (target.platform, target.name) == ("local_process", name)


WHOLE_NAMESPACE = """
defaults: {environment: prod}
watch:
  - namespace: shop
    provider: kubernetes
    tier: 2
    owner: shop team
    sensitivity: {latency_p99: low}
    exclude: ["*-canary", "load?"]
services:
  checkout: {tier: 1, slo: {objective: 0.999}}
"""


def of_shop(path: Path, *names: str) -> Catalogue:
    path.write_text(WHOLE_NAMESPACE)
    catalogue = load_catalogue(path)
    catalogue.discover({ServiceName(name): "shop" for name in names})
    return catalogue


def test_a_few_lines_watch_a_whole_namespace(path: Path) -> None:
    assert len(WHOLE_NAMESPACE.splitlines()) <= 20
    catalogue = of_shop(path, "cart", "checkout")
    cart = catalogue[ServiceName("cart")]
    assert (cart.tier, cart.owner, cart.environment) == (2, "shop team", "prod")
    assert cart.target == WorkloadAddress(platform="kubernetes", namespace="shop", name="cart")
    assert catalogue.sensitivity(ServiceName("cart"), Signal.LATENCY_P99) is Sensitivity.LOW
    assert catalogue.sensitivity(ServiceName("cart"), Signal.TRAFFIC) is Sensitivity.NORMAL


def test_an_entry_of_its_own_wins_field_by_field(path: Path) -> None:
    checkout = of_shop(path, "checkout")[CHECKOUT]
    assert (checkout.tier, checkout.owner, checkout.slo) == (1, "shop team", Objective(objective=0.999))
    assert checkout.target == WorkloadAddress(platform="kubernetes", namespace="shop", name="checkout")


def test_what_telemetry_has_not_shown_there_is_not_of_the_namespace(path: Path) -> None:
    catalogue = of_shop(path, "cart")
    assert (catalogue[CHECKOUT].owner, catalogue[CHECKOUT].target) == ("unowned", None)
    assert catalogue[WEB].environment == "prod"
    catalogue.discover({CHECKOUT: "staging", WEB: "shop"})
    assert catalogue[CHECKOUT].owner == "unowned"
    assert catalogue[WEB].owner == "shop team"
    catalogue.discover({WEB: "staging"})
    assert catalogue[WEB].owner == "unowned"


def test_an_entry_that_names_its_namespace_itself_belongs_to_it(path: Path) -> None:
    path.write_text(
        "watch: [{namespace: shop, owner: shop team}]\n"
        "services: {web: {target: {platform: kubernetes, namespace: shop, name: front}}}\n"
    )
    web = load_catalogue(path)[WEB]
    assert web.owner == "shop team"
    assert web.target is not None
    assert web.target.name == "front"


@pytest.mark.parametrize("name", ["cart-canary", "load1"])
def test_what_is_excluded_gets_nothing_from_the_namespace(path: Path, name: str) -> None:
    service = of_shop(path, name)[ServiceName(name)]
    assert (service.owner, service.target, service.environment) == ("unowned", None, "prod")


def test_a_name_that_the_platform_could_not_have_is_no_target(path: Path) -> None:
    service = of_shop(path, "GET /cart")[ServiceName("GET /cart")]
    assert (service.owner, service.target) == ("shop team", None)


def test_what_is_measured_of_the_namespace_itself_has_its_owner_and_no_target(path: Path) -> None:
    service = of_shop(path)[ServiceName("shop")]
    assert (service.owner, service.target) == ("shop team", None)


def test_without_a_provider_there_is_no_target() -> None:
    catalogue = Catalogue({}, watch=[Watch(namespace="shop")])
    catalogue.discover({WEB: "shop"})
    assert catalogue[WEB].target is None


def test_names_without_end_are_forgotten_oldest_first() -> None:
    catalogue = Catalogue({}, watch=[Watch(namespace="shop", owner="shop team")])
    catalogue.discover({WEB: "shop"})
    assert catalogue[WEB].owner == "shop team"
    catalogue.discover({ServiceName(f"s{n}"): "shop" for n in range(MAX_DISCOVERED)})
    catalogue.replace(catalogue)
    assert catalogue[WEB].owner == "unowned"
    assert catalogue[ServiceName(f"s{MAX_DISCOVERED - 1}")].owner == "shop team"


def muting(path: Path, *windows: str) -> Catalogue:
    path.write_text(f"services: {{web: {{muted: [{', '.join(windows)}]}}}}")
    return load_catalogue(path)


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


NIGHT = "{days: [fri], from: '22:00', to: '06:00', timezone: Europe/Berlin, reason: batch}"


@pytest.mark.parametrize(
    ("window", "at", "reason"),
    [
        # In January Berlin is an hour before UTC, in July two. 2026-01-09 is a Friday.
        (NIGHT, "2026-01-09T20:59:59", ""),
        (NIGHT, "2026-01-09T21:00:00", "batch"),
        (NIGHT, "2026-01-10T04:59:59", "batch"),
        (NIGHT, "2026-01-10T05:00:00", ""),
        (NIGHT, "2026-01-09T03:00:00", ""),
        (NIGHT, "2026-01-10T22:00:00", ""),
        (NIGHT, "2026-07-10T20:00:00", "batch"),
        (NIGHT, "2026-07-11T04:00:00", ""),
        # Without quotes YAML reads 22:30 as 1350 and 2:00 as 120; without days it is every day.
        ("{from: 22:30, to: 2:00}", "2026-01-12T22:29:59", ""),
        ("{from: 22:30, to: 2:00}", "2026-01-12T22:30:00", "muted in the catalogue"),
        ("{from: 22:30, to: 2:00}", "2026-01-13T01:59:59", "muted in the catalogue"),
        ("{from: 18:00, to: 24:00}", "2026-01-13T23:59:59", "muted in the catalogue"),
        ("{from: 18:00, to: '24:00'}", "2026-01-13T00:00:00", ""),
        # On 2026-03-29 Berlin has no time from 2:00 to 3:00; on 2026-10-25 it has it twice, from 0:00 to 2:00 UTC.
        ("{from: 2:00, to: 3:00, timezone: Europe/Berlin}", "2026-03-29T00:59:59", ""),
        ("{from: 2:00, to: 3:00, timezone: Europe/Berlin}", "2026-03-29T01:00:00", ""),
        ("{from: 2:00, to: 3:00, timezone: Europe/Berlin}", "2026-10-25T00:30:00", "muted in the catalogue"),
        ("{from: 2:00, to: 3:00, timezone: Europe/Berlin}", "2026-10-25T01:30:00", "muted in the catalogue"),
        ("{from: 2:00, to: 3:00, timezone: Europe/Berlin}", "2026-10-25T02:00:00", ""),
        ("{from: 2026-12-24, to: 2026-12-27, reason: sale}", "2026-12-26T23:59:59", "sale"),
        ("{from: 2026-12-24, to: 2026-12-27, timezone: Asia/Tokyo}", "2026-12-23T14:59:59", ""),
        ("{from: 2026-12-24, to: 2026-12-27, timezone: Asia/Tokyo}", "2026-12-23T15:00:00", "muted in the catalogue"),
        ("{from: '2026-12-24 08:00', to: 2026-12-24T10:00:00Z}", "2026-12-24T09:59:59", "muted in the catalogue"),
        (
            "{from: 2026-12-24T08:00:00+02:00, to: 2026-12-24T10:00:00Z}",
            "2026-12-24T06:00:00",
            "muted in the catalogue",
        ),
        ("{from: 2026-12-24T08:00:00+02:00, to: 2026-12-24T10:00:00Z}", "2026-12-24T10:00:00", ""),
    ],
)
def test_windows_in_which_a_service_may_be_quiet(path: Path, window: str, at: str, reason: str) -> None:
    catalogue = muting(path, window)
    assert catalogue.muted(WEB, utc(at)) == reason
    assert catalogue.muted(CHECKOUT, utc(at)) == ""


def test_the_moment_may_be_in_any_zone(path: Path) -> None:
    at = utc("2026-01-09T21:00:00").astimezone(ZoneInfo("America/New_York"))
    assert muting(path, NIGHT).muted(WEB, at) == "batch"


def test_one_word_is_the_sensitivity_of_every_signal(path: Path) -> None:
    path.write_text("services: {web: {sensitivity: high}}")
    catalogue = load_catalogue(path)
    assert {catalogue.sensitivity(WEB, signal) for signal in Signal} == {Sensitivity.HIGH}


@pytest.mark.parametrize(
    ("content", "where", "said"),
    [
        ("watch: [{namespace: shop}, {namespace: shop}]", "watch", "watched twice"),
        ("watch: [{namespace: 'shop-*'}]", "watch.0.namespace", ""),
        ("watch: [{namespace: shop, provider: nomad}]", "watch.0.provider", ""),
        ("watch: [{namespace: shop, target: {}}]", "watch.0.target", ""),
        ("defaults: {target: {}}", "defaults.target", ""),
        ("services: {a: {sensitivity: loud}}", "services.a.sensitivity.latency_p99", ""),
        ("services: {a: {sensitivity: {latency: low}}}", "services.a.sensitivity.latency", ""),
        ("services: {a: {slo: {objective: 99.9}}}", "services.a.slo.objective", ""),
        ("services: {a: {slo: {objective: 0.99, latency_s: 1}}}", "services.a.slo.latency_s", ""),
        ("services: {a: {muted: [{from: '1:00'}]}}", "services.a.muted.0.weekly", ""),
        ("services: {a: {muted: [always]}}", "services.a.muted.0.weekly", ""),
        ("services: {a: {muted: [{from: 1:00, to: 90:00}]}}", "services.a.muted.0.weekly.to", "in quotes"),
        ("services: {a: {muted: [{days: [saturday], from: 1:00, to: 2:00}]}}", "services.a.muted.0.weekly.days.0", ""),
        ("services: {a: {muted: [{days: [], from: 1:00, to: 2:00}]}}", "services.a.muted.0.weekly.days", ""),
        (
            "services: {a: {muted: [{from: 1:00, to: 2:00, timezone: Europe/Berlim}]}}",
            "services.a.muted.0.weekly.timezone",
            "'Europe/Berlim' is no time zone",
        ),
        ("services: {a: {muted: [{from: '1:00Z', to: 2:00}]}}", "services.a.muted.0.weekly", ""),
        ("services: {a: {muted: [{from: 2026-02-02, to: 2026-02-01}]}}", "services.a.muted.0.absolute", "before it"),
    ],
)
def test_a_wrong_trait_is_named_by_its_place(path: Path, content: str, where: str, said: str) -> None:
    first = mistakes(path, content)[0]
    assert first.startswith(f": {where}")
    assert said in first


def test_the_file_is_read_again_when_it_has_changed(path: Path) -> None:
    path.write_text(FULL)
    file = CatalogueFile(path)
    catalogue = file.current()
    catalogue.discover({WEB: "shop"})
    assert catalogue[WEB].owner == "unowned"
    path.write_text(WHOLE_NAMESPACE)
    assert file.current() is catalogue
    assert (catalogue[WEB].owner, catalogue[CHECKOUT].slo) == ("shop team", Objective(objective=0.999))
    assert file.problem == ""


@pytest.mark.parametrize("content", ["services: [", "services: {web: {tier: 9}, b: {tier: 9}}", None])
def test_a_file_that_has_become_wrong_changes_nothing_and_is_told(path: Path, content: str | None) -> None:
    path.write_text(FULL)
    file = CatalogueFile(path)
    if content is None:
        path.unlink()
    else:
        path.write_text(content)
    for _ in range(2):
        assert file.current()[CHECKOUT].tier == 1
        assert file.problem.startswith(f"SRE_CATALOGUE: {path}")
        assert file.problem.endswith("what was read before still counts")
        assert "\n" not in file.problem
    path.write_text("services: {checkout: {tier: 4}}")
    assert file.current()[CHECKOUT].tier == 4
    assert file.problem == ""


def test_without_a_file_there_is_nothing_to_read_again(path: Path) -> None:
    file = CatalogueFile(None)
    assert list(file.current()) == []
    assert file.problem == ""
    with pytest.raises(ConfigurationError):
        CatalogueFile(path)
