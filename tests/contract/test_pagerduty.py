"""PagerDuty over HTTP, against a server that answers as the Events API v2 does."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
from pydantic import SecretStr

from pipeline.adapters.notify.pagerduty import MAX_SUMMARY_CHARS, PagerDuty
from pipeline.domain.errors import OutcomeUnknown, PermanentError, TemporaryError
from pipeline.domain.severity import Severity
from pipeline.ports.pager import Page
from tests.pagerduty_server import ROUTING_KEY, PagerDutyServer, Trouble, pagerduty_server

PAGE = Page(
    event="trigger",
    dedup_key="sre-bot-1",
    label="INC-42",
    summary="INC-42 SEV2 checkout: memory use of checkout-1 at 93 %",
    severity=Severity.SEV2,
    service="checkout",
    environment="production",
    link="https://shop.slack.com/archives/C0INCIDENTS/p1",
)


@pytest.fixture
async def server() -> AsyncIterator[PagerDutyServer]:
    async with pagerduty_server() as running:
        yield running


@pytest.fixture
async def pager(server: PagerDutyServer) -> AsyncIterator[PagerDuty]:
    made = PagerDuty(SecretStr(ROUTING_KEY), url=server.url, timeout_s=5.0)
    yield made
    await made.close()


async def test_one_key_is_triggered_acknowledged_and_resolved(server: PagerDutyServer, pager: PagerDuty) -> None:
    for event in ("trigger", "acknowledge", "resolve"):
        await pager.send(replace(PAGE, event=event))
    assert server.actions == ["trigger", "acknowledge", "resolve"]
    assert server.incidents == {"sre-bot-1": "resolved"}
    first = server.events[0]
    assert first["links"] == [{"href": PAGE.link, "text": "INC-42 in Slack"}]
    assert first["payload"] == {
        "summary": PAGE.summary,
        "source": "checkout",
        "severity": "error",
        "component": "checkout",
        "group": "production",
        "class": "SEV2",
        "custom_details": {"incident": "INC-42", "environment": "production"},
    }
    assert set(server.events[2]) == {"routing_key", "event_action", "dedup_key"}


@pytest.mark.parametrize(
    ("severity", "theirs"),
    [
        (Severity.SEV1, "critical"),
        (Severity.SEV2, "error"),
        (Severity.SEV3, "warning"),
        (Severity.SEV4, "info"),
    ],
)
async def test_severities_are_theirs(
    server: PagerDutyServer, pager: PagerDuty, severity: Severity, theirs: str
) -> None:
    await pager.send(replace(PAGE, severity=severity, link=""))
    assert server.events[0]["payload"]["severity"] == theirs
    assert server.events[0]["links"] == []


async def test_a_long_summary_is_cut_to_what_is_taken(server: PagerDutyServer, pager: PagerDuty) -> None:
    await pager.send(replace(PAGE, summary="é" * 5000))
    summary = server.events[0]["payload"]["summary"]
    assert len(summary) == MAX_SUMMARY_CHARS
    assert summary.endswith("…")


@pytest.mark.parametrize(
    ("trouble", "kind", "said"),
    [
        ("refuse", PermanentError, "refused the event: 400 Event object is invalid; told to refuse"),
        ("garbage", PermanentError, "404 <html>nginx</html>"),
        ("429", TemporaryError, "takes no more events now: 429"),
        ("500", OutcomeUnknown, "PagerDuty failed: 500"),
        ("lost answer", OutcomeUnknown, "no answer from PagerDuty"),
    ],
)
async def test_each_answer_says_what_may_be_done_next(
    server: PagerDutyServer, pager: PagerDuty, trouble: Trouble, kind: type[Exception], said: str
) -> None:
    server.trouble.append(trouble)
    with pytest.raises(kind, match=said) as refused:
        await pager.send(PAGE)
    if isinstance(refused.value, TemporaryError):
        assert refused.value.retry_after_s == 77.0
    await pager.send(PAGE)
    assert server.requests == 2, "the adapter itself repeats nothing"
    assert server.incidents == {"sre-bot-1": "triggered"}, "said again, it is the same incident"


async def test_silence_ends_with_the_time_out(server: PagerDutyServer) -> None:
    server.trouble.append("silence")
    impatient = PagerDuty(SecretStr(ROUTING_KEY), url=server.url, timeout_s=0.2)
    with pytest.raises(OutcomeUnknown, match="no answer from PagerDuty"):
        await impatient.send(PAGE)
    await impatient.close()


async def test_nobody_there_is_tried_again() -> None:
    pager = PagerDuty(SecretStr(ROUTING_KEY), url="http://127.0.0.1:9/v2/enqueue", timeout_s=5.0)
    with pytest.raises(TemporaryError, match="cannot be reached"):
        await pager.send(PAGE)
    await pager.close()


async def test_a_wrong_key_is_refused_and_never_shown(server: PagerDutyServer) -> None:
    pager = PagerDuty(SecretStr("short-secret"), url=server.url)
    with pytest.raises(PermanentError, match="should be 32 characters") as refused:
        await pager.send(PAGE)
    await pager.close()
    assert "short-secret" not in f"{refused.value!r} {pager.__dict__!r}"
