"""What the tools may be asked, as an author reads it: names, descriptions, strict arguments."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from pipeline.domain.telemetry import Signal
from pipeline.ports.toolbox import ToolSpec

_Service = Annotated[str, Field(min_length=1, max_length=253, description="name of a service, as the evidence has it")]
_Minutes = Annotated[int, Field(ge=1, le=360, description="how far back from now")]


class _Arguments(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class QueryMetrics(_Arguments):
    """Series of one service."""

    service: _Service
    signal: Annotated[Signal, Field(description="what was measured")]
    minutes: _Minutes = 60
    instance: Annotated[str, Field(max_length=253, description="one replica; empty for all")] = ""


class SearchLogs(_Arguments):
    """Lines of one service."""

    service: _Service
    text: Annotated[str, Field(max_length=200, description="a part of the line as it stands; empty for all")] = ""
    minutes: _Minutes = 30


class _OverTime(_Arguments):
    service: _Service
    minutes: _Minutes = 60


class LogPatterns(_OverTime):
    """What is unusual in the logs of one service."""


class KubernetesEvents(_OverTime):
    """Events of one service's pods."""


class KernelActivity(_OverTime):
    """What the kernel counted of one service."""


class Traces(_Arguments):
    """Requests through one service."""

    service: _Service
    minutes: _Minutes = 15
    errors_only: Annotated[bool, Field(description="only requests that failed")] = False


class Topology(_Arguments):
    """One service and its neighbours."""

    service: _Service


class Running(_Arguments):
    """What runs of one service."""

    service: _Service


class RecentChanges(_Arguments):
    """Changes of one service, or of all."""

    service: Annotated[str, Field(max_length=253, description="name of a service; empty for all")] = ""
    minutes: _Minutes = 60


class KnowledgeSearch(_Arguments):
    """A search of the runbooks."""

    query: Annotated[str, Field(min_length=3, max_length=300, description="symptoms, alert or error text")]


Asked = (
    QueryMetrics
    | SearchLogs
    | LogPatterns
    | Traces
    | Topology
    | RecentChanges
    | KubernetesEvents
    | KernelActivity
    | Running
    | KnowledgeSearch
)

SPECS: tuple[ToolSpec, ...] = (
    ToolSpec(
        "query_metrics",
        "Values of one signal of a service and its replicas, each compared with its baseline and bound: since when it"
        " is beyond it, and since when memory or disk use grows.",
        QueryMetrics,
    ),
    ToolSpec(
        "search_logs",
        "Log lines of a service that contain a text, grouped by pattern with counts and a line as it stands.",
        SearchLogs,
    ),
    ToolSpec(
        "log_patterns",
        "Log patterns of a service that are new or far more frequent than usual, with when they began.",
        LogPatterns,
    ),
    ToolSpec("traces", "The slowest or failed requests through a service, and where their time went.", Traces),
    ToolSpec(
        "topology",
        "Who calls a service and whom it calls, and the worst that is measured at each of them.",
        Topology,
    ),
    ToolSpec(
        "recent_changes",
        "Deployments, configuration changes and scaling of a service or of all, newest first.",
        RecentChanges,
    ),
    ToolSpec(
        "kubernetes_events",
        "What the cluster said of a service's pods: OOM kills, restarts, failed probes, scheduling.",
        KubernetesEvents,
    ),
    ToolSpec("activity", "What the kernel saw of a service: processes, system calls, network flows.", KernelActivity),
    ToolSpec("target", "How many replicas of a service are wanted and ready, by the platform itself.", Running),
    ToolSpec(
        "knowledge_search",
        "Passages of runbooks and post-mortems. They tell what is typical, not what happened here.",
        KnowledgeSearch,
    ),
)
"""In the order an investigation takes them."""
