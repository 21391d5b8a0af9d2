"""AWS' APIs through boto3 for the targets: calls in threads, bounded in time, writes sent once, errors as ours."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

import boto3
import botocore.session
from botocore.awsrequest import AWSPreparedRequest
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectionError,
    ConnectTimeoutError,
    CredentialRetrievalError,
    EndpointConnectionError,
    HTTPClientError,
    MetadataRetrievalError,
    NoCredentialsError,
    PartialCredentialsError,
    ProfileNotFound,
    ProxyConnectionError,
)
from botocore.parsers import ResponseParserError
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pipeline.domain.capability import RightCheck
from pipeline.domain.errors import (
    ConfigurationError,
    OutcomeUnknown,
    PermanentError,
    PreconditionFailed,
    SreBotError,
    TemporaryError,
)

READ_ATTEMPTS = 2
_THREADS = 8
_THROTTLED = frozenset(
    {
        "BandwidthLimitExceeded",
        "EC2ThrottledException",
        "PriorRequestNotComplete",
        "RequestLimitExceeded",
        "RequestThrottled",
        "RequestThrottledException",
        "SlowDown",
        "Throttling",
        "ThrottlingException",
        "ThrottledException",
        "TooManyRequestsException",
    }
)
"""Refusals that are no verdict on the request; most come with HTTP 400."""
_BUSY = frozenset(
    {
        "ConcurrentUpdateException",
        "ResourceConflictException",  # Lambda: an update of the function is in progress
        "ResourceContention",  # Auto Scaling: an update of the group is pending
        "ResourceContentionFault",
        "ScalingActivityInProgress",
        "ScalingActivityInProgressFault",
        "UpdateInProgressException",
    }
)
"""Refused because something else is under way at the target: nothing was changed, and later it may be taken."""
_CHANGED = frozenset(
    {
        "ActiveInstanceRefreshNotFound",
        "ConflictException",
        "InstanceRefreshInProgress",
        "PreconditionFailedException",  # Lambda: RevisionId
        "ResourceInUse",
        "ResourceInUseException",
        "ResourceInUseFault",
        "ServiceNotActiveException",
    }
)
"""Refused because the target is not what it was read as."""
_DENIED = frozenset({"AuthorizationError", "NotAuthorized", "UnauthorizedException", "UnauthorizedOperation"})
_STRANGER = frozenset(
    {
        "ExpiredToken",
        "ExpiredTokenException",
        "IncompleteSignature",
        "InvalidClientTokenId",
        "InvalidSignatureException",
        "MissingAuthenticationToken",
        "MissingAuthenticationTokenException",
        "RequestExpired",
        "RequestTimeTooSkewed",
        "SignatureDoesNotMatch",
        "UnrecognizedClientException",
    }
)
"""The credentials, or the clock that signs with them, are not accepted."""


class Answer(BaseModel):
    """An answer of AWS by its own field names. Only what is used is read: a service that says more is no fault."""

    model_config = ConfigDict(frozen=True, extra="ignore", populate_by_name=True)


AnswerT = TypeVar("AnswerT", bound=Answer)


class AwsApi:
    """One account and region, for the target of one platform. Credentials are found by boto3's own chain.

    ``service`` is boto3's name of what is called unless a call names another one. ``policy``: the file beside the
    adapters that grants what a refusal lacks. ``region`` and ``profile`` may be left to boto3's chain too;
    ``endpoint_url`` is for a private endpoint, which then serves STS and IAM as well. ``timeout_s`` bounds each call as
    a whole, half of it connecting. After twice that, a call that was given up can no longer reach AWS
    (``flight_s``). Raises ConfigurationError.
    """

    def __init__(
        self,
        service: str,
        *,
        policy: str,
        region: str | None = None,
        profile: str | None = None,
        endpoint_url: str | None = None,
        timeout_s: float = 10.0,
    ) -> None:
        if endpoint_url is not None and not endpoint_url.startswith(("http://", "https://")):
            raise ConfigurationError("the AWS endpoint must start with http:// or https://")
        try:
            core = botocore.session.Session(profile=profile)
            self._session = boto3.Session(region_name=region, botocore_session=core)
        except ProfileNotFound as error:
            raise ConfigurationError(f"AWS: {error}; name one of ~/.aws/config or none") from error
        if self._session.region_name is None:
            raise ConfigurationError("AWS: no region; set AWS_REGION, AWS_DEFAULT_REGION or one in the profile")
        self.region: str = self._session.region_name
        self.flight_s = 2 * timeout_s
        self._service = service
        self._policy = policy
        self._profile = profile
        self._endpoint_url = endpoint_url
        self._timeout_s = timeout_s
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix=f"aws-{service}")
        self._sending = threading.local()
        self._making = threading.Lock()
        self._clients: dict[tuple[str, bool], Any] = {}
        self._principal = ""  # whose policies are simulated, once it has been asked for

    async def read(
        self, operation: str, parameters: Mapping[str, object], answer: type[AnswerT], *, service: str = ""
    ) -> AnswerT:
        """One operation by its Python name, all pages of it.

        Raises TemporaryError (throttled, 5xx, no answer), PreconditionFailed (no such thing) or PermanentError.
        """
        said = await self._call(_Call(service or self._service, operation, dict(parameters), is_write=False))
        try:
            return answer.model_validate(said)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            where = ".".join(str(part) for part in first["loc"])
            raise TemporaryError(f"not an answer of {operation}: {where}: {first['msg']}") from error

    async def write(self, operation: str, parameters: Mapping[str, object], *, service: str = "") -> None:
        """One request, never repeated. Raises as ``Target.apply``; what was answered is read back anyway."""
        await self._call(_Call(service or self._service, operation, dict(parameters), is_write=True))

    async def shown(self, operation: str, parameters: Mapping[str, object], *, service: str = "") -> str:
        """A write as a person reads it: where it goes, the operation in AWS' own spelling, its parameters as JSON."""
        make = partial(self._client, service or self._service, is_write=True)
        client = await asyncio.get_running_loop().run_in_executor(self._threads, make)
        name = client.meta.method_to_api_mapping[operation]
        return f"POST {client.meta.endpoint_url} {name} {json.dumps(parameters)}"

    async def check(
        self, rights: Iterable[str], resource: str, context: Mapping[str, str] | None = None
    ) -> tuple[RightCheck, ...]:
        """Asks IAM's policy simulator whether the account may do these to one resource; nothing is carried out.

        ``rights``: IAM actions such as ``ecs:UpdateService``. ``resource``: an ARN, or ``*``. ``context``: condition
        keys and what they would be, such as ``ecs:cluster``. ``held`` is None where IAM cannot be asked; session
        policies, and policies on the resource itself, are not part of what it simulates.
        Raises TemporaryError (throttled, no answer).
        """
        asked = tuple(rights)
        try:
            if not self._principal:
                identity = await self.read("get_caller_identity", {}, _Identity, service="sts")
                self._principal = _principal(identity.arn)
            simulated = await self.read(
                "simulate_principal_policy",
                {
                    "PolicySourceArn": self._principal,
                    "ActionNames": list(asked),
                    "ResourceArns": [resource],
                    "ContextEntries": [
                        {"ContextKeyName": key, "ContextKeyValues": [value], "ContextKeyType": "string"}
                        for key, value in (context or {}).items()
                    ],
                },
                _Simulated,
                service="iam",
            )
        except PermanentError as error:
            return tuple(RightCheck(right, None, f"IAM cannot be asked: {error}") for right in asked)
        decisions = {one.action.lower(): one for one in simulated.results}
        return tuple(_right(right, resource, decisions.get(right.lower())) for right in asked)

    def cli(self, *words: str) -> tuple[str, ...]:
        """The words of an ``aws`` command line, with what finds the same account, region and endpoint."""
        options = ["--region", self.region]
        if self._profile:
            options += ["--profile", self._profile]
        if self._endpoint_url:
            options += ["--endpoint-url", self._endpoint_url]
        return ("aws", *words, *options)

    def close(self) -> None:
        """Lets go of threads and connections; calls under way end by themselves. Can be called more than once."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        for client in self._clients.values():
            client.close()

    async def _call(self, call: _Call) -> Mapping[str, Any]:
        try:
            async with asyncio.timeout(self._timeout_s):
                return await asyncio.get_running_loop().run_in_executor(self._threads, self._blocking, call)
        except TimeoutError as error:
            call.give_up()
            raise call.no_answer(f"no answer within {self._timeout_s:g} s") from error
        except asyncio.CancelledError:
            call.give_up()
            raise
        except ClientError as error:
            raise self._refusal(call, error) from error
        except (ConnectTimeoutError, EndpointConnectionError, ProxyConnectionError) as error:
            raise TemporaryError(f"AWS cannot be reached, nothing was sent: {_line(error)}") from error
        except (NoCredentialsError, PartialCredentialsError) as error:
            raise PermanentError(f"no AWS credentials, nothing was sent: {_line(error)}") from error
        except (CredentialRetrievalError, MetadataRetrievalError) as error:
            raise TemporaryError(f"AWS credentials cannot be had now, nothing was sent: {_line(error)}") from error
        except (HTTPClientError, ConnectionError, ResponseParserError) as error:
            raise call.no_answer(_line(error)) from error
        except (BotoCoreError, ValueError) as error:
            if call.sent:
                raise call.no_answer(_line(error)) from error
            raise PermanentError(f"{call}: {_line(error)}") from error

    def _blocking(self, call: _Call) -> Any:
        client = self._client(call.service, is_write=call.is_write)
        self._sending.call = call
        if not call.is_write and client.can_paginate(call.operation):
            return client.get_paginator(call.operation).paginate(**call.parameters).build_full_result()
        return getattr(client, call.operation)(**call.parameters)

    def _client(self, service: str, *, is_write: bool) -> Any:
        key = (service, is_write)
        with self._making:  # making one reads files for tenths of a second, and sessions are not for threads
            if key not in self._clients:
                config = Config(
                    retries={"mode": "standard", "total_max_attempts": 1 if is_write else READ_ATTEMPTS},
                    connect_timeout=self._timeout_s / 2,
                    read_timeout=self._timeout_s,
                )
                client = self._session.client(service, endpoint_url=self._endpoint_url, config=config)
                client.meta.events.register("before-send", self._before_send)
                self._clients[key] = client
            return self._clients[key]

    def _before_send(self, request: AWSPreparedRequest, **_: object) -> None:
        """botocore asks here right before each attempt; looking for credentials may have taken long."""
        call: _Call = self._sending.call
        call.send()

    def _refusal(self, call: _Call, error: ClientError) -> SreBotError:
        said, meta = error.response.get("Error", {}), error.response.get("ResponseMetadata", {})
        status, code = int(meta.get("HTTPStatusCode", 0)), str(said.get("Code", ""))
        message = f"{code}: {' '.join(str(said.get('Message', '')).split()) or f'HTTP {status} without an explanation'}"
        if code in _THROTTLED or status == 429:
            return TemporaryError(f"AWS refused {call} for now: {message}", retry_after_s=_retry_after_s(meta))
        if code in _BUSY:
            return TemporaryError(f"AWS refused {call} while something else is under way: {message}")
        if code in _DENIED or code.startswith("AccessDenied"):
            return PermanentError(
                f"the bot's account may not {call}; executors/targets/{self._policy} grants it: {message}"
            )
        if code in _STRANGER:
            return PermanentError(f"AWS does not accept the bot's credentials (for {call}): {message}")
        if code in _CHANGED or "NotFound" in code or code == "NoSuchEntity" or status == 412:
            return PreconditionFailed(f"AWS refused {call}: {message}")
        if status >= 500 or status < 400 or status == 408:
            return call.no_answer(f"{status} {message}")
        return PermanentError(f"AWS refused {call}: {message}")


class _Call:
    """One call on its way. Whether it was sent decides what is known when no answer comes."""

    def __init__(self, service: str, operation: str, parameters: dict[str, Any], *, is_write: bool) -> None:
        self.service, self.operation, self.parameters, self.is_write = service, operation, parameters, is_write
        self.sent = False
        self._given_up = False
        self._lock = threading.Lock()

    def send(self) -> None:
        """Raises when nobody waits for it any more: from then on nothing may leave."""
        with self._lock:
            if self._given_up:
                raise _GivenUp(error="given up before it was sent")
            self.sent = True

    def give_up(self) -> None:
        with self._lock:
            self._given_up = True

    def no_answer(self, why: str) -> SreBotError:
        if not self.sent:
            return TemporaryError(f"{self} was not sent: {why}")
        if self.is_write:
            return OutcomeUnknown(f"{self} was sent to AWS and not answered: {why}")
        return TemporaryError(f"{self} failed: {why}")

    def __str__(self) -> str:
        return f"{self.service}:{''.join(word.capitalize() for word in self.operation.split('_'))}"


class _GivenUp(HTTPClientError):  # type: ignore[misc]  # botocore has no types
    fmt = "{error}"


class _Identity(Answer):
    arn: str = Field(alias="Arn")


class _Decision(Answer):
    action: str = Field(alias="EvalActionName")
    decision: str = Field(alias="EvalDecision")
    missing: tuple[str, ...] = Field(default=(), alias="MissingContextValues")


class _Simulated(Answer):
    results: tuple[_Decision, ...] = Field(alias="EvaluationResults")


def _principal(arn: str) -> str:
    """The user or role whose policies are simulated: a session of a role is not simulated, its role is.

    Raises PermanentError for one that has no policies of its own.
    """
    _, partition, service, _, account, resource = arn.split(":", 5)
    kind, _, rest = resource.partition("/")
    if service == "sts" and kind == "assumed-role":
        # A role's path is not part of the session's ARN; one that has a path is not found, and IAM says so.
        return f"arn:{partition}:iam::{account}:role/{rest.partition('/')[0]}"
    if service == "iam" and kind in ("user", "role"):
        return arn
    raise PermanentError(f"{arn} is neither a user nor a role, and has no policies to simulate")


def _right(right: str, resource: str, found: _Decision | None) -> RightCheck:
    if found is None:
        return RightCheck(right, None, f"IAM said nothing about {resource}")
    said = f"{found.decision} on {resource}"
    if found.decision == "allowed":
        return RightCheck(right, True, said)
    if found.missing:
        return RightCheck(right, None, f"{said} unless {', '.join(found.missing)} says otherwise")
    return RightCheck(right, False, said)


def _retry_after_s(meta: Mapping[str, Any]) -> float | None:
    seconds = str(meta.get("HTTPHeaders", {}).get("retry-after", ""))
    return float(seconds) if seconds.isdecimal() else None


def _line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
