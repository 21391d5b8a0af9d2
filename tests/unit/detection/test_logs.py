"""Log anomalies: new and surging patterns, and what stays quiet."""

import random

import pytest

from pipeline.domain.detection.logs import LogDetector, LogDetectorSettings, severity_of

HOUR_S = 3600.0
ROUTINE = "served request {} in {} ms"
FAILURE = "connection to database db-{} refused"


def quiet_hours(detector: LogDetector, hours: float = 1.0, per_minute: float = 30.0, seed: int = 1) -> float:
    """Routine traffic with a rare failure; gives the time after it."""
    rng = random.Random(seed)
    ts = 0.0
    while ts < hours * HOUR_S:
        ts += rng.expovariate(per_minute / 60.0)
        line = FAILURE.format(rng.randrange(5)) if rng.random() < 0.01 else ROUTINE.format(rng.random(), rng.random())
        _, anomaly = detector.update(ts, "cart", line)
        assert not anomaly, (ts, line)
    return ts


def anomalies(detector: LogDetector, start: float, count: int, line: str, every_s: float = 0.5) -> list[int]:
    return [n for n in range(count) if detector.update(start + n * every_s, "cart", line.format(n))[1]]


@pytest.mark.parametrize("seed", range(5))
def test_hours_of_routine_with_rare_failures_say_nothing(seed: int) -> None:
    detector = LogDetector()
    end = quiet_hours(detector, hours=4.0, seed=seed)
    assert detector.findings(end) == ()


def test_a_new_failure_is_reported_once_and_soon() -> None:
    detector = LogDetector()
    end = quiet_hours(detector)
    assert anomalies(detector, end, 100, "payment gateway timed out after {} ms") == [2]
    (finding,) = detector.findings(end + 50)
    assert (finding.service, finding.kind) == ("cart", "new")
    assert finding.template == "payment gateway timed out after <*>"
    assert finding.count == 98
    assert finding.started_at == pytest.approx(end + 1.0)
    assert finding.sample_line == "payment gateway timed out after 2 ms"


def test_a_fatal_line_is_reported_at_once_and_a_new_harmless_one_only_in_numbers() -> None:
    detector = LogDetector()
    end = quiet_hours(detector)
    assert anomalies(detector, end, 1, "panic: index out of range") == [0]
    assert anomalies(detector, end, 40, "configuration reloaded from disk") == []
    assert anomalies(detector, end + 30, 40, "configuration reloaded from disk") == [19]


def test_a_surge_of_a_known_failure_is_found_and_a_repeat_is_damped() -> None:
    detector = LogDetector()
    end = quiet_hours(detector, hours=3.0)
    first = anomalies(detector, end, 120, FAILURE)
    assert len(first) in (1, 2)
    assert first[0] <= 15
    assert detector.findings(end + 60)[0].kind == "surging"
    assert len(anomalies(detector, end + 1800, 60, FAILURE)) <= 1
    assert detector.findings(end + 3 * HOUR_S) == ()


def test_a_traffic_rise_by_half_is_no_surge() -> None:
    detector = LogDetector()
    end = quiet_hours(detector)
    assert anomalies(detector, end, 1500, ROUTINE.replace("{} ms", "7 ms"), every_s=60 / 45) == []


def test_the_first_minutes_of_a_service_are_only_learnt() -> None:
    detector = LogDetector()
    assert anomalies(detector, 0.0, 250, "panic: number {} of the start", every_s=1.0) == []


def test_services_are_judged_apart() -> None:
    detector = LogDetector()
    end = quiet_hours(detector)
    detector.update(0.0, "other", "hello")
    assert [detector.update(end + n, "other", FAILURE.format(n))[1] for n in range(3)] == [False, False, True]


def test_scores_stay_within_bounds_and_speak_of_severity() -> None:
    detector = LogDetector()
    end = quiet_hours(detector)
    harmless, _ = detector.update(end, "cart", "never seen remark")
    failing, _ = detector.update(end, "cart", "never seen failure of the index")
    assert 0.0 <= harmless < failing <= 1.0
    assert detector.update(float("nan"), "cart", "panic: now") == (0.0, False)


def test_templates_show_no_credential() -> None:
    detector = LogDetector()
    end = quiet_hours(detector)
    anomalies(detector, end, 5, "login failed with password=correcthorse9 on try {}")
    (finding,) = detector.findings(end + 5)
    assert "correcthorse" not in finding.template


def test_patterns_that_become_one_are_not_taken_for_new() -> None:
    detector = LogDetector()
    line = "quota of tenant {} exceeded so the upload of the file failed"
    detector.update(0.0, "other", line.format("aaa"))
    for n, tenant in enumerate(("bbb", "ccc", "ddd", "eee") * 5):
        detector.update(10.0 * n, "cart", line.format(tenant))
    end = quiet_hours(detector)
    judged = [detector.update(end + 60 * n, "cart", line.format(name))[1] for n, name in enumerate("fgbcdehijk")]
    assert judged == [False] * 10
    assert detector.findings(end + 600) == ()


def test_memory_is_bounded() -> None:
    detector = LogDetector(LogDetectorSettings(max_patterns=10, warmup_s=0.0))
    for n in range(100):
        detector.update(float(n), f"service-{n}", "panic: all is lost")
    assert len(detector.findings(100.0)) == 10


@pytest.mark.parametrize(
    ("template", "severity"),
    [
        ("all good", 0),
        ("finished with no errors", 0),
        ("ERROR in parser", 1),
        ("java.lang.NullPointerException", 1),
        ("TypeError: x is undefined", 1),
        ("OOM killer", 2),
        ("java.lang.OutOfMemoryError: Java heap space", 2),
        ("OutOfMemory while handling request <*>", 2),
    ],
)
def test_severity_is_read_from_the_words(template: str, severity: int) -> None:
    assert severity_of(template) == severity
