"""A small Tempo: search by TraceQL, in no order, and traces by id as OTLP JSON.

https://grafana.com/docs/tempo/latest/api_docs/
"""

from __future__ import annotations

import base64
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from pipeline.domain.spans import SpanSummary, Trace

Json = dict[str, Any]
_QUERY = re.compile(r'\{ resource\.service\.name = "((?:[^"\\]|\\.)*)"( && status = error)? \}')


@dataclass
class TempoServer:
    """``tenant``: what X-Scope-OrgID must say. ``search_says``: every search's answer, whatever was asked."""

    tenant: str = ""
    search_says: Json | None = None
    traces: dict[str, Trace] = field(default_factory=dict)
    bodies: dict[str, Json] = field(default_factory=dict)
    extra_hits: list[Json] = field(default_factory=list)
    asked: list[Mapping[str, str]] = field(default_factory=list)

    def app(self) -> web.Application:
        app = web.Application()
        app.router.add_get("/api/search", self._search)
        app.router.add_get("/api/traces/{trace_id}", self._trace)
        return app

    def add(self, trace: Trace) -> None:
        self.traces[trace.trace_id] = trace
        self.bodies[trace.trace_id] = as_json(trace)

    async def _search(self, request: web.Request) -> web.Response:
        if self.tenant and request.headers.get("X-Scope-OrgID") != self.tenant:
            return web.Response(status=401, text="no org id")
        asked = request.query
        self.asked.append(dict(asked))
        if self.search_says is not None:
            return web.json_response(self.search_says)
        query = _QUERY.fullmatch(asked["q"])
        if query is None:
            return web.Response(status=400, text="invalid TraceQL query: parse error at line 1, col 2: syntax error")
        service, errors_only = json.loads(f'"{query[1]}"'), bool(query[2])
        start_s, end_s = int(asked["start"]), int(asked["end"])
        if end_s <= start_s:
            return web.Response(status=400, text="http parameter start must be before end")
        hits = [
            summary(trace)
            for trace in self.traces.values()
            if any(
                span.service == service
                and (span.error or not errors_only)
                and start_s <= math.floor(span.started_at.timestamp()) < end_s
                for span in trace.spans
            )
        ]
        answer: Json = {"metrics": {"inspectedTraces": len(self.traces), "inspectedBytes": "1024", "totalBlocks": 1}}
        if hits := [*self.extra_hits, *hits][: int(asked["limit"])]:
            answer["traces"] = hits
        return web.json_response(answer)

    async def _trace(self, request: web.Request) -> web.Response:
        body = self.bodies.get(request.match_info["trace_id"])
        if body is None:
            return web.Response(status=404, text="trace not found")
        return web.json_response(body)


def summary(trace: Trace) -> Json:
    root = trace.spans[0]
    return {
        "traceID": trace.trace_id,
        "rootServiceName": root.service,
        "rootTraceName": root.operation,
        "startTimeUnixNano": nanos(root),
        "durationMs": round(root.duration_s * 1000),
        "spanSets": [{"spans": [{"spanID": root.span_id, "startTimeUnixNano": nanos(root)}], "matched": 3}],
    }


def as_json(trace: Trace) -> Json:
    """As Tempo writes it: ``batches``, ids in base64, names of enumerations, 64-bit numbers as strings."""
    return {
        "batches": [
            {
                "resource": resource(span.service),
                "scopeSpans": [{"scope": {"name": "http"}, "spans": [span_json(trace.trace_id, span)]}],
            }
            for span in reversed(trace.spans)
        ]
    }


def as_otlp(trace: Trace) -> Json:
    """As OpenTelemetry's own JSON has it: ``resourceSpans``, ids in hexadecimal, numbers of enumerations."""
    by_service: dict[str, list[Json]] = {}
    for span in trace.spans:
        status: Json = {"code": 2, "message": "failed"} if span.error else {}
        ids = {"traceId": trace.trace_id, "spanId": span.span_id.upper(), "parentSpanId": span.parent_id}
        by_service.setdefault(span.service, []).append({**span_json(trace.trace_id, span), **ids, "status": status})
    return {
        "resourceSpans": [
            {"resource": resource(service), "instrumentationLibrarySpans": [{"spans": spans}]}
            for service, spans in by_service.items()
        ]
    }


def resource(service: str) -> Json:
    return {
        "attributes": [
            {"key": "process.pid", "value": {"intValue": "17"}},
            {"key": "service.name", "value": {"stringValue": service}},
            {"key": "tags", "value": {"arrayValue": {"values": []}}},
        ]
    }


def span_json(trace_id: str, span: SpanSummary) -> Json:
    end = int(nanos(span)) + round(span.duration_s * 1e9)
    return {
        "traceId": based(trace_id),
        "spanId": based(span.span_id),
        "parentSpanId": based(span.parent_id or "0" * 16),
        "name": span.operation,
        "kind": "SPAN_KIND_SERVER",
        "startTimeUnixNano": nanos(span),
        "endTimeUnixNano": str(end),
        "attributes": [{"key": "http.status_code", "value": {"intValue": "500"}}],
        "status": {"code": "STATUS_CODE_ERROR"} if span.error else {"code": "STATUS_CODE_UNSET"},
    }


def nanos(span: SpanSummary) -> str:
    return f"{int(span.started_at.timestamp() * 1000)}000000"


def based(digits: str) -> str:
    return base64.b64encode(bytes.fromhex(digits)).decode()
