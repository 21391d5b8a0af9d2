"""Reading Prometheus' text format by the conventions."""

from contextlib import suppress
from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.adapters.telemetry.exposition import Gauge, is_server_error, parse_exposition

NOW_S = 1_800_000_000.0


def test_a_histogram_is_read_by_label_set_with_its_total() -> None:
    text = """
# TYPE http_server_request_duration_seconds histogram
http_server_request_duration_seconds_bucket{http_route="/",le="0.1"} 3
http_server_request_duration_seconds_bucket{http_route="/",le="+Inf"} 5
http_server_request_duration_seconds_count{http_route="/"} 5
http_server_request_duration_seconds_sum{http_route="/"} 0.7
http_server_request_duration_seconds_count{http_route="/no-buckets"} 2
"""
    read = parse_exposition(text, now_s=NOW_S)
    assert read.requests == {
        (("http_route", "/"),): {0.1: 3.0, inf: 5.0},
        (("http_route", "/no-buckets"),): {inf: 2.0},
    }


def test_of_the_two_names_of_the_histogram_the_first_counts() -> None:
    text = "http_request_duration_seconds_count 7\nhttp_server_request_duration_seconds_count 5\n"
    assert parse_exposition(text, now_s=NOW_S).requests == {(): {inf: 5.0}}
    assert parse_exposition("http_request_duration_seconds_count 7\n", now_s=NOW_S).requests == {(): {inf: 7.0}}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("process_resident_memory_bytes 50\ncontainer_spec_memory_limit_bytes 200\n", 0.25),
        ("container_memory_working_set_bytes 50\ncontainer_spec_memory_limit_bytes 200\n", 0.25),
        ("process_resident_memory_bytes 50\ncontainer_spec_memory_limit_bytes 0\n", None),
        ("process_resident_memory_bytes 50\n", None),
        ("process_resident_memory_bytes NaN\ncontainer_spec_memory_limit_bytes 200\n", None),
        ("process_resident_memory_bytes 50\ncontainer_spec_memory_limit_bytes +Inf\n", None),
    ],
)
def test_memory(text: str, expected: float | None) -> None:
    ratio = parse_exposition(text, now_s=NOW_S).memory_ratio()
    assert (ratio and ratio.value) == expected


def test_disk_is_matched_by_all_labels() -> None:
    text = """
node_filesystem_size_bytes{mountpoint="/",device="a"} 100
node_filesystem_avail_bytes{device="a",mountpoint="/"} 30
node_filesystem_avail_bytes{device="b",mountpoint="/"} 1
"""
    assert parse_exposition(text, now_s=NOW_S).disk_ratio() == Gauge(0.7)


def test_a_value_with_a_time_keeps_it_and_a_stale_one_is_dropped() -> None:
    fresh_ms, stale_ms = int(NOW_S - 10) * 1000, int(NOW_S - 900) * 1000
    text = f"x509_cert_not_after 5 {fresh_ms}\ncontainer_spec_memory_limit_bytes 9 {stale_ms}\n"
    read = parse_exposition(text, now_s=NOW_S)
    assert read.cert_end() == Gauge(5.0, NOW_S - 10)
    assert "container_spec_memory_limit_bytes" not in read.gauges


def test_of_a_series_given_twice_the_newer_counts() -> None:
    lines = [f"x509_cert_not_after {n} {int(NOW_S - age_s) * 1000}" for n, age_s in ((1, 20), (2, 10), (3, 30))]
    assert parse_exposition("\n".join(lines), now_s=NOW_S).cert_end() == Gauge(2.0, NOW_S - 10)


def test_the_newest_stated_time_of_a_counter_is_told() -> None:
    text = f'traces_service_graph_request_total{{client="a",server="b"}} 1 {int(NOW_S - 7) * 1000}\n'
    assert parse_exposition(text, now_s=NOW_S).counted_at_s == NOW_S - 7


@pytest.mark.parametrize(
    "text", ["", "\n \n", "<!DOCTYPE html>\n<p>", '{"error": "not found"}', "up 1\nx{a=b} 1", "x one"]
)
def test_what_is_no_exposition_is_one_line_of_value_error(text: str) -> None:
    with pytest.raises(ValueError, match=r"empty|text format") as caught:
        parse_exposition(text, now_s=NOW_S)
    assert "\n" not in str(caught.value)


@given(st.text(st.sampled_from('process_resident_memory_bytes{}=",.# \\\n1eN'), max_size=80))
def test_any_text_is_read_or_refused(text: str) -> None:
    with suppress(ValueError):
        parse_exposition(f"{text}\nprocess_resident_memory_bytes{text}", now_s=NOW_S)


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ((("http_response_status_code", "503"),), True),
        ((("code", "500"), ("method", "GET")), True),
        ((("status", "5xx"),), True),
        ((("status", "200"),), False),
        ((("status", "5"),), False),
        ((("route", "500"),), False),
        ((), False),
    ],
)
def test_server_errors(labels: tuple[tuple[str, str], ...], expected: bool) -> None:
    assert is_server_error(labels) is expected
