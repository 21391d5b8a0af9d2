"""The service catalogue and its file."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from bot.catalogue import load_catalogue
from pipeline.domain.catalogue import Catalogue, Service, WorkloadAddress
from pipeline.domain.errors import ConfigurationError
from pipeline.domain.ids import ServiceName
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
