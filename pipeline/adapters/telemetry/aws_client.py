"""AWS' APIs through boto3: calls in threads, bounded in time and size, with errors as ours. The only user of boto3."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from time import monotonic
from typing import Any, Literal, TypeVar

import boto3
import botocore.session
import urllib3.exceptions
from botocore.awsrequest import AWSRequest, AWSResponse
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectionError,
    CredentialRetrievalError,
    HTTPClientError,
    NoCredentialsError,
    PartialCredentialsError,
    ProfileNotFound,
)
from botocore.httpsession import URLLib3Session
from botocore.utils import get_environ_proxies
from pydantic import ValidationError

from pipeline.adapters.telemetry.guard import Guard
from pipeline.adapters.telemetry.http import MAX_BODY_BYTES, one_line
from pipeline.adapters.telemetry.upstream import Lenient, retry_after_s
from pipeline.domain.errors import ConfigurationError, PermanentError, TemporaryError

Service = Literal["cloudwatch", "logs", "rds", "xray"]
_SERVICES: tuple[Service, ...] = ("cloudwatch", "logs", "rds", "xray")
_ATTEMPTS = 2
_THROTTLED = frozenset(
    {
        "LimitExceededException",  # Logs: too many queries under way at once
        "LimitExceeded",
        "RequestLimitExceeded",
        "RequestThrottled",
        "RequestThrottledException",
        "Throttling",
        "ThrottlingException",
        "ThrottledException",
        "TooManyRequestsException",
    }
)
"""Refusals with HTTP 400 that are no verdict on the request."""


AnswerT = TypeVar("AnswerT", bound=Lenient)


class AwsClient:
    """One account and region. Credentials are found by boto3's own chain (environment, profile, role of the task).

    ``region`` and ``profile`` may be left to that chain too; ``endpoint_url`` is for a private endpoint. ``timeout_s``
    bounds each call as a whole, ``concurrency`` how many are under way to each service. Raises ConfigurationError.
    """

    def __init__(
        self,
        *,
        region: str | None = None,
        profile: str | None = None,
        endpoint_url: str | None = None,
        timeout_s: float = 10.0,
        concurrency: int = 4,
    ) -> None:
        if endpoint_url is not None and not endpoint_url.startswith(("http://", "https://")):
            raise ConfigurationError("the AWS endpoint must start with http:// or https://")
        core = botocore.session.Session(profile=profile)
        try:
            self._session = boto3.Session(region_name=region, botocore_session=core)
            trust = core.get_config_variable("ca_bundle") or True
        except ProfileNotFound as error:
            raise ConfigurationError(f"AWS: {error}; name one of ~/.aws/config or none") from error
        if self._session.region_name is None:
            raise ConfigurationError("AWS: no region; set it here, as AWS_REGION or in the profile")
        self._endpoint_url = endpoint_url
        self._timeout_s = timeout_s
        self._guards = {service: Guard(service, timeout_s=timeout_s, concurrency=concurrency) for service in _SERVICES}
        # More threads than calls: one that was given up may be held for a moment by a server that drips.
        self._threads = ThreadPoolExecutor(concurrency * len(_SERVICES), thread_name_prefix="aws")
        self._transport = _Transport(timeout_s, trust)
        self._making = threading.Lock()
        self._clients: dict[Service, Any] = {}

    async def call(
        self, service: Service, operation: str, parameters: Mapping[str, object], answer: type[AnswerT]
    ) -> AnswerT:
        """One operation by its Python name. Raises TemporaryError (throttled, 5xx, no answer) or PermanentError."""
        async with self._guards[service].call():
            loop = asyncio.get_running_loop()
            try:
                said = await loop.run_in_executor(self._threads, self._blocking, service, operation, parameters)
            except ClientError as error:
                raise _refusal(error) from error
            except _TooLarge as error:
                raise PermanentError(str(error)) from error
            except (NoCredentialsError, PartialCredentialsError) as error:
                raise PermanentError(f"no AWS credentials: {one_line(str(error))}") from error
            except (HTTPClientError, ConnectionError, CredentialRetrievalError) as error:
                raise TemporaryError(one_line(str(error))) from error
            except (BotoCoreError, ValueError) as error:
                raise PermanentError(f"{operation}: {one_line(str(error))}") from error
            try:
                return answer.model_validate(said)
            except ValidationError as error:
                first = error.errors(include_url=False, include_input=False)[0]
                where = ".".join(str(part) for part in first["loc"])
                raise PermanentError(f"not an answer of {operation}: {where}: {first['msg']}") from error

    async def close(self) -> None:
        """Lets go of threads and connections; calls under way end by themselves. Can be called more than once."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._transport.close()

    def _blocking(self, service: Service, operation: str, parameters: Mapping[str, object]) -> object:
        self._transport.begin()
        return getattr(self._client(service), operation)(**parameters)

    def _client(self, service: Service) -> Any:
        with self._making:  # making one reads files for tenths of a second, and sessions are not for threads
            if service not in self._clients:
                config = Config(
                    retries={"mode": "standard", "total_max_attempts": _ATTEMPTS},
                    connect_timeout=self._timeout_s,
                    read_timeout=self._timeout_s,
                )
                client = self._session.client(service, endpoint_url=self._endpoint_url, config=config)
                client.meta.events.register("before-send", self._transport.send)
                self._clients[service] = client
            return self._clients[service]


class _TooLarge(Exception):
    """The answer is larger than anything that was asked for."""


class _Dropped(HTTPClientError):  # type: ignore[misc]  # botocore has no types
    fmt = "{error}"


class _Transport:
    """Sends botocore's requests, and reads no longer and no more than agreed: its own time-outs are per read."""

    def __init__(self, timeout_s: float, trust: str | bool) -> None:
        self._timeout_s = timeout_s
        self._trust = trust
        self._until = threading.local()
        self._http: dict[str, URLLib3Session] = {}
        self._making = threading.Lock()

    def begin(self) -> None:
        """A call starts in this thread; its attempts share the time."""
        self._until.s = monotonic() + self._timeout_s

    def send(self, request: AWSRequest, **_: object) -> AWSResponse:
        """Handler of botocore's ``before-send``: what it returns is taken for the answer."""
        request.stream_output = True
        response = self._session(request.url).send(request)
        try:
            body = self._read(response)
        except urllib3.exceptions.HTTPError as error:
            raise _Dropped(error=error) from error
        finally:
            response.raw.close()
        return AWSResponse(request.url, response.status_code, response.headers, _Body(body))

    def _read(self, response: AWSResponse) -> bytes:
        body = bytearray()
        while chunk := response.raw.read1(65536):
            body += chunk
            if len(body) > MAX_BODY_BYTES:
                raise _TooLarge(f"the answer is larger than {MAX_BODY_BYTES / 2**20:g} MiB")
            if monotonic() > self._until.s:
                raise _Dropped(error=f"no answer within {self._timeout_s:g} s")
        length = response.headers.get("Content-Length", "")
        if length.isdigit() and len(body) < int(length):
            raise _Dropped(error="the connection was closed within the answer")
        return bytes(body)

    def close(self) -> None:
        for session in self._http.values():
            session.close()

    def _session(self, url: str) -> URLLib3Session:
        host = url.split("/", 3)[2]
        with self._making:
            if host not in self._http:
                self._http[host] = URLLib3Session(
                    verify=self._trust, proxies=get_environ_proxies(url), timeout=self._timeout_s
                )
            return self._http[host]


class _Body:
    """What AWSResponse expects of a connection: its bytes, in one piece."""

    def __init__(self, body: bytes) -> None:
        self._body = body

    def stream(self) -> Iterator[bytes]:
        yield self._body


def _refusal(error: ClientError) -> TemporaryError | PermanentError:
    said, meta = error.response.get("Error", {}), error.response.get("ResponseMetadata", {})
    status, code = meta.get("HTTPStatusCode", 0), said.get("Code", "")
    message = f"{code}: {one_line(said.get('Message', '')) or f'HTTP {status} without an explanation'}"
    if status == 429 or status >= 500 or code in _THROTTLED:
        return TemporaryError(message, retry_after_s=retry_after_s(meta.get("HTTPHeaders", {}).get("retry-after", "")))
    return PermanentError(message)
