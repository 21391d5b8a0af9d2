"""The faults a person can switch on. Whether one is active is read off the world, so a cure shows at once."""

import asyncio
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Protocol

import aiohttp

from bot.demo.world.certificate import issue_certificate, not_after
from bot.demo.world.config_file import ConfigError, read_upstream_timeout_ms
from bot.demo.world.config_repo import ConfigRepo, GitError
from bot.demo.world.durable import replace_file_durably
from bot.demo.world.load import Load
from bot.demo.world.log_volume import LogVolume
from bot.demo.world.messages import FaultView
from bot.demo.world.replica import Replica
from bot.demo.world.spec import LOG_VOLUME_BYTES, SPECS, WorldPaths
from bot.demo.world.supervisor import Refusal, Supervisor

# 30 % of the provider's answers take longer: the log-normal of `payments` (20 ms, sigma 0.25) at its 70th percentile.
BAD_TIMEOUT_MS = 23
HEALTHY_CERTIFICATE = timedelta(days=90)
_EXPIRING_CERTIFICATE = timedelta(days=2)
_EXPIRES_SOON = timedelta(days=7)
_FULL_RATIO = 0.9


class Fault(Protocol):
    """One fault: `state` is None while the world is free of it, else what it has hold of."""

    name: str
    title: str
    description: str

    async def switch(self, on: bool) -> None: ...

    async def state(self) -> str | None: ...


class MemoryLeak:
    """Belongs to one process: a new process in its place is free of it."""

    name = "memory-leak"
    title = "Memory leak"
    description = "One checkout replica grows its memory to 95 % of its limit. A restart of that replica cures it."

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor
        self._victim_uid: str | None = None

    async def switch(self, on: bool) -> None:
        if on:
            self._victim_uid = (await _fall_ill(self._supervisor, "checkout", self.name)).uid
        elif (victim := self._victim()) is not None:
            await _ailment("DELETE", victim, self.name)
            self._victim_uid = None

    async def state(self) -> str | None:
        victim = self._victim()
        return victim.name if victim else None

    def _victim(self) -> Replica | None:
        checkout = self._supervisor.ready("checkout")
        return next((replica for replica in checkout if replica.uid == self._victim_uid), None)


class Slow:
    """Too few checkout replicas for the load; it stays until it is switched off, four replicas carry it."""

    name = "slow"
    title = "Load surge"
    description = "Five times the users: two checkout replicas cannot keep up and requests queue. Four can."

    def __init__(self, load: Load) -> None:
        self._load = load

    async def switch(self, on: bool) -> None:
        if on:
            self._load.surges.add(self.name)
        else:
            self._load.surges.discard(self.name)

    async def state(self) -> str | None:
        return "checkout" if self.name in self._load.surges else None


class WrongFix:
    """A load surge that looks like any other, while one lock for all replicas lets only one of them work at a time."""

    name = "wrong-fix"
    title = "Load surge, and a lock"
    description = (
        "Five times the users, and all checkout replicas wait for one lock: more of them do not help. "
        "Only switching it off does."
    )

    def __init__(self, load: Load, paths: WorldPaths) -> None:
        self._load = load
        self._lock = paths.order_book

    async def switch(self, on: bool) -> None:
        if on:
            self._lock.touch()
            self._load.surges.add(self.name)
        else:
            self._load.surges.discard(self.name)
            self._lock.unlink(missing_ok=True)

    async def state(self) -> str | None:
        return "checkout" if self._lock.exists() or self.name in self._load.surges else None


class BadDeploy:
    """A commit; active as long as the settings say what it said, whoever reverts it."""

    name = "bad-deploy"
    title = "Bad deploy"
    description = "A commit cuts the provider time-out of payments: 30 % of its requests fail. A revert cures it."

    def __init__(self, repo: ConfigRepo, paths: WorldPaths) -> None:
        self._repo = repo
        self._file = paths.config_file("payments")

    async def switch(self, on: bool) -> None:
        try:
            if on:
                message = f"payments: fail fast, lower the provider time-out to {BAD_TIMEOUT_MS} ms"
                await self._repo.commit_timeout("payments", BAD_TIMEOUT_MS, message)
            else:
                await self._repo.revert_last("payments", unless=_is_patient)
        except GitError as error:
            raise Refusal(409, "conflict", str(error)) from error

    async def state(self) -> str | None:
        return None if _is_patient(self._file) else await self._repo.last_change("payments")


class DiskFill:
    """A burst of verbose logging until the volume is full; the log stays full until somebody truncates it."""

    name = "disk-fill"
    title = "Disk fills up"
    description = "The worker's log fills its 64 MiB volume to 97 %. Truncating the log cures it."

    def __init__(self, supervisor: Supervisor, paths: WorldPaths) -> None:
        self._supervisor = supervisor
        self._paths = paths

    async def switch(self, on: bool) -> None:
        if on:
            await _fall_ill(self._supervisor, "worker", self.name)
            return
        for replica in self._supervisor.ready("worker"):
            await _ailment("DELETE", replica, self.name)
        for volume in self._volumes():
            volume.truncate()

    async def state(self) -> str | None:
        for volume in self._volumes():
            if volume.used_bytes() > _FULL_RATIO * volume.size_bytes:
                return str(volume.log_file)
        for replica in self._supervisor.ready("worker"):
            if await _ailment("GET", replica, self.name):
                return replica.name
        return None

    def _volumes(self) -> list[LogVolume]:
        directories = self._paths.log_directory("worker-1").parent.glob("worker-*")
        return [LogVolume(directory, LOG_VOLUME_BYTES) for directory in directories]


class CertExpiry:
    """The certificate file is replaced by one that ends soon; any newer file cures it."""

    name = "cert-expiry"
    title = "Certificate about to expire"
    description = "The certificate of web ends in two days. A new certificate file cures it."

    def __init__(self, paths: WorldPaths) -> None:
        self._authority = paths.authority
        self._file = paths.certificate

    async def switch(self, on: bool) -> None:
        try:
            issue_certificate(self._authority, self._file, _EXPIRING_CERTIFICATE if on else HEALTHY_CERTIFICATE)
        except ValueError as error:
            raise Refusal(409, "conflict", f"no certificate can be issued: {error}") from error

    async def state(self) -> str | None:
        try:
            soon = not_after(self._file) < datetime.now(UTC) + _EXPIRES_SOON
        except (OSError, ValueError):
            return None
        return str(self._file) if soon else None


def _is_patient(settings: Path) -> bool:
    """Whether payments waits for its provider as it should, or its settings cannot be read."""
    try:
        return read_upstream_timeout_ms(settings) >= SPECS["payments"].upstream_timeout_ms
    except ConfigError:
        return True


class FaultBoard:
    """All faults, and since when each is active (kept in a file, as most outlive the supervisor)."""

    def __init__(self, faults: tuple[Fault, ...], since_file: Path) -> None:
        self._faults = {fault.name: fault for fault in faults}
        self._file = since_file
        self._since: dict[str, str] = json.loads(since_file.read_text()) if since_file.exists() else {}
        self._turn = asyncio.Lock()

    def was_active(self, name: str) -> bool:
        """Whether the fault was active when this was last written down."""
        return name in self._since

    async def views(self) -> list[FaultView]:
        async with self._turn:
            return [await self._view(fault) for fault in self._faults.values()]

    async def switch(self, name: str, on: bool) -> FaultView:
        """Raises: Refusal 404, and 409 when the world cannot be brought into that state now."""
        fault = self._faults.get(name)
        if fault is None:
            raise Refusal(404, "not_found", f"there is no fault {name!r}; there are {', '.join(self._faults)}")
        async with self._turn:
            # Off is always carried out when anything of it is left; on is not done twice.
            if (await fault.state() is not None) != on:
                await fault.switch(on)
            return await self._view(fault)

    async def _view(self, fault: Fault) -> FaultView:
        state = await fault.state()
        if (state is not None) != (fault.name in self._since):
            if state is None:
                del self._since[fault.name]
            else:
                self._since[fault.name] = datetime.now(UTC).isoformat()
            replace_file_durably(self._file, json.dumps(self._since).encode())
        since = self._since.get(fault.name)
        return FaultView(
            name=fault.name,
            title=fault.title,
            description=fault.description,
            active=state is not None,
            since=datetime.fromisoformat(since) if since else None,
            detail=state or "",
        )


async def _fall_ill(supervisor: Supervisor, service: str, name: str) -> Replica:
    """Start it in the first replica that is up. Raises: Refusal 409 when there is none."""
    for replica in supervisor.ready(service):
        if await _ailment("PUT", replica, name):
            return replica
    raise Refusal(409, "conflict", f"no instance of {service} is up")


async def _ailment(method: str, replica: Replica, name: str) -> bool:
    """Ask or tell an instance about what goes wrong inside it; True when it is going on. Gone means False."""
    url = f"http://127.0.0.1:{replica.port}/faults/{name}"
    try:
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=5)) as session,
            session.request(method, url) as response,
        ):
            return bool((await response.json())["running"])
    except (aiohttp.ClientError, TimeoutError):
        return False
