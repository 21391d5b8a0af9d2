"""A Kubernetes API server with cert-manager in it: Certificates, their status, and the controllers that issue."""

from __future__ import annotations

import asyncio
import itertools
import uuid
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from types import TracebackType
from typing import Any, Literal, NamedTuple, Self

from aiohttp import web

TOKEN = "the-bot"
GROUP = "cert-manager.io"
_USER = "system:serviceaccount:sre:sre-bot"
_BASE = f"/apis/{GROUP}/v1/namespaces/{{namespace}}"
LIFETIME = timedelta(days=90)

Object = dict[str, Any]
Issuer = Literal["ready", "failing", "absent", "short"]


class Right(NamedTuple):
    verb: str
    group: str
    resource: str


class Refused(Exception):
    def __init__(self, code: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason


class CertManagerServer:
    """``async with CertManagerServer() as server``: talk to ``server.url`` with the bearer token TOKEN.

    ``issuer``: "failing" ends requests as Failed, "absent" never answers them, "short" issues what ends with the old.
    ``granted``: None is everything. ``ahead`` is how far the cluster's clock is from this machine's. While ``paused``
    no controller works. ``secrets`` holds the serial number of what each Secret holds: replaced when it is issued.
    """

    def __init__(self) -> None:
        self.certificates: dict[tuple[str, str], Object] = {}
        self.requests: list[Object] = []
        self.secrets: dict[tuple[str, str], int] = {}
        self.issuer: Issuer = "ready"
        self.granted: set[Right] | None = None
        self.used: set[Right] = set()
        self.ahead = timedelta()
        self.paused = False
        self.url = ""
        self._versions = itertools.count(1000)
        self._serials = itertools.count(1)
        self._runner: web.AppRunner | None = None
        self._controllers: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        app = web.Application(middlewares=[self._guard])
        app.router.add_get(_BASE + "/certificates/{name}", self._get, allow_head=False)
        app.router.add_patch(_BASE + "/certificates/{name}/status", self._patch_status)
        app.router.add_get(_BASE + "/certificaterequests", self._list_requests, allow_head=False)
        app.router.add_post("/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", self._review)
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

    def now(self) -> datetime:
        return datetime.now(UTC).replace(microsecond=0) + self.ahead

    def add(self, namespace: str, name: str, *, ends_in: timedelta = timedelta(days=2)) -> Object:
        """A Certificate that was issued once and ends soon, or, over one of the same name, another."""
        ready = {
            "type": "Ready",
            "status": "True",
            "reason": "Ready",
            "message": "Certificate is up to date and has not expired",
            "lastTransitionTime": _stamp(self.now() + ends_in - LIFETIME),
            "observedGeneration": 1,
        }
        status = {"conditions": [ready], "revision": 1, "notAfter": _stamp(self.now() + ends_in)}
        made = {
            "apiVersion": f"{GROUP}/v1",
            "kind": "Certificate",
            "metadata": {
                "namespace": namespace,
                "name": name,
                "uid": str(uuid.uuid4()),
                "generation": 1,
                "resourceVersion": str(next(self._versions)),
            },
            "spec": {"secretName": name, "dnsNames": [f"{name}.example"], "issuerRef": {"name": "ca"}},
            "status": status,
        }
        self.certificates[namespace, name] = made
        self.secrets[namespace, name] = next(self._serials)
        return made

    def edit_spec(self, namespace: str, name: str, **changed: Any) -> None:
        meta = self.certificates[namespace, name]["metadata"]
        self.certificates[namespace, name]["spec"].update(changed)
        meta["generation"] += 1
        meta["resourceVersion"] = str(next(self._versions))

    def set_status(self, namespace: str, name: str, **changed: Any) -> None:
        """As a controller does: a new resourceVersion, the same generation. None takes a field away."""
        stored = self.certificates[namespace, name]
        stored["status"] = {key: value for key, value in (stored["status"] | changed).items() if value is not None}
        stored["metadata"]["resourceVersion"] = str(next(self._versions))

    def condition(self, namespace: str, name: str, kind: str) -> Object | None:
        conditions = self.certificates[namespace, name]["status"]["conditions"]
        return next((one for one in conditions if one["type"] == kind), None)

    def set_condition(self, namespace: str, name: str, kind: str, status: str | None, **words: str) -> None:
        others = [one for one in self.certificates[namespace, name]["status"]["conditions"] if one["type"] != kind]
        if status is not None:
            others.append({"type": kind, "status": status, "lastTransitionTime": _stamp(self.now()), **words})
        self.set_status(namespace, name, conditions=others)

    async def _control(self) -> None:
        while True:
            if not self.paused:
                for key in list(self.certificates):
                    self._reconcile(*key)
            await asyncio.sleep(0.02)

    def _reconcile(self, namespace: str, name: str) -> None:
        """One round: a request for what is to be issued, and in a later one what became of it.

        https://cert-manager.io/docs/devel/ : the request manager, the issuing and the readiness controllers.
        """
        stored = self.certificates[namespace, name]
        issuing = self.condition(namespace, name, "Issuing")
        if issuing is None or issuing["status"] != "True":
            return
        revision = stored["status"].get("revision", 0) + 1
        asked = [one for one in self.requests if _is_for(one, stored["metadata"]["uid"], revision)]
        if not asked:
            self.requests.append(_request(namespace, name, stored["metadata"]["uid"], revision, self.issuer))
        elif self.issuer == "failing":
            reason = asked[0]["status"]["conditions"][-1]["message"]
            message = f"The certificate request has failed to complete and will be retried: {reason}"
            self.set_status(namespace, name, lastFailureTime=_stamp(self.now()), failedIssuanceAttempts=1)
            self.set_condition(namespace, name, "Issuing", "False", reason="Failed", message=message)
        elif self.issuer != "absent":
            self.secrets[namespace, name] = next(self._serials)
            ends = stored["status"]["notAfter"] if self.issuer == "short" else _stamp(self.now() + LIFETIME)
            self.set_status(
                namespace, name, revision=revision, notAfter=ends, lastFailureTime=None, failedIssuanceAttempts=None
            )
            self.set_condition(namespace, name, "Issuing", None)

    @web.middleware
    async def _guard(self, request: web.Request, handler: Any) -> web.StreamResponse:
        try:
            if request.headers.get("Authorization") != f"Bearer {TOKEN}":
                raise Refused(401, "Unauthorized", "Unauthorized")
            answer: web.StreamResponse = await handler(request)
        except Refused as refused:
            said = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "metadata": {}, "code": refused.code}
            answer = web.json_response(said | {"message": str(refused), "reason": refused.reason}, status=refused.code)
        answer.headers["Date"] = format_datetime(self.now(), usegmt=True)
        return answer

    def _need(self, verb: str, resource: str, name: str, namespace: str) -> None:
        right = Right(verb, GROUP, resource)
        self.used.add(right)
        if self.granted is not None and right not in self.granted:
            named = f"{resource.partition('/')[0]}.{GROUP}" + (f' "{name}"' if name else "")
            raise Refused(
                403,
                "Forbidden",
                f'{named} is forbidden: User "{_USER}" cannot {verb} resource "{resource}" in API group "{GROUP}"'
                f' in the namespace "{namespace}"',
            )

    def _stored(self, request: web.Request) -> Object:
        namespace, name = request.match_info["namespace"], request.match_info["name"]
        if (namespace, name) not in self.certificates:
            raise Refused(404, "NotFound", f'certificates.{GROUP} "{name}" not found')
        return self.certificates[namespace, name]

    async def _get(self, request: web.Request) -> web.Response:
        self._need("get", "certificates", request.match_info["name"], request.match_info["namespace"])
        return web.json_response(self._stored(request))

    async def _patch_status(self, request: web.Request) -> web.Response:
        """Everything but the status is ignored, once uid and resourceVersion were compared; the generation stays."""
        namespace, name = request.match_info["namespace"], request.match_info["name"]
        self._need("patch", "certificates/status", name, namespace)
        if request.content_type != "application/merge-patch+json":
            raise Refused(415, "UnsupportedMediaType", f"the server does not support {request.content_type} here")
        stored, patch = self._stored(request), await request.json()
        merged = _merged(stored, patch)
        named = f'certificates.{GROUP} "{name}"'
        theirs, ours = merged["metadata"], stored["metadata"]
        if theirs["uid"] != ours["uid"]:
            why = f"Precondition failed: UID in precondition: {theirs['uid']}, UID in object meta: {ours['uid']}"
            raise Refused(409, "Conflict", f"Operation cannot be fulfilled on {named}: {why}")
        if theirs["resourceVersion"] != ours["resourceVersion"]:
            why = "the object has been modified; please apply your changes to the latest version and try again"
            raise Refused(409, "Conflict", f"Operation cannot be fulfilled on {named}: {why}")
        for number, condition in enumerate(merged["status"]["conditions"]):
            if condition.get("status") not in ("True", "False", "Unknown"):
                raise Refused(
                    422,
                    "Invalid",
                    f'Certificate.{GROUP} "{name}" is invalid: status.conditions[{number}].status: Unsupported value: '
                    f'"{condition.get("status")}": supported values: "True", "False", "Unknown"',
                )
        if request.query.get("dryRun") == "All":
            return web.json_response({**stored, "status": merged["status"]})
        self.set_status(namespace, name, **merged["status"])
        return web.json_response(stored)

    async def _list_requests(self, request: web.Request) -> web.Response:
        namespace = request.match_info["namespace"]
        self._need("list", "certificaterequests", "", namespace)
        items = [one for one in self.requests if one["metadata"]["namespace"] == namespace]
        return web.json_response({"apiVersion": f"{GROUP}/v1", "kind": "CertificateRequestList", "items": items})

    async def _review(self, request: web.Request) -> web.Response:
        """Any account may ask this of itself."""
        review = await request.json()
        asked = review["spec"]["resourceAttributes"]
        resource = "/".join(part for part in (asked["resource"], asked.get("subresource")) if part)
        held = self.granted is None or Right(asked["verb"], asked["group"], resource) in self.granted
        status: Object = {"allowed": held}
        if held:
            status["reason"] = 'RBAC: allowed by RoleBinding "sre-bot-certificates/shop"'
        return web.json_response({**review, "status": status}, status=201)


def _request(namespace: str, name: str, owner: str, revision: int, issuer: Issuer) -> Object:
    said = {
        "ready": ("True", "Issued", "Certificate fetched from issuer successfully"),
        "short": ("True", "Issued", "Certificate fetched from issuer successfully"),
        "failing": ("False", "Failed", "the issuer refused: rate limit of new certificates exceeded"),
        "absent": ("False", "Pending", 'Referenced "Issuer" not found: issuer.cert-manager.io "ca" not found'),
    }[issuer]
    approved = {"type": "Approved", "status": "True", "reason": "cert-manager.io", "message": "Approved"}
    ready = {"type": "Ready", **dict(zip(("status", "reason", "message"), said, strict=True))}
    return {
        "metadata": {
            "namespace": namespace,
            "name": f"{name}-{revision}",
            "uid": str(uuid.uuid4()),
            "resourceVersion": "1",
            "annotations": {"cert-manager.io/certificate-revision": str(revision)},
            "ownerReferences": [{"kind": "Certificate", "name": name, "uid": owner, "controller": True}],
        },
        "status": {"conditions": [approved, ready]},
    }


def _is_for(request: Object, owner: str, revision: int) -> bool:
    meta = request["metadata"]
    of_revision = str(meta["annotations"]["cert-manager.io/certificate-revision"])
    return of_revision == str(revision) and bool(meta["ownerReferences"][0]["uid"] == owner)


def _merged(stored: Object, patch: Object) -> Object:
    """JSON merge patch, RFC 7386: objects are merged, lists are replaced."""
    merged = {key: value for key, value in stored.items() if key not in patch}
    for key, value in patch.items():
        below = stored.get(key)
        if isinstance(value, dict):
            merged[key] = _merged(below if isinstance(below, dict) else {}, value)
        elif value is not None:
            merged[key] = value
    return merged


def _stamp(moment: datetime) -> str:
    return f"{moment:%Y-%m-%dT%H:%M:%SZ}"
