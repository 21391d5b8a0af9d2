"""Charts as files in Slack: drawn when they tell something new, uploaded once, and never in the card's way."""

from __future__ import annotations

import asyncio
import logging
import time
from datetime import timedelta

from slack_sdk.web.async_client import AsyncWebClient

from bot.slack.charts import chart_key, render_chart
from bot.slack.client import SLACK_TROUBLE
from bot.slack.wording import started_at
from pipeline.domain.errors import SreBotError
from pipeline.domain.ids import incident_label
from pipeline.domain.incident import Case
from pipeline.stages.desk import Desk

log = logging.getLogger(__name__)

BEFORE_S = 900.0
"""How much of the time before the anomaly the chart shows."""
DEADLINE_S = 20.0
"""For drawing, uploading and Slack's processing together; a card waits no longer for its picture."""
POLL_S = 0.2
RETRY_AFTER_S = 60.0
"""After a failure the case goes without a chart for this long."""
MAX_REMEMBERED = 200


class ChartFiles:
    """Hands out file ids that are ready to be shown. What was uploaded is remembered in memory only."""

    def __init__(self, client: AsyncWebClient, desk: Desk) -> None:
        self._client = client
        self._desk = desk
        self._ready: dict[tuple[int, str], str] = {}
        self._not_before_s: dict[int, float] = {}

    async def file_id(self, case: Case) -> str | None:
        """A file with the case's chart, or None: any trouble with it is logged and costs the chart, nothing else."""
        incident_id = case.incident.id
        known = (incident_id, _moment(case))
        if known in self._ready:
            return self._ready[known]
        if not case.anomalies or time.monotonic() < self._not_before_s.get(incident_id, 0.0):
            return self._earlier(incident_id)
        try:
            async with asyncio.timeout(DEADLINE_S):
                file_id = await self._upload(case)
        except (SreBotError, ValueError, *SLACK_TROUBLE) as error:
            log.warning("%s goes without a new chart: %s", incident_label(incident_id), error or type(error).__name__)
            self._not_before_s[incident_id] = time.monotonic() + RETRY_AFTER_S
            return self._earlier(incident_id)
        self._not_before_s.pop(incident_id, None)
        while len(self._ready) >= MAX_REMEMBERED:
            del self._ready[next(iter(self._ready))]
        self._ready[known] = file_id
        return file_id

    def forget(self, case: Case) -> None:
        """Slack does not take the file any more: the next card gets a new one, after a while."""
        for known in [known for known in self._ready if known[0] == case.incident.id]:
            del self._ready[known]
        self._not_before_s[case.incident.id] = time.monotonic() + RETRY_AFTER_S

    def _earlier(self, incident_id: int) -> str | None:
        return next((file_id for (of, _), file_id in self._ready.items() if of == incident_id), None)

    async def _upload(self, case: Case) -> str:
        key = chart_key(case)
        samples = await self._desk.metric(key, started_at(case) - timedelta(seconds=BEFORE_S))
        chart = await render_chart(case, samples, await self._desk.expectation(key))
        name = f"{incident_label(case.incident.id).lower()}-{_moment(case)}.png"
        answer = await self._client.files_upload_v2(
            content=chart.png, filename=name, title=key.describe(), alt_txt=chart.alt_text[:1000]
        )
        file_id = str(answer["files"][0]["id"])
        while True:
            # Slack fills the type in when it has processed the file; before that no image block may name it.
            info = await self._client.files_info(file=file_id)
            if info["file"].get("mimetype"):
                return file_id
            await asyncio.sleep(POLL_S)


def _moment(case: Case) -> str:
    """What the chart tells: the trouble, or what verification found."""
    return "trouble" if case.verification is None else str(case.verification.verdict)
