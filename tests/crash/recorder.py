"""The oracle: stands where a platform would, carries changes out as it would, and notes every physical request.

It speaks the API of the local process supervisor. Instances are names with uids; a restart gives a new uid.
"""

from __future__ import annotations

import asyncio
import itertools
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Literal, Self

from aiohttp import web
from pydantic import ValidationError

from bot.demo.world.messages import RestartRequest, ScaleRequest

SERVICE, NAMESPACE = "checkout", "demo"
SERVICE_UID = "uid-of-checkout"

TargetFault = Literal[
    "refused_409",
    "busy_429",
    "failed_500",
    "failed_500_applied",
    "silent",
    "silent_applied",
    "reset",
    "applied_then_reset",
    "late",
    "unreadable",
]


@dataclass(frozen=True, slots=True)
class PhysicalRequest:
    """A write that reached the platform. ``effective``: it changed something; ``took_effect_at`` says when."""

    at: datetime
    kind: Literal["restart", "scale"]
    execution_id: str
    step: int
    fence: int
    wish: str
    """The instance's uid, or the number of replicas."""
    effective: bool
    answer: str
    took_effect_at: datetime | None = None


@dataclass
class _Service:
    replicas: int = 3
    generation: int = 1
    highest_fence: int = 0
    instances: dict[str, str] = field(default_factory=dict)
    journal: list[dict[str, Any]] = field(default_factory=list)


class Recorder:
    """``async with Recorder() as recorder``: the bot's target is ``recorder.url``.

    ``faults`` strike the nth write that arrives (from 1); ``unreadable`` strikes the nth read.
    """

    def __init__(self, *, replicas: int = 3) -> None:
        self._service = _Service(replicas=replicas)
        self._uids = itertools.count(1)
        for number in range(1, replicas + 1):
            self._service.instances[f"{SERVICE}-{number}"] = self._new_uid()
        self._runner: web.AppRunner | None = None
        self._writes = 0
        self.reads = 0
        self.faults: dict[int, tuple[TargetFault, float]] = {}
        self.unreadable: dict[int, int] = {}
        """Read number → how many reads from there on fail."""
        self.requests: list[PhysicalRequest] = []
        self.struck: list[str] = []
        self.on_strike: Callable[[], None] = lambda: None
        self.url = ""

    async def __aenter__(self) -> Self:
        app = web.Application(client_max_size=64 * 1024)
        app.router.add_get("/v1/services/{name}", self._view)
        app.router.add_post("/v1/services/{name}/{verb}", self._write)
        app.router.add_get("/v1/journal", self._journal)
        # A handler ends when its client hangs up only where we say so: a request that arrived is carried out.
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1, handler_cancellation=False)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    @property
    def effects(self) -> list[PhysicalRequest]:
        return [request for request in self.requests if request.effective]

    @property
    def replicas(self) -> int:
        return self._service.replicas

    @property
    def generation(self) -> int:
        return self._service.generation

    @property
    def instances(self) -> dict[str, str]:
        """Name → uid."""
        return dict(self._service.instances)

    def foreign_change(self) -> None:
        """Somebody else scales the service by one."""
        self._scale_to(self._service.replicas + 1)

    def _new_uid(self) -> str:
        return f"uid-{next(self._uids)}"

    async def _view(self, request: web.Request) -> web.Response:
        self.reads += 1
        for first, count in self.unreadable.items():
            if first <= self.reads < first + count:
                self._strike("unreadable")
                return web.json_response({"error": "internal", "reason": "injected"}, status=500)
        if request.match_info["name"] != SERVICE:
            return web.json_response({"error": "not_found", "reason": "no such service"}, status=404)
        return web.json_response(self._render())

    def _render(self) -> dict[str, Any]:
        service = self._service
        instances = [{"name": name, "uid": uid, "ready": True} for name, uid in service.instances.items()]
        return {
            "name": SERVICE,
            "namespace": NAMESPACE,
            "uid": SERVICE_UID,
            "generation": service.generation,
            "replicas": service.replicas,
            "instances": instances,
            "replicas_1h_ago": 3,
        }

    async def _journal(self, request: web.Request) -> web.Response:
        wanted = request.query.get("execution_id")
        entries = [entry for entry in self._service.journal if wanted in (None, entry["execution_id"])]
        return web.json_response(entries)

    async def _write(self, request: web.Request) -> web.Response:
        verb = request.match_info["verb"]
        try:
            body = await request.read()
            wish: RestartRequest | ScaleRequest
            wish = (RestartRequest if verb == "restart" else ScaleRequest).model_validate_json(body)
        except ValidationError as error:
            return web.json_response({"error": "invalid", "reason": str(error)}, status=422)
        self._writes += 1
        fault, seconds = self.faults.get(self._writes, (None, 0.0))
        at = datetime.now(UTC)
        if fault is not None:
            self._strike(fault)
        match fault:
            case "refused_409":
                return self._answered(at, wish, False, 409, "injected conflict")
            case "busy_429":
                return self._answered(at, wish, False, 429, "injected limit")
            case "failed_500":
                return self._answered(at, wish, False, 500, "injected failure")
            case "silent":
                self._note(at, wish, False, "no answer")
                await asyncio.sleep(seconds)
                return reset(request)
            case "reset":
                self._note(at, wish, False, "reset")
                return reset(request)
            case "late":
                await asyncio.sleep(seconds)
                return self.carry_out(at, wish)
            case "failed_500_applied":
                self.carry_out(at, wish)
                return web.json_response({"error": "internal", "reason": "injected"}, status=500)
            case "silent_applied":
                self.carry_out(at, wish)
                await asyncio.sleep(seconds)
                return reset(request)
            case "applied_then_reset":
                self.carry_out(at, wish)
                return reset(request)
            case _:
                return self.carry_out(at, wish)

    def carry_out(self, at: datetime, wish: RestartRequest | ScaleRequest) -> web.Response:
        """As the supervisor does: nothing is awaited between the checks, the journal entry and the effect."""
        service = self._service
        if wish.fence < service.highest_fence:
            return self._answered(at, wish, False, 409, f"fence {wish.fence} is lower than {service.highest_fence}")
        if isinstance(wish, ScaleRequest):
            if not 1 <= wish.replicas <= 10:
                return self._answered(at, wish, False, 422, "out of range")
            if wish.if_generation != service.generation:
                return self._answered(at, wish, False, 409, f"at generation {service.generation}")
            detail: dict[str, Any] = {"from": service.replicas, "to": wish.replicas}
            self._scale_to(wish.replicas)
        else:
            if service.instances.get(wish.instance) != wish.if_instance_uid:
                return self._answered(at, wish, False, 409, f"{wish.instance} with that uid is gone")
            successor = self._new_uid()
            detail = {"instance": wish.instance, "old_uid": wish.if_instance_uid, "new_uid": successor}
            service.instances[wish.instance] = successor
        service.highest_fence = wish.fence
        service.journal.append(
            {
                "seq": len(service.journal) + 1,
                "service": SERVICE,
                "kind": "scale" if isinstance(wish, ScaleRequest) else "restart",
                "execution_id": wish.execution_id,
                "step": wish.step,
                "fence": wish.fence,
                "detail": detail,
            }
        )
        # A number of replicas that stands already is taken, as a platform takes it, and changes nothing.
        return self._answered(at, wish, detail.get("from") != detail.get("to") or "instance" in detail, 202, "")

    def _scale_to(self, replicas: int) -> None:
        service = self._service
        for name in list(service.instances)[replicas:]:
            del service.instances[name]
        number = 1
        while len(service.instances) < replicas:
            if f"{SERVICE}-{number}" not in service.instances:
                service.instances[f"{SERVICE}-{number}"] = self._new_uid()
            number += 1
        service.replicas = replicas
        service.generation += 1

    def _answered(
        self, at: datetime, wish: RestartRequest | ScaleRequest, effective: bool, status: int, reason: str
    ) -> web.Response:
        self._note(at, wish, effective, str(status))
        if status == 202:
            return web.json_response(self._render(), status=202)
        return web.json_response({"error": "injected", "reason": reason}, status=status)

    def _note(self, at: datetime, wish: RestartRequest | ScaleRequest, effective: bool, answer: str) -> None:
        scales = isinstance(wish, ScaleRequest)
        self.requests.append(
            PhysicalRequest(
                at=at,
                kind="scale" if scales else "restart",
                execution_id=wish.execution_id,
                step=wish.step,
                fence=wish.fence,
                wish=str(wish.replicas) if isinstance(wish, ScaleRequest) else wish.if_instance_uid,
                effective=effective,
                answer=answer,
                took_effect_at=datetime.now(UTC) if effective else None,
            )
        )

    def _strike(self, what: str) -> None:
        self.struck.append(f"target {what}")
        self.on_strike()


def reset(request: web.Request) -> web.Response:
    """A TCP RST, not an orderly end."""
    transport = request.transport
    if transport is not None:
        sock: socket.socket = transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        transport.abort()
    return web.Response(status=500)
