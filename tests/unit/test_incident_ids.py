"""Incident labels."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.domain.ids import IncidentId, incident_label, parse_incident_label

BIGGEST = 2**63 - 1


@pytest.mark.parametrize("text", ["INC-42", "inc-42", "Inc42", "42", "  INC-42 ", "INC-042"])
def test_ways_to_write_it(text: str) -> None:
    assert parse_incident_label(text) == 42


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "INC",
        "INC-",
        "INC--42",
        "-42",
        "--42",
        "ıNC-42",
        "INC 42",
        "INC-42x",
        "INC-4 2",
        "4.2",
        "4e2",
        "0x2a",
        "+42",
        "1_000",
        "TICKET-42",
        "INCINC-42",
        "INC-٤٢",
        "INC-４２",
        "²",
        "1" * 19,
        "9" * 5000,
        "INC-42; DROP TABLE incidents",
    ],
)
def test_what_is_no_label(text: str) -> None:
    assert parse_incident_label(text) is None


@given(st.integers(0, 10**18 - 1))
def test_a_label_is_read_back(number: int) -> None:
    assert parse_incident_label(incident_label(IncidentId(number))) == number


@given(st.text())
def test_no_text_breaks_it_or_overflows_the_database(text: str) -> None:
    found = parse_incident_label(text)
    assert found is None or 0 <= found <= BIGGEST
