"""A small Kubernetes API server: the calls the adapter makes, with the real one's preconditions, refusals and words."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Iterable
from contextlib import suppress
from types import TracebackType
from typing import Any, NamedTuple, Self

from aiohttp import web

from tests.kube_objects import API_VERSIONS, Cluster, Key, Object, matches

TOKEN = "the-bot"
_USER = "system:serviceaccount:sre:sre-bot"


class Call(NamedTuple):
    """One request, as RBAC sees it."""

    verb: str
    group: str
    resource: str
    namespace: str
    name: str
    rehearsed: bool = False


class Refused(Exception):
    def __init__(self, code: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason


class KubeServer:
    """``async with KubeServer() as server``: talk to ``server.url`` with the bearer token TOKEN.

    ``granted`` holds (verb, group, resource), None: everything. While ``paused`` no controller works.
    """

    def __init__(self, cluster: Cluster | None = None) -> None:
        self.cluster = cluster or Cluster()
        self.calls: list[Call] = []
        self.granted: set[tuple[str, str, str]] | None = None
        self.paused = False
        self.url = ""
        self._runner: web.AppRunner | None = None
        self._controllers: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        app = web.Application(middlewares=[self._guard])
        for resource, version in API_VERSIONS.items():
            base = f"/{'api' if version == 'v1' else 'apis'}/{version}/namespaces/{{namespace}}/{{resource:{resource}}}"
            app.router.add_get(base, self._list, allow_head=False)
            app.router.add_get(base + "/{name}", self._get, allow_head=False)
            app.router.add_patch(base + "/{name}", self._patch)
            app.router.add_delete(base + "/{name}", self._delete)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        self._controllers = asyncio.create_task(self._control())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._runner is not None
        assert self._controllers is not None
        self._controllers.cancel()
        with suppress(asyncio.CancelledError):
            await self._controllers
        await self._runner.cleanup()

    @property
    def writes(self) -> list[Call]:
        return [call for call in self.calls if call.verb in ("patch", "delete") and not call.rehearsed]

    def used(self) -> set[tuple[str, str, str]]:
        """The rights that the calls so far needed."""
        return {(call.verb, call.group, call.resource) for call in self.calls}

    async def _control(self) -> None:
        while True:
            if not self.paused:
                self.cluster.reconcile()
            await asyncio.sleep(0.02)

    @web.middleware
    async def _guard(self, request: web.Request, handler: Any) -> web.StreamResponse:
        try:
            if request.headers.get("Authorization") != f"Bearer {TOKEN}":
                raise Refused(401, "Unauthorized", "Unauthorized")
            call = _call(request)
            self.calls.append(call)
            if self.granted is not None and (call.verb, call.group, call.resource) not in self.granted:
                raise Refused(403, "Forbidden", _forbidden(call))
            answer: web.StreamResponse = await handler(request)
        except Refused as refused:
            status = {
                "kind": "Status",
                "apiVersion": "v1",
                "metadata": {},
                "status": "Failure",
                "message": str(refused),
                "reason": refused.reason,
                "code": refused.code,
            }
            return web.json_response(status, status=refused.code)
        return answer

    async def _list(self, request: web.Request) -> web.Response:
        resource, namespace = request.match_info["resource"], request.match_info["namespace"]
        selector = request.query.get("labelSelector", "")
        items = [
            found
            for key, found in sorted(self.cluster.objects.items())
            if key[:2] == (resource, namespace) and matches(found["metadata"]["labels"], selector)
        ]
        return web.json_response({"apiVersion": API_VERSIONS[resource], "metadata": {}, "items": items})

    async def _get(self, request: web.Request) -> web.Response:
        return web.json_response(self._stored(_key(request)))

    async def _patch(self, request: web.Request) -> web.Response:
        if request.content_type != "application/merge-patch+json":
            raise Refused(415, "UnsupportedMediaType", f"the server does not support {request.content_type} here")
        key, patch = _key(request), await request.json()
        stored = self._stored(key)
        named = f'{key[0]}.apps "{key[2]}"'
        merged = merge(stored, patch)
        if merged["metadata"]["uid"] != stored["metadata"]["uid"]:
            raise Refused(409, "Conflict", f"Operation cannot be fulfilled on {named}: {_uid_mismatch(merged, stored)}")
        if merged["metadata"]["resourceVersion"] != stored["metadata"]["resourceVersion"]:
            raise Refused(
                409,
                "Conflict",
                f"Operation cannot be fulfilled on {named}: the object has been modified; please apply your changes to "
                "the latest version and try again",
            )
        annotations = merged["metadata"].get("annotations") or {}
        if not all(isinstance(value, str) for value in annotations.values()):
            raise Refused(
                400, "BadRequest", "json: cannot unmarshal number into Go struct field ObjectMeta.annotations"
            )
        if type(replicas := merged["spec"]["replicas"]) is not int or replicas < 0:
            raise Refused(422, "Invalid", f"{named} is invalid: spec.replicas: Invalid value: {replicas}")
        if _rehearsed(request):
            return web.json_response(merged)
        return web.json_response(self.cluster.replace(key, merged))

    async def _delete(self, request: web.Request) -> web.Response:
        key, options = _key(request), await request.json()
        stored = self._stored(key)
        wanted_uid = options.get("preconditions", {}).get("uid", stored["metadata"]["uid"])
        if wanted_uid != stored["metadata"]["uid"]:
            mismatch = _uid_mismatch({"metadata": {"uid": wanted_uid}}, stored)
            raise Refused(409, "Conflict", f'Operation cannot be fulfilled on {key[0]} "{key[2]}": {mismatch}')
        return web.json_response(stored if _rehearsed(request) else self.cluster.delete_pod(key))

    def _stored(self, key: Key) -> Object:
        try:
            return self.cluster.objects[key]
        except KeyError:
            group = "" if key[0] == "pods" else ".apps"
            raise Refused(404, "NotFound", f'{key[0]}{group} "{key[2]}" not found') from None


def merge(stored: Object, patch: Object) -> Object:
    """JSON merge patch, RFC 7386."""
    merged = copy.deepcopy(stored)
    for field, value in patch.items():
        if value is None:
            merged.pop(field, None)
        elif isinstance(value, dict):
            below = merged.get(field)
            merged[field] = merge(below if isinstance(below, dict) else {}, value)
        else:
            merged[field] = value
    return merged


def rights(rules: Iterable[dict[str, list[str]]]) -> set[tuple[str, str, str]]:
    """The (verb, group, resource) that a Role's rules grant."""
    return {
        (verb, group, resource)
        for rule in rules
        for verb in rule["verbs"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
    }


def _key(request: web.Request) -> Key:
    found = request.match_info
    return found["resource"], found["namespace"], found["name"]


def _call(request: web.Request) -> Call:
    found = request.match_info
    name = found.get("name", "")
    verb = request.method.lower() if name else "list"
    group = "apps" if request.path.startswith("/apis/apps/") else ""
    return Call(verb, group, found.get("resource", ""), found.get("namespace", ""), name, _rehearsed(request))


def _rehearsed(request: web.Request) -> bool:
    """Checked like any other, and not stored: https://kubernetes.io/docs/reference/using-api/api-concepts/#dry-run"""
    if (asked := request.query.get("dryRun", "")) not in ("", "All"):
        raise Refused(422, "Invalid", f"dryRun: Unsupported value: {asked!r}: supported values: All")
    return asked == "All"


def _forbidden(call: Call) -> str:
    named = f"{call.resource}.{call.group}" if call.group else call.resource
    return (
        f'{named} "{call.name}" is forbidden: User "{_USER}" cannot {call.verb} resource "{call.resource}" '
        f'in API group "{call.group}" in the namespace "{call.namespace}"'
    )


def _uid_mismatch(wanted: Object, stored: Object) -> str:
    return (
        f"Precondition failed: UID in precondition: {wanted['metadata']['uid']}, "
        f"UID in object meta: {stored['metadata']['uid']}"
    )
