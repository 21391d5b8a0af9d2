"""A small Kubernetes API server: the real one's paths, preconditions, patch types, refusals and words."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable
from contextlib import suppress
from types import TracebackType
from typing import Any, NamedTuple, Self

from aiohttp import web

from tests.kube_eviction import TooMany, evict
from tests.kube_objects import Cluster
from tests.kube_patches import JSON, MERGE, STRATEGIC, patched
from tests.kube_store import Key, Object, Resource, matches

TOKEN = "the-bot"
_USER = "system:serviceaccount:sre:sre-bot"
_READS = ("get", "list", "watch")
_SCALED = ("deployments", "statefulsets", "replicasets")


class Call(NamedTuple):
    """One request, as RBAC sees it. ``resource`` names the subresource too: ``pods/eviction``."""

    verb: str
    group: str
    resource: str
    namespace: str
    name: str
    rehearsed: bool = False


class Refused(Exception):
    def __init__(
        self, code: int, reason: str, message: str, *, causes: Iterable[Object] = (), retry_after_s: int = 0
    ) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.details: Object = {"causes": [*causes]} if causes else {}
        if retry_after_s:
            self.details["retryAfterSeconds"] = retry_after_s


class KubeServer:
    """``async with KubeServer() as server``: talk to ``server.url`` with the bearer token TOKEN.

    ``granted`` holds (verb, group, resource), None: everything. While ``paused`` no controller works. Whoever needs
    paths of its own overrides ``routes``; a resource of its own is added with ``cluster.define``.
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
        self.routes(app)
        app.router.add_post("/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", self._review)
        for base in ("/api/{version}", "/apis/{group}/{version}"):
            for place in (base + "/namespaces/{namespace}/{resource}", base + "/{resource}"):
                app.router.add_get(place, self._list, allow_head=False)
                app.router.add_get(place + "/{name}", self._get, allow_head=False)
                app.router.add_patch(place + "/{name}", self._patch)
                app.router.add_delete(place + "/{name}", self._delete)
            below = base + "/namespaces/{namespace}/{resource}/{name}/{sub}"
            app.router.add_get(below, self._get_below, allow_head=False)
            app.router.add_patch(below, self._patch_below)
            app.router.add_post(below, self._post_below)
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

    def routes(self, app: web.Application) -> None:
        """Adds paths that come before those of here; handlers raise Refused."""

    @property
    def writes(self) -> list[Call]:
        """Requests that were to change something, whatever became of them."""
        return [call for call in self.calls if call.verb not in _READS and not call.rehearsed]

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
            # Everybody may ask what they may (the ClusterRole system:basic-user), and it changes nothing.
            if "authorization.k8s.io" not in request.path:
                call = _call(request)
                self.calls.append(call)
                if self.granted is not None and (call.verb, call.group, call.resource) not in self.granted:
                    raise Refused(403, "Forbidden", _forbidden(call))
            answer: web.StreamResponse = await handler(request)
        except Refused as refused:
            status = _status("Failure", str(refused)) | {"reason": refused.reason, "code": refused.code}
            retry = refused.details.get("retryAfterSeconds")
            headers = {"Retry-After": str(retry)} if retry else {}
            return web.json_response(status | {"details": refused.details}, status=refused.code, headers=headers)
        return answer

    async def _list(self, request: web.Request) -> web.StreamResponse:
        resource, namespace = self._resource(request), request.match_info.get("namespace", "")
        selector = request.query.get("labelSelector", "")

        def wanted(key: Key, found: Object) -> bool:
            place = key[0] == resource.plural and namespace in ("", key[1])
            return place and matches(found["metadata"].get("labels") or {}, selector)

        if request.query.get("watch") in ("1", "true"):
            return await self._watch(request, wanted)
        items = [found for key, found in sorted(self.cluster.objects.items()) if wanted(key, found)]
        version = str(self.cluster.events[-1].version if self.cluster.events else 1)
        kind = {"kind": f"{resource.kind}List", "apiVersion": resource.api_version}
        return web.json_response({**kind, "metadata": {"resourceVersion": version}, "items": items})

    async def _watch(self, request: web.Request, wanted: Any) -> web.StreamResponse:
        """Changes since ``resourceVersion``, one JSON a line, until ``timeoutSeconds`` are over."""
        since = int(request.query.get("resourceVersion") or 0)
        loop = asyncio.get_running_loop()
        end = loop.time() + float(request.query.get("timeoutSeconds", "30"))
        stream = web.StreamResponse(headers={"Content-Type": "application/json"})
        await stream.prepare(request)
        while loop.time() < end:
            for event in [one for one in self.cluster.events if one.version > since]:
                since = event.version
                if wanted(event.key, event.object):
                    line = json.dumps({"type": event.type, "object": event.object}) + "\n"
                    await stream.write(line.encode())
            await asyncio.sleep(0.02)
        await stream.write_eof()
        return stream

    async def _get(self, request: web.Request) -> web.Response:
        return web.json_response(self._stored(self._key(request)))

    async def _get_below(self, request: web.Request) -> web.Response:
        stored = self._stored(self._key(request))
        if (sub := request.match_info["sub"]) == "status":
            return web.json_response(stored)
        if sub == "scale" and request.match_info["resource"] in _SCALED:
            return web.json_response(_scale(stored))
        raise Refused(404, "NotFound", "the server could not find the requested resource")

    async def _patch(self, request: web.Request) -> web.Response:
        key = self._key(request)
        return web.json_response(await self._patched(request, key, self._stored(key), _whole))

    async def _patch_below(self, request: web.Request) -> web.Response:
        key, sub = self._key(request), request.match_info["sub"]
        stored = self._stored(key)
        if sub == "status":
            return web.json_response(await self._patched(request, key, stored, _status_only, by_status=True))
        if sub == "scale" and key[0] in _SCALED:
            made = await self._patched(request, key, _scale(stored), _replicas_only)
            return web.json_response(_scale(made))
        raise Refused(404, "NotFound", "the server could not find the requested resource")

    async def _patched(
        self, request: web.Request, key: Key, shown: Object, take: Any, *, by_status: bool = False
    ) -> Object:
        """``shown``: what the patch is applied to; ``take`` puts what came of it into what is stored."""
        resource = self.cluster.resources[key[0]]
        accepted = (JSON, MERGE, STRATEGIC) if resource.builtin else (JSON, MERGE)
        if request.content_type not in accepted:
            said = "the body of the request was in an unknown format - accepted media types include: "
            raise Refused(415, "UnsupportedMediaType", said + ", ".join(accepted))
        try:
            changed = patched(shown, await request.json(), request.content_type)
        except ValueError as error:
            raise Refused(
                422, "Invalid", f"the server rejected our request due to an error in our request: {error}"
            ) from error
        stored, where = self._stored(key), f'{resource.named} "{key[2]}"'
        for field, said in (("uid", _uid_mismatch(changed, stored)), ("resourceVersion", _MODIFIED)):
            if changed["metadata"].get(field, stored["metadata"][field]) != stored["metadata"][field]:
                raise Refused(409, "Conflict", f"Operation cannot be fulfilled on {where}: {said}")
        made = take(stored, changed)
        _validate(resource, key[2], made)
        return made if _rehearsed(request) else self.cluster.replace(key, made, by_status=by_status)

    async def _delete(self, request: web.Request) -> web.Response:
        key = self._key(request)
        options = await request.json() if request.can_read_body else {}
        stored = self._stored(key)
        self._held_to(key, stored, options)
        if _rehearsed(request):
            return web.json_response(stored)
        if key[0] == "pods":
            return web.json_response(self.cluster.delete_pod(key))
        self.cluster.remove(key)
        return web.json_response(_status("Success"))

    async def _post_below(self, request: web.Request) -> web.Response:
        key = self._key(request)
        if (key[0], request.match_info["sub"]) != ("pods", "eviction"):
            raise Refused(404, "NotFound", "the server could not find the requested resource")
        eviction, pod = await request.json(), self._stored(key)
        if (eviction.get("apiVersion"), eviction.get("kind")) != ("policy/v1", "Eviction"):
            raise Refused(400, "BadRequest", "no kind is registered for this version in the scheme")
        if eviction["metadata"]["name"] != key[2]:
            raise Refused(400, "BadRequest", "name in URL does not match name in Eviction object")
        try:
            refusal = evict(self.cluster, pod, rehearsed=_rehearsed(request))
        except TooMany as many:
            cause = {"reason": "DisruptionBudget", "message": str(many)}
            said = "Cannot evict pod as it would violate the pod's disruption budget."
            raise Refused(429, "TooManyRequests", said, causes=[cause], retry_after_s=many.retry_after_s) from many
        if refusal:
            return web.json_response(_status("Failure", refusal) | {"code": 500}, status=201)
        self._held_to(key, pod, eviction.get("deleteOptions") or {})
        if not _rehearsed(request):
            self.cluster.delete_pod(key)
        return web.json_response(_status("Success"), status=201)

    async def _review(self, request: web.Request) -> web.Response:
        """https://kubernetes.io/docs/reference/access-authn-authz/authorization/#checking-api-access"""
        review = await request.json()
        asked = review["spec"]["resourceAttributes"]
        resource = "/".join(filter(None, (asked["resource"], asked.get("subresource", ""))))
        right = (asked["verb"], asked.get("group", ""), resource)
        allowed = self.granted is None or right in self.granted
        reason = 'RBAC: allowed by RoleBinding "sre-bot/shop"' if allowed else ""
        return web.json_response({**review, "status": {"allowed": allowed, "reason": reason}}, status=201)

    def _held_to(self, key: Key, stored: Object, options: Object) -> None:
        for field, wanted in (options.get("preconditions") or {}).items():
            if wanted != stored["metadata"][field]:
                said = _uid_mismatch({"metadata": {"uid": wanted}}, stored) if field == "uid" else _MODIFIED
                raise Refused(409, "Conflict", f'Operation cannot be fulfilled on {key[0]} "{key[2]}": {said}')

    def _resource(self, request: web.Request) -> Resource:
        found = self.cluster.resources.get(request.match_info["resource"])
        asked = (request.match_info.get("group", ""), request.match_info["version"])
        if found is None or (found.group, found.version) != asked:
            raise Refused(404, "NotFound", "the server could not find the requested resource")
        return found

    def _key(self, request: web.Request) -> Key:
        return self._resource(request).plural, request.match_info.get("namespace", ""), request.match_info["name"]

    def _stored(self, key: Key) -> Object:
        try:
            return self.cluster.objects[key]
        except KeyError:
            named = self.cluster.resources[key[0]].named
            raise Refused(404, "NotFound", f'{named} "{key[2]}" not found') from None


_MODIFIED = "the object has been modified; please apply your changes to the latest version and try again"


def rights(rules: Iterable[dict[str, list[str]]]) -> set[tuple[str, str, str]]:
    """The (verb, group, resource) that a Role's rules grant."""
    return {
        (verb, group, resource)
        for rule in rules
        for verb in rule["verbs"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
    }


def _whole(stored: Object, changed: Object) -> Object:
    """Everything but the status, which has a subresource of its own."""
    return {**changed, **({"status": stored["status"]} if "status" in stored else {})}


def _status_only(stored: Object, changed: Object) -> Object:
    return {**stored, "metadata": changed["metadata"], "status": changed["status"]}


def _replicas_only(stored: Object, changed: Object) -> Object:
    return {**stored, "spec": {**stored["spec"], "replicas": changed["spec"]["replicas"]}}


def _scale(stored: Object) -> Object:
    kept = ("name", "namespace", "uid", "resourceVersion", "creationTimestamp")
    meta = {field: stored["metadata"][field] for field in kept}
    status = {"replicas": stored["status"].get("replicas", 0)}
    spec = {"replicas": stored["spec"]["replicas"]}
    return {"kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": meta, "spec": spec, "status": status}


def _validate(resource: Resource, name: str, made: Object) -> None:
    annotations = made["metadata"].get("annotations") or {}
    if not all(isinstance(value, str) for value in annotations.values()):
        raise Refused(400, "BadRequest", "json: cannot unmarshal number into Go struct field ObjectMeta.annotations")
    where, spec = f'{resource.kind}.{resource.group} "{name}" is invalid', made.get("spec") or {}
    if "replicas" in spec and (type(spec["replicas"]) is not int or spec["replicas"] < 0):
        raise Refused(422, "Invalid", f"{where}: spec.replicas: Invalid value: {spec['replicas']}")
    if resource.kind == "HorizontalPodAutoscaler":
        if spec["minReplicas"] < 1:
            said = "spec.minReplicas: Invalid value: 0: must be greater than or equal to 1"
            raise Refused(422, "Invalid", f"{where}: {said}")
        if spec["maxReplicas"] < spec["minReplicas"]:
            said = "must be greater than or equal to `minReplicas`"
            raise Refused(422, "Invalid", f"{where}: spec.maxReplicas: Invalid value: {spec['maxReplicas']}: {said}")


def _call(request: web.Request) -> Call:
    found = request.match_info
    name, sub = found.get("name", ""), found.get("sub", "")
    verb = {"GET": "get", "PATCH": "patch", "DELETE": "delete", "POST": "create"}.get(request.method, "update")
    if verb == "get" and not name:
        verb = "watch" if request.query.get("watch") in ("1", "true") else "list"
    resource = "/".join(filter(None, (found.get("resource", ""), sub)))
    return Call(verb, found.get("group", ""), resource, found.get("namespace", ""), name, _rehearsed(request))


def _rehearsed(request: web.Request) -> bool:
    """Checked like any other, and not stored: https://kubernetes.io/docs/reference/using-api/api-concepts/#dry-run"""
    if (asked := request.query.get("dryRun", "")) not in ("", "All"):
        raise Refused(422, "Invalid", f"dryRun: Unsupported value: {asked!r}: supported values: All")
    return asked == "All"


def _status(status: str, message: str = "") -> Object:
    said = {"message": message} if message else {}
    return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": status, **said}


def _forbidden(call: Call) -> str:
    plural = call.resource.partition("/")[0]
    named = f"{plural}.{call.group}" if call.group else plural
    place = f'in the namespace "{call.namespace}"' if call.namespace else "at the cluster scope"
    return (
        f'{named} "{call.name}" is forbidden: User "{_USER}" cannot {call.verb} resource "{call.resource}" '
        f'in API group "{call.group}" {place}'
    )


def _uid_mismatch(wanted: Object, stored: Object) -> str:
    return (
        f"Precondition failed: UID in precondition: {wanted['metadata'].get('uid')}, "
        f"UID in object meta: {stored['metadata']['uid']}"
    )
