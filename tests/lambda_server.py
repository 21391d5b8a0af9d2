"""A small AWS Lambda (REST, paths of 2015-03-31 and later): versions, aliases, concurrency; with STS and IAM.

Provisioned concurrency is allocated when it is looked at for the second time, unless ``paused`` or it cannot be.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from tests.asg_server import ACCOUNT, REGION, AwsServer, Refused

ACCOUNT_LIMIT = 1000
"""Calls at once that the account may have in a region."""
UNRESERVED_MINIMUM = 100
_PAGE = 50

Answer = dict[str, Any]
_Handler = Callable[[web.Request], Awaitable[web.Response]]


@dataclass
class Provisioned:
    requested: int
    status: str = "IN_PROGRESS"
    reason: str = ""
    seen: int = 0


@dataclass
class Alias:
    version: str
    description: str = ""
    weights: dict[str, float] = field(default_factory=dict)
    revision_id: str = field(default_factory=lambda: str(uuid.uuid4()))

    def change(self, **values: Any) -> None:
        for key, value in values.items():
            setattr(self, key, value)
        self.revision_id = str(uuid.uuid4())


@dataclass
class Function:
    """``versions``: when each was published, by its number."""

    name: str
    versions: dict[str, str]
    aliases: dict[str, Alias]
    reserved: int | None = None
    provisioned: dict[str, Provisioned] = field(default_factory=dict)

    @property
    def arn(self) -> str:
        return f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:{self.name}"


class LambdaServer(AwsServer):
    """``cannot_keep_warm``: why no provisioned concurrency can be allocated; empty: it can."""

    def __init__(self) -> None:
        super().__init__()
        self.functions: dict[str, Function] = {}
        self.paused = False
        self.cannot_keep_warm = ""

    def add_function(self, name: str, *, versions: int = 3, published: str = "2026-05-01") -> Function:
        """Its versions were published on that day, a minute after each other; the alias is at the latest."""
        at = published + "T{:02}:{:02}:00.000+0000"
        made = {str(number): at.format(8 + number // 60, number % 60) for number in range(1, versions + 1)}
        self.functions[name] = Function(name, made, {"live": Alias(str(versions), "what callers name")})
        return self.functions[name]

    def routes(self, app: web.Application) -> None:
        super().routes(app)
        alias = "/2015-03-31/functions/{function}/aliases/{alias}"
        reserved = "/2017-10-31/functions/{function}/concurrency"
        provisioned = "/2019-09-30/functions/{function}/provisioned-concurrency"
        app.router.add_get(alias, self._read(self._get_alias))
        app.router.add_put(alias, self._write("UpdateAlias", self._update_alias))
        app.router.add_get("/2015-03-31/functions/{function}/versions", self._read(self._versions))
        app.router.add_get("/2019-09-30/functions/{function}/concurrency", self._read(self._reserved))
        app.router.add_put(reserved, self._write("PutFunctionConcurrency", self._reserve))
        app.router.add_delete(reserved, self._write("DeleteFunctionConcurrency", self._unreserve, 204))
        app.router.add_get(provisioned, self._read(self._all_provisioned))
        app.router.add_put(provisioned, self._write("PutProvisionedConcurrencyConfig", self._provision, 202))
        app.router.add_delete(provisioned, self._write("DeleteProvisionedConcurrencyConfig", self._unprovision, 204))

    def _read(self, answer: Callable[[web.Request, Answer], Answer]) -> _Handler:
        async def handle(request: web.Request) -> web.Response:
            try:
                return web.json_response(answer(request, {}))
            except Refused as refused:
                return _refusal(refused)

        return handle

    def _write(self, name: str, answer: Callable[[web.Request, Answer], Answer], status: int = 200) -> _Handler:
        async def handle(request: web.Request) -> web.Response:
            asked = json.loads(await request.read() or b"{}")
            try:
                fault = self.begin_write(f"lambda:{name}", request.path)
                said = answer(request, asked)
            except Refused as refused:
                return _refusal(refused)
            if fault == "fail":
                return _refusal(
                    Refused("ServiceException", "An error occurred and the request cannot be processed.", 500)
                )
            if fault == "cut":
                assert request.transport is not None
                request.transport.abort()
            return web.Response(status=204) if status == 204 else web.json_response(said, status=status)

        return handle

    def _function(self, request: web.Request) -> Function:
        name = request.match_info["function"]
        if name not in self.functions:
            arn = f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:{name}"
            raise Refused("ResourceNotFoundException", f"Function not found: {arn}", 404)
        return self.functions[name]

    def _alias(self, request: web.Request) -> tuple[Function, str, Alias]:
        function = self._function(request)
        name = request.match_info.get("alias") or request.query["Qualifier"]
        if name not in function.aliases:
            raise Refused("ResourceNotFoundException", f"Cannot find alias arn: {function.arn}:{name}", 404)
        return function, name, function.aliases[name]

    def _get_alias(self, request: web.Request, asked: Answer) -> Answer:
        del asked
        function, name, alias = self._alias(request)
        return {
            "AliasArn": f"{function.arn}:{name}",
            "Name": name,
            "FunctionVersion": alias.version,
            "Description": alias.description,
            "RevisionId": alias.revision_id,
        } | ({"RoutingConfig": {"AdditionalVersionWeights": alias.weights}} if alias.weights else {})

    def _update_alias(self, request: web.Request, asked: Answer) -> Answer:
        function, _, alias = self._alias(request)
        if asked.get("RevisionId", alias.revision_id) != alias.revision_id:
            raise Refused(
                "PreconditionFailedException",
                "The RevisionId provided does not match the latest RevisionId. Call the GetFunction/GetAlias API to"
                " retrieve the latest RevisionId",
                412,
            )
        version = asked.get("FunctionVersion", alias.version)
        if version not in function.versions and version != "$LATEST":
            raise Refused("ResourceNotFoundException", f"Function not found: {function.arn}:{version}", 404)
        description = asked.get("Description", alias.description)
        if len(description) > 256:
            raise Refused("InvalidParameterValueException", "The description is longer than 256 characters.")
        alias.change(version=version, description=description)
        return self._get_alias(request, {})

    def _versions(self, request: web.Request, asked: Answer) -> Answer:
        del asked
        function, start = self._function(request), int(request.query.get("Marker", "0"))
        names = ["$LATEST", *function.versions]
        page = names[start : start + min(int(request.query.get("MaxItems", _PAGE)), _PAGE)]
        shown = [
            {
                "FunctionName": function.name,
                "FunctionArn": f"{function.arn}:{name}",
                "Version": name,
                "Description": f"release {name}",
                "LastModified": function.versions.get(name, "2026-11-20T08:00:00.000+0000"),
                "CodeSha256": f"sha-of-{name}",
            }
            for name in page
        ]
        following = start + len(page)
        return {"Versions": shown} | ({"NextMarker": str(following)} if following < len(names) else {})

    def _reserved(self, request: web.Request, asked: Answer) -> Answer:
        del asked
        number = self._function(request).reserved
        return {} if number is None else {"ReservedConcurrentExecutions": number}

    def _reserve(self, request: web.Request, asked: Answer) -> Answer:
        function, number = self._function(request), int(asked["ReservedConcurrentExecutions"])
        self._fits(number, "ReservedConcurrentExecutions")
        function.reserved = number
        return {"ReservedConcurrentExecutions": number}

    def _unreserve(self, request: web.Request, asked: Answer) -> Answer:
        del asked
        self._function(request).reserved = None
        return {}

    def _all_provisioned(self, request: web.Request, asked: Answer) -> Answer:
        del asked
        assert request.query["List"] == "ALL"
        function = self._function(request)
        for config in function.provisioned.values():
            if config.seen and config.status == "IN_PROGRESS" and not self.paused:
                config.status, config.reason = (
                    ("FAILED", self.cannot_keep_warm) if self.cannot_keep_warm else ("READY", "")
                )
            config.seen += 1
        shown = [_shown(f"{function.arn}:{name}", config) for name, config in function.provisioned.items()]
        return {"ProvisionedConcurrencyConfigs": shown}

    def _provision(self, request: web.Request, asked: Answer) -> Answer:
        function, name, _ = self._alias(request)
        number = int(asked["ProvisionedConcurrentExecutions"])
        if function.reserved is None:
            self._fits(number, "ConcurrentExecutions")
        elif number > function.reserved:
            raise Refused(
                "InvalidParameterValueException",
                "Requested Provisioned Concurrency should not be greater than the reservedConcurrentExecution for"
                " function",
            )
        function.provisioned[name] = Provisioned(number)
        return _shown(f"{function.arn}:{name}", function.provisioned[name])

    def _unprovision(self, request: web.Request, asked: Answer) -> Answer:
        del asked
        function, name, _ = self._alias(request)
        function.provisioned.pop(name, None)
        return {}

    def _fits(self, number: int, what: str) -> None:
        if ACCOUNT_LIMIT - number < UNRESERVED_MINIMUM:
            raise Refused(
                "InvalidParameterValueException",
                f"Specified {what} for function decreases account's UnreservedConcurrentExecution below its minimum"
                f" value of [{UNRESERVED_MINIMUM}].",
            )


def _shown(arn: str, config: Provisioned) -> Answer:
    ready = config.requested if config.status == "READY" else 0
    return {
        "FunctionArn": arn,
        "RequestedProvisionedConcurrentExecutions": config.requested,
        "AvailableProvisionedConcurrentExecutions": ready,
        "AllocatedProvisionedConcurrentExecutions": ready,
        "Status": config.status,
        "LastModified": "2026-11-23T15:00:00+0000",
    } | ({"StatusReason": config.reason} if config.reason else {})


def _refusal(refused: Refused) -> web.Response:
    """Lambda has names of its own for what the query services call otherwise."""
    code, status = refused.code, refused.status
    headers, said = {}, {"Type": "User", "Message": str(refused)}
    if code == "Throttling":
        code, status, headers = "TooManyRequestsException", 429, {"Retry-After": "1"}
        said = {"Reason": "CallerRateLimitExceeded", "Type": "User", "message": str(refused)}
    code = "AccessDeniedException" if code == "AccessDenied" else code
    return web.json_response(said, status=status, headers={"x-amzn-errortype": code, **headers})
