"""A small world, step by step: what pages, at which root, and what does not."""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime

import numpy as np
import pytest

from pipeline.domain.anomaly import SENSITIVITY, AnomalyKind, Policy
from pipeline.domain.changes import ChangeEvent, ChangeKind
from pipeline.domain.detection.world import Page, WorldDetector
from pipeline.domain.ids import ServiceName

EDGES = [("web", "orders"), ("orders", "db"), ("web", "search")]
SERVICES = ("web", "orders", "db", "search")
START = datetime(2026, 11, 2, 6, tzinfo=UTC).timestamp()
DAY_S = 86_400.0
Reading = dict[str, dict[str, float | Mapping[str, float]]]
Twist = Callable[[Reading, int], None]


class Small:
    """Four services, quiet and steady: 20 requests a second, 100 ms, one in a thousand failing."""

    def __init__(self, **options: object) -> None:
        self.random = np.random.default_rng(5)
        self.detector = WorldDetector(EDGES, **options)  # type: ignore[arg-type]
        self.minute = 0
        self.pages: list[Page] = []

    def reading(self) -> Reading:
        noise = self.random.normal(1.0, 0.04, (4, 3))
        return {
            name: {
                "traffic": 20 * noise[at, 0],
                "latency_p99": 0.1 * noise[at, 1],
                "error_ratio": 0.001,
                "cpu_ratio": 0.3 * noise[at, 2],
            }
            for at, name in enumerate(SERVICES)
        }

    def run(self, minutes: int, twist: Twist | None = None, changes: tuple[ChangeEvent, ...] = ()) -> list[Page]:
        """The pages of the next ``minutes``; ``changes`` come with the first."""
        sent: list[Page] = []
        for number in range(minutes):
            reading = self.reading()
            if twist is not None:
                twist(reading, number)
            sent += self.detector.step(START + 60.0 * self.minute, reading, changes if number == 0 else ())
            self.minute += 1
        self.pages += sent
        return sent

    def change(self, service: str = "orders") -> ChangeEvent:
        at = datetime.fromtimestamp(START + 60.0 * self.minute, UTC)
        return ChangeEvent(ServiceName(service), at, ChangeKind.DEPLOYMENT, "3f2a91c", "raise pool size")


@pytest.fixture
def small() -> Small:
    made = Small()
    assert made.run(90) == []
    return made


def times(metric: str, factor: float, *services: str) -> Twist:
    def twist(reading: Reading, _: int) -> None:
        for name in services:
            reading[name][metric] = float(reading[name][metric]) * factor  # type: ignore[arg-type]

    return twist


def told(metric: str, value: float | Mapping[str, float], *services: str) -> Twist:
    def twist(reading: Reading, _: int) -> None:
        for name in services:
            reading[name][metric] = value

    return twist


def test_a_slow_leaf_is_one_page_at_the_leaf_and_is_over_when_it_is(small: Small) -> None:
    (page,) = small.run(20, times("latency_p99", 3.0, "db", "orders", "web"))
    assert (page.kind, page.service, page.services) == (AnomalyKind.LATENCY, "db", ("db", "orders", "web"))
    assert page.candidates[0].service == "db"
    assert "p99 latency of db" in page.title
    assert len(small.detector.open) == 1
    assert small.run(40) == []
    assert not small.detector.open


def test_a_deeper_root_that_shows_later_takes_the_incident_over(small: Small) -> None:
    (first,) = small.run(8, times("latency_p99", 3.0, "web"))
    assert (first.service, first.incident) == ("web", 1)
    (second,) = small.run(8, times("latency_p99", 3.0, "web", "db"))
    assert (second.service, second.incident, second.resend) == ("db", 1, False)
    assert len(small.detector.open) == 1


def test_errors_from_nothing_page_and_one_of_three_does_not(small: Small) -> None:
    (page,) = small.run(10, told("error_ratio", 0.2, "search"))
    assert (page.kind, page.service) == (AnomalyKind.ERROR_SURGE, "search")
    trickle = Small()

    def few(reading: Reading, _: int) -> None:
        reading["search"] = {"traffic": 0.05, "error_ratio": 0.0 if trickle.minute < 90 else 1 / 3}

    assert trickle.run(110, few) == []


def test_a_surge_belongs_where_it_comes_in(small: Small) -> None:
    def surge(reading: Reading, number: int) -> None:
        times("traffic", 3.0, *SERVICES)(reading, number)
        times("latency_p99", 3.0, "db", "orders", "web")(reading, number)

    (page,) = small.run(15, surge)[-1:]
    assert (page.kind, page.service, page.incident) == (AnomalyKind.TRAFFIC, "web", 1)
    assert {"db", "orders"} <= {one.service for one in page.candidates}


def test_a_drop_belongs_to_the_topmost_service(small: Small) -> None:
    (page,) = small.run(15, times("traffic", 0.2, *SERVICES))
    assert (page.kind, page.service) == (AnomalyKind.TRAFFIC, "web")


def test_a_drop_below_a_failing_caller_is_the_callers(small: Small) -> None:
    def broken(reading: Reading, number: int) -> None:
        told("error_ratio", 0.7, "orders")(reading, number)
        times("traffic", 0.2, "db")(reading, number)

    pages = small.run(15, broken)
    assert {(page.kind, page.service) for page in pages} == {(AnomalyKind.ERROR_SURGE, "orders")}


def test_silence_is_no_drop(small: Small) -> None:
    assert small.run(30, lambda reading, _: reading.clear()) == []
    assert small.run(10) == []


def test_a_bad_release_is_named(small: Small) -> None:
    (page,) = small.run(30, times("latency_p99", 1.5, "orders"), (small.change(),))
    assert (page.kind, page.service) == (AnomalyKind.DEPLOYMENT_REGRESSION, "orders")
    assert "3f2a91c" in page.change


def test_a_release_that_only_hiccups_is_quiet(small: Small) -> None:
    assert small.run(2, times("latency_p99", 3.0, "orders"), (small.change(),)) == []
    assert small.run(50) == []


def test_trouble_below_is_not_put_down_to_a_release_above(small: Small) -> None:
    change = small.change("web")
    small.run(2, None, (change,))
    pages = small.run(20, times("latency_p99", 3.0, "web", "orders", "db"))
    assert {(page.kind, page.service) for page in pages} == {(AnomalyKind.LATENCY, "db")}


def test_one_full_pod_is_enough(small: Small) -> None:
    (page,) = small.run(12, told("memory", {"orders-1": 0.93, "orders-2": 0.5}, "orders"))
    assert (page.kind, page.service) == (AnomalyKind.MEMORY_PRESSURE, "orders")
    assert "orders-1" in page.title


def test_a_certificate_pages_once_a_day_and_a_full_disk_every_four_hours(small: Small) -> None:
    def both(reading: Reading, number: int) -> None:
        reading["web"]["cert_days"] = 6.5 - number / 1440
        reading["db"]["disk_ratio"] = 0.985

    pages = small.run(300, both)
    assert [page.kind for page in pages if page.service == "web"] == [AnomalyKind.CERTIFICATE_EXPIRY]
    assert [page.resend for page in pages if page.service == "db"] == [False, True]


def test_what_comes_back_soon_is_the_same_incident(small: Small) -> None:
    slow = times("latency_p99", 3.0, "db")
    assert len(small.run(10, slow)) == 1
    small.run(15)
    assert not small.detector.open
    assert small.run(10, slow) == []
    assert list(small.detector.open) == [1]


def test_several_small_deviations_count_together(small: Small) -> None:
    def off(reading: Reading, number: int) -> None:
        times("latency_p99", 1.22, "search")(reading, number)
        times("cpu_ratio", 1.22, "search")(reading, number)
        reading["search"]["error_ratio"] = 0.0012

    (page,) = small.run(30, off)
    assert (page.kind, page.service) == (AnomalyKind.MULTI_DIMENSIONAL, "search")
    assert Small().run(90) == []
    alone = Small()
    alone.run(90)
    assert alone.run(30, times("latency_p99", 1.22, "search")) == []


def test_muted_services_and_low_sensitivity_say_less() -> None:
    slow = times("latency_p99", 1.9, "db")
    muted = Small(policy=Policy(muted=lambda service, at: "maintenance" if service == "db" else ""))
    low = Small(policy=Policy(factor=lambda service, signal: 4 * SENSITIVITY["low"]))
    usual = Small()
    for one in (muted, low, usual):
        one.run(90)
        one.run(20, slow)
    assert [len(one.pages) for one in (muted, low, usual)] == [0, 0, 1]


def test_an_objective_burns() -> None:
    small = Small(objectives={"web": 0.999})
    small.run(90)
    (page,) = small.run(90, told("error_ratio", 0.016, "web"))[:1]
    assert (page.kind, page.service) == (AnomalyKind.ERROR_SURGE, "web")


def test_names_as_people_write_them() -> None:
    world = WorldDetector()
    pages = []
    for minute in range(60):
        bad = minute > 45
        named = {"requests": 1200.0, "errors": 300.0 if bad else 1.0, "latency_ms": 100.0, "mem@a-1": 0.4}
        pages += world.step(START + 60.0 * minute, {"a": named})
    assert [(page.kind, page.service) for page in pages] == [(AnomalyKind.ERROR_SURGE, "a")]
    with pytest.raises(ValueError, match=r"metric 'wibble' of 'a' is not known; use one of: .*latency_p99"):
        world.step(START + 9999.0, {"a": {"wibble": 1.0}})


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_what_is_not_finite_is_passed_over(small: Small, bad: float) -> None:
    assert small.run(10, told("latency_p99", bad, *SERVICES)) == []
    assert small.run(10) == []


@pytest.mark.parametrize("form", ["mapping", "tuple"])
def test_changes_as_people_write_them(small: Small, form: str) -> None:
    ts = START + 60.0 * small.minute
    told = {"service": "orders", "revision": "3f2a91c", "ts": ts} if form == "mapping" else (ts, "orders", "3f2a91c")
    (page,) = small.run(30, times("latency_p99", 1.5, "orders"), (told,))  # type: ignore[arg-type]
    assert (page.kind, page.service) == (AnomalyKind.DEPLOYMENT_REGRESSION, "orders")


@pytest.mark.parametrize("told", [{"revision": "1"}, {"service": "a", "ts": "noon"}, {"service": "", "ts": 1.0}])
def test_a_change_that_says_too_little_is_refused(small: Small, told: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"needs a 'service'|is epoch seconds"):
        small.detector.step(START + 60.0 * small.minute, {}, [told])


def test_logs_that_are_rotated_page_no_more_once_known_and_a_disk_that_fills_does() -> None:
    world = WorldDetector()

    def run(minutes: range, ratio: Callable[[int], float]) -> list[Page]:
        return [
            page for minute in minutes for page in world.step(START + 60.0 * minute, {"db": {"disk": ratio(minute)}})
        ]

    def rotated(minute: int) -> float:
        return 0.5 + 0.42 * (minute % 360) / 360

    run(range(2520), rotated)
    assert run(range(2520, 3600), rotated) == []
    (page,) = run(range(3600, 4020), lambda minute: 0.5 + 0.49 * (minute - 3600) / 420)
    assert (page.kind, page.service) == (AnomalyKind.DISK_EXHAUSTION, "db")
