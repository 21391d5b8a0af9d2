"""A small Kubernetes API server for reading: lists in pages, pods' logs, and refusals in the real one's words."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from aiohttp import web

TOKEN = "the-bot"
Object = dict[str, Any]
_GROUPS = {"pods": "", "events": "", "deployments": "apps", "replicasets": "apps"}


@dataclass
class KubeLogServer:
    """``granted`` holds (verb, group, resource), None: everything. Log lines are (time, text) by (pod, container,
    previous); ``node_down``: pods whose node does not answer."""

    objects: dict[tuple[str, str], list[Object]] = field(default_factory=dict)
    logs: dict[tuple[str, str, bool], list[tuple[datetime, str]]] = field(default_factory=dict)
    node_down: set[str] = field(default_factory=set)
    granted: set[tuple[str, str, str]] | None = None
    used: set[tuple[str, str, str]] = field(default_factory=set)
    log_requests: list[dict[str, str]] = field(default_factory=list)
    page_size: int = 500
    _numbers: itertools.count[int] = field(default_factory=lambda: itertools.count(1))

    def app(self) -> web.Application:
        app = web.Application()
        for resource, group in _GROUPS.items():
            base = "/apis/apps/v1" if group else "/api/v1"
            app.router.add_get(f"{base}/namespaces/{{namespace}}/{{resource:{resource}}}", self._list)
        app.router.add_get("/api/v1/namespaces/{namespace}/pods/{pod}/log", self._log)
        return app

    def add(self, resource: str, name: str, namespace: str = "shop", **rest: Any) -> Object:
        meta = {
            "name": name,
            "namespace": namespace,
            "uid": f"uid-{next(self._numbers)}",
            "creationTimestamp": rfc3339(datetime.now(UTC)),
            **rest.pop("metadata", {}),
        }
        made: Object = {"metadata": meta, **rest}
        self.objects.setdefault((namespace, resource), []).append(made)
        return made

    def add_pod(self, name: str, *containers: Object, namespace: str = "shop", **metadata: Any) -> Object:
        statuses = list(containers) or [running()]
        status = {"phase": "Running", "containerStatuses": statuses}
        spec = {"containers": [{"name": one["name"], "image": "x:1"} for one in statuses]}
        return self.add("pods", name, namespace, metadata=metadata, spec=spec, status=status)

    async def _list(self, request: web.Request) -> web.Response:
        namespace, resource = request.match_info["namespace"], request.match_info["resource"]
        refusal = self._refusal(request, "list", resource, namespace)
        if refusal is not None:
            return refusal
        found = self.objects.get((namespace, resource), [])
        if selector := request.query.get("fieldSelector"):
            assert selector == "type=Warning", selector
            found = [one for one in found if one.get("type") == "Warning"]
        first = int(request.query.get("continue", "0"))
        last = first + min(int(request.query.get("limit", "500")), self.page_size)
        meta: Object = {"resourceVersion": "1000"}
        if last < len(found):
            meta["continue"] = str(last)
        return web.json_response({"apiVersion": "v1", "metadata": meta, "items": found[first:last]})

    async def _log(self, request: web.Request) -> web.Response:
        namespace, name, asked = request.match_info["namespace"], request.match_info["pod"], request.query
        refusal = self._refusal(request, "get", "pods/log", namespace)
        if refusal is not None:
            return refusal
        self.log_requests.append({"pod": name, **asked})
        pod = next((one for one in self.objects[namespace, "pods"] if one["metadata"]["name"] == name), None)
        if pod is None:
            return status(404, "NotFound", f'pods "{name}" not found')
        names = [one["name"] for one in pod["spec"]["containers"]]
        container = asked.get("container", names[0] if len(names) == 1 else "")
        if container not in names:
            said = f"a container name must be specified for pod {name}, choose one of: [{' '.join(names)}]"
            return status(400, "BadRequest", said)
        if name in self.node_down:
            said = f'Get "https://10.0.0.9:10250/containerLogs/{namespace}/{name}": dial tcp: connect: no route to host'
            return status(500, "InternalError", said)
        previous = asked.get("previous", "false").lower() == "true"
        lines = self.logs.get((name, container, previous))
        if lines is None:
            missing = f'previous terminated container "{container}" in pod "{name}" not found'
            waiting = f'container "{container}" in pod "{name}" is waiting to start: ContainerCreating'
            return status(400, "BadRequest", missing if previous else waiting)
        oldest = datetime.now(UTC).timestamp() - int(asked["sinceSeconds"])
        kept = [(at, text) for at, text in lines if at.timestamp() >= oldest][-int(asked["tailLines"]) :]
        stamped = asked.get("timestamps", "false").lower() == "true"
        text = "".join(f"{rfc3339(at, nanos=True)} {text}\n" if stamped else f"{text}\n" for at, text in kept)
        return web.Response(body=text.encode()[: int(asked["limitBytes"])], content_type="text/plain")

    def _refusal(self, request: web.Request, verb: str, resource: str, namespace: str) -> web.Response | None:
        if request.headers.get("Authorization") != f"Bearer {TOKEN}":
            return status(401, "Unauthorized", "Unauthorized")
        right = (verb, _GROUPS.get(resource, ""), resource)
        self.used.add(right)
        if self.granted is None or right in self.granted:
            return None
        return status(
            403,
            "Forbidden",
            f'{resource} is forbidden: User "system:serviceaccount:sre:sre-bot" cannot {verb} resource "{resource}" '
            f'in API group "{right[1]}" in the namespace "{namespace}"',
        )


def status(code: int, reason: str, said: str) -> web.Response:
    body = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": said}
    return web.json_response({**body, "reason": reason, "code": code}, status=code)


def running(name: str = "main", *, last: Object | None = None) -> Object:
    """A container that runs, after one that ended as ``last`` says."""
    state: Object = {"running": {"startedAt": rfc3339(datetime.now(UTC))}}
    return {"name": name, "restartCount": int(last is not None), "state": state, "lastState": last or {}}


def ended(at: datetime, reason: str, code: int, message: str | None = None) -> Object:
    return {"terminated": {"exitCode": code, "reason": reason, "finishedAt": rfc3339(at), "message": message}}


def owner(kind: str, name: str, uid: str = "u") -> Object:
    return {"apiVersion": "apps/v1", "kind": kind, "name": name, "uid": uid, "controller": True}


def rfc3339(at: datetime, *, nanos: bool = False) -> str:
    return f"{at:%Y-%m-%dT%H:%M:%S}.{at.microsecond * 1000 + 789:09d}Z" if nanos else f"{at:%Y-%m-%dT%H:%M:%SZ}"
