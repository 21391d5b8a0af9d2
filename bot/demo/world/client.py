"""Talks to the control API of the demo world."""

import asyncio
from typing import Self

import aiohttp
from pydantic import TypeAdapter

from bot.demo.world.messages import FaultView, JournalEntry, ServiceView
from pipeline.domain.errors import SreBotError

_SERVICES = TypeAdapter(list[ServiceView])
_FAULTS = TypeAdapter(list[FaultView])
_JOURNAL = TypeAdapter(list[JournalEntry])


class WorldError(SreBotError):
    """The demo world refused or could not be reached; `status` is None when there was no answer."""

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class WorldClient:
    """`base_url` is the url the world prints when it is ready. Use it as `async with`, or call `close`."""

    def __init__(self, base_url: str, timeout_s: float = 10.0) -> None:
        self._base_url = base_url.rstrip("/")
        self._timeout = aiohttp.ClientTimeout(total=timeout_s)
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    async def services(self) -> list[ServiceView]:
        return _SERVICES.validate_json(await self._request("GET", "/v1/services"))

    async def service(self, name: str) -> ServiceView:
        """Raises: WorldError with status 404 for a service that does not exist."""
        return ServiceView.model_validate_json(await self._request("GET", f"/v1/services/{name}"))

    async def faults(self) -> list[FaultView]:
        return _FAULTS.validate_json(await self._request("GET", "/v1/faults"))

    async def set_fault(self, name: str, on: bool) -> FaultView:
        """Switch a fault. Raises: WorldError with status 404 (unknown) or 409 (not possible now)."""
        return FaultView.model_validate_json(await self._request("POST", f"/v1/faults/{name}", {"on": on}))

    async def journal(self, execution_id: str | None = None) -> list[JournalEntry]:
        """Every physical change, or those of one execution, oldest first."""
        query = {} if execution_id is None else {"execution_id": execution_id}
        return _JOURNAL.validate_json(await self._request("GET", "/v1/journal", query=query))

    async def wait_ready(self, timeout_s: float) -> None:
        """Until every service has as many ready instances as it wants. Raises: TimeoutError saying what is missing."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_s
        while True:
            try:
                missing = [
                    service.name
                    for service in await self.services()
                    if sum(instance.ready for instance in service.instances) != service.replicas
                ]
            except WorldError as error:
                if error.status is not None:
                    raise
                missing = [str(error)]
            if not missing:
                return
            if loop.time() > deadline:
                raise TimeoutError(f"the demo world is not ready after {timeout_s:g} s: {', '.join(missing)}")
            await asyncio.sleep(0.1)

    async def _request(
        self, method: str, path: str, body: dict[str, bool] | None = None, query: dict[str, str] | None = None
    ) -> bytes:
        if self._session is None:
            self._session = aiohttp.ClientSession(timeout=self._timeout)
        try:
            async with self._session.request(method, self._base_url + path, json=body, params=query) as response:
                answer = await response.read()
        except (aiohttp.ClientError, TimeoutError) as error:
            raise WorldError(f"the demo world at {self._base_url} cannot be reached: {error}") from error
        if response.status >= 400:
            raise WorldError(f"the demo world answered {response.status}: {answer.decode()}", response.status)
        return answer
