"""The control API: loopback HTTP in front of the supervisor, the journal and the faults."""

from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from aiohttp import web
from pydantic import BaseModel, ValidationError

from bot.demo.world.faults import FaultBoard
from bot.demo.world.load import Load
from bot.demo.world.messages import FaultSwitch, RestartRequest, ScaleRequest
from bot.demo.world.supervisor import Refusal, Supervisor

_Body = TypeVar("_Body", bound=BaseModel)


class ControlApi:
    """Routes of /v1; see `messages` for bodies and answers. Errors are {"error": word, "reason": text}."""

    def __init__(self, supervisor: Supervisor, faults: FaultBoard, load: Load) -> None:
        self._supervisor = supervisor
        self._faults = faults
        self._load = load

    def app(self) -> web.Application:
        app = web.Application(middlewares=[_refusals], client_max_size=64 * 1024)
        app.router.add_get("/healthz", self._healthz)
        app.router.add_get("/v1/services", self._services)
        app.router.add_get("/v1/services/{name}", self._service)
        app.router.add_post("/v1/services/{name}/scale", self._scale)
        app.router.add_post("/v1/services/{name}/restart", self._restart)
        app.router.add_get("/v1/journal", self._journal)
        app.router.add_get("/v1/faults", self._list_faults)
        app.router.add_post("/v1/faults/{name}", self._switch_fault)
        app.router.add_get("/v1/world", self._world)
        return app

    async def _healthz(self, request: web.Request) -> web.Response:
        return web.json_response({"status": "ok"})

    async def _services(self, request: web.Request) -> web.Response:
        return _list(self._supervisor.views())

    async def _service(self, request: web.Request) -> web.Response:
        return _one(self._supervisor.view(request.match_info["name"]))

    async def _scale(self, request: web.Request) -> web.Response:
        body = await _read(request, ScaleRequest)
        return _one(self._supervisor.scale(request.match_info["name"], body), status=202)

    async def _restart(self, request: web.Request) -> web.Response:
        body = await _read(request, RestartRequest)
        return _one(self._supervisor.restart(request.match_info["name"], body), status=202)

    async def _journal(self, request: web.Request) -> web.Response:
        return _list(self._supervisor.journal.entries(execution_id=request.query.get("execution_id")))

    async def _list_faults(self, request: web.Request) -> web.Response:
        return _list(await self._faults.views())

    async def _switch_fault(self, request: web.Request) -> web.Response:
        body = await _read(request, FaultSwitch)
        return _one(await self._faults.switch(request.match_info["name"], body.on))

    async def _world(self, request: web.Request) -> web.Response:
        """What the page shows: the services with their instances, the faults, the load."""
        instance_fields = {"name", "ready", "memory_bytes", "memory_limit_bytes"}
        services = [
            {
                "name": view.name,
                "replicas": view.replicas,
                "instances": [it.model_dump(mode="json", include=instance_fields) for it in view.instances],
            }
            for view in self._supervisor.views()
        ]
        fault_fields = {"name", "title", "description", "active"}
        faults = [view.model_dump(mode="json", include=fault_fields) for view in await self._faults.views()]
        return web.json_response({"services": services, "faults": faults, "load": self._load.view()})


@web.middleware
async def _refusals(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    try:
        return await handler(request)
    except Refusal as refusal:
        return _error(refusal.status, refusal.error, str(refusal))
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        return _error(422, "invalid", f"{field}: {first['msg']}" if field else first["msg"])
    except web.HTTPException as error:
        return _error(error.status, error.reason.lower().replace(" ", "_"), error.text or error.reason)
    except OSError as error:
        return _error(503, "unavailable", f"the state of the world cannot be written: {error}")


async def _read(request: web.Request, model: type[_Body]) -> _Body:
    # A web page of another origin cannot send this content type without asking first, and it is never allowed.
    if request.content_type != "application/json":
        raise Refusal(415, "unsupported_media_type", "send application/json")
    return model.model_validate_json(await request.read())


def _one(view: BaseModel, status: int = 200) -> web.Response:
    return web.json_response(view.model_dump(mode="json"), status=status)


def _list(views: Sequence[BaseModel]) -> web.Response:
    return web.json_response([view.model_dump(mode="json") for view in views])


def _error(status: int, error: str, reason: str) -> web.Response:
    return web.json_response({"error": error, "reason": reason}, status=status)
