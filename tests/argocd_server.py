"""A small Argo CD API server with its controller: the calls the adapter makes, with the real one's words."""

from __future__ import annotations

import asyncio
import copy
import itertools
from contextlib import suppress
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Self

from aiohttp import web

TOKEN = "the-bot"
ACCOUNT = "sre-bot"
PROJECT, APP = "shop", "checkout"
FIRST, SECOND, NEXT = "1" * 40, "2" * 40, "3" * 40
"""Commits: two that were synced, the second of which runs, and one that was not."""
_GRPC = {400: 9, 401: 16, 403: 7, 404: 5, 409: 10, 429: 8, 500: 13, 503: 14}
_uids = itertools.count(1)


class Refused(Exception):
    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class ArgoCdServer:
    """``async with ArgoCdServer() as server``: the application APP of PROJECT at ``server.url``, for TOKEN.

    While ``paused`` the controller does nothing; ``fails`` is the message with which it ends the next operations.
    ``granted`` are the verbs of the account; ``major`` is the version: since the third a sync names the source too.
    """

    def __init__(self) -> None:
        self.granted = {"get", "sync"}
        self.major = 3
        self.paused = False
        self.fails = ""
        self.history_limit = 10
        self.posts: list[str] = []
        self.url = ""
        self._second = itertools.count(1_764_000_000)
        self._runner: web.AppRunner | None = None
        self._controller: asyncio.Task[None] | None = None
        self.app = self._made()

    async def __aenter__(self) -> Self:
        app = web.Application(middlewares=[self._guard])
        base = "/api/v1/applications/{name}"
        app.router.add_get(base, self._get)
        app.router.add_get(base + "/manifests", self._manifests)
        app.router.add_post(base + "/sync", self._sync)
        app.router.add_post(base + "/rollback", self._rollback)
        app.router.add_get("/api/v1/account/can-i/applications/{verb}/{rest:.+}", self._can_i)
        app.router.add_get("/api/v1/session/userinfo", self._userinfo)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        self._controller = asyncio.create_task(self._control())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._runner is not None
        assert self._controller is not None
        self._controller.cancel()
        with suppress(asyncio.CancelledError):
            await self._controller
        await self._runner.cleanup()

    @property
    def history(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.app["status"]["history"]
        return found

    def recreate(self) -> None:
        """Another application under the same name."""
        self.app = self._made()

    def ask_by_another(self, revision: str, *, username: str = "alice") -> None:
        """Somebody else has it synced."""
        source = {"source": copy.deepcopy(self.app["spec"]["source"])} if self.major >= 3 else {}
        self._set_operation({"sync": {"revision": revision} | source, "initiatedBy": {"username": username}})

    def work(self) -> None:
        """What the controller does in one go."""
        status, operation = self.app["status"], self.app.get("operation")
        if operation is None:
            status["health"]["status"] = "Healthy"
            return
        began = self._time()
        state = {"operation": operation, "startedAt": began, "finishedAt": self._time()}
        del self.app["operation"]
        if self.fails:
            status["operationState"] = state | {"phase": "Failed", "message": self.fails}
            return
        sync = operation["sync"]
        result = {"revision": sync["revision"]}
        status["operationState"] = state | {
            "phase": "Succeeded",
            "message": "successfully synced (all tasks run)",
            "syncResult": result,
        }
        status["health"]["status"] = "Progressing"
        source = sync.get("source") or copy.deepcopy(self.app["spec"]["source"])
        self.history.append(
            {
                "id": self.history[-1]["id"] + 1,
                "revision": sync["revision"],
                "source": source,
                "deployStartedAt": began,
                "deployedAt": self._time(),
                "initiatedBy": operation["initiatedBy"],
            }
        )
        del self.history[: -self.history_limit]

    def _made(self) -> dict[str, Any]:
        source = {"repoURL": "https://git.example.com/shop.git", "path": "checkout", "targetRevision": "main"}
        history = [
            {
                "id": number,
                "revision": revision,
                "source": source,
                "deployedAt": self._time(),
                "initiatedBy": {"username": "alice"},
            }
            for number, revision in enumerate((FIRST, SECOND))
        ]
        return {
            "metadata": {"name": APP, "namespace": "argocd", "uid": f"uid-{next(_uids)}"},
            "spec": {"project": PROJECT, "source": source, "destination": {"namespace": "shop"}},
            "status": {
                "sync": {"status": "OutOfSync", "revision": NEXT},
                "health": {"status": "Healthy"},
                "history": history,
            },
        }

    def _time(self) -> str:
        return datetime.fromtimestamp(next(self._second), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

    async def _control(self) -> None:
        while True:
            await asyncio.sleep(0.02)
            if not self.paused:
                self.work()

    @web.middleware
    async def _guard(self, request: web.Request, handler: Any) -> web.StreamResponse:
        if request.method == "POST":
            self.posts.append(request.path)
        try:
            if request.headers.get("Authorization") != f"Bearer {TOKEN}":
                raise Refused(401, "invalid session: token is malformed")
            return web.json_response(await handler(request))
        except Refused as refused:
            said = {"error": str(refused), "code": _GRPC[refused.status], "message": str(refused)}
            return web.json_response(said, status=refused.status)

    def _allowed(self, request: web.Request, verb: str) -> None:
        if request.match_info["name"] != APP:
            raise Refused(404, f'applications.argoproj.io "{request.match_info["name"]}" not found')
        if verb not in self.granted:
            raise Refused(403, f"permission denied: applications, {verb}, {PROJECT}/{APP}, sub: {ACCOUNT}")

    async def _get(self, request: web.Request) -> Any:
        self._allowed(request, "get")
        return self.app

    async def _manifests(self, request: web.Request) -> Any:
        self._allowed(request, "get")
        revision = request.query["revision"]
        if revision not in (FIRST, SECOND, NEXT):
            raise Refused(400, f"failed to checkout revision: unable to resolve '{revision}' to a commit SHA")
        return {"manifests": ['{"kind": "Deployment"}', '{"kind": "Service"}'], "revision": revision}

    async def _sync(self, request: web.Request) -> Any:
        self._allowed(request, "sync")
        body = await request.json()
        source = self.app["spec"]["source"]
        if self._automated() and body["revision"] != source["targetRevision"]:
            held = source["targetRevision"]
            raise Refused(400, f"Cannot sync to {body['revision']}: auto-sync currently set to {held}")
        sync = {"revision": body["revision"], "prune": body["prune"], "dryRun": body["dryRun"]}
        if self.major >= 3:
            sync["source"] = copy.deepcopy(source)
        self._set_operation({"sync": sync, "info": body.get("infos", []), "initiatedBy": {"username": ACCOUNT}})
        return self.app

    async def _rollback(self, request: web.Request) -> Any:
        self._allowed(request, "sync")
        body = await request.json()
        if self._automated():
            raise Refused(400, "rollback cannot be initiated when auto-sync is enabled")
        entry = next((one for one in self.history if one["id"] == body["id"]), None)
        if entry is None:
            raise Refused(400, f"application {APP} does not have deployment with id {body['id']}")
        sync = {"revision": entry["revision"], "source": entry["source"], "syncStrategy": {"apply": {}}}
        self._set_operation({"sync": sync, "initiatedBy": {"username": ACCOUNT}})
        return self.app

    async def _can_i(self, request: web.Request) -> Any:
        known = request.match_info["rest"] == f"{PROJECT}/{APP}"
        return {"value": "yes" if known and request.match_info["verb"] in self.granted else "no"}

    async def _userinfo(self, request: web.Request) -> Any:
        return {"loggedIn": True, "username": ACCOUNT, "iss": "argocd"}

    def _automated(self) -> bool:
        return self.app["spec"].get("syncPolicy", {}).get("automated") is not None

    def _set_operation(self, operation: dict[str, Any]) -> None:
        if "operation" in self.app:
            raise Refused(
                400,
                "error setting app operation: rpc error: code = FailedPrecondition"
                " desc = another operation is already in progress",
            )
        self.app["operation"] = operation
        self.app["status"].pop("operationState", None)
