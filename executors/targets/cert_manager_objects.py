"""What is read of cert-manager's objects."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import AwareDatetime

from executors.targets.kubernetes_api import Foreign, Right
from executors.targets.kubernetes_objects import Meta

_GROUP = "cert-manager.io"
_REVISION = "cert-manager.io/certificate-revision"


def certificates_path(namespace: str, name: str) -> str:
    return f"/apis/{_GROUP}/v1/namespaces/{namespace}/certificates/{name}"


def requests_path(namespace: str) -> str:
    return f"/apis/{_GROUP}/v1/namespaces/{namespace}/certificaterequests"


def reads(namespace: str) -> tuple[Right, Right]:
    """A Certificate, and the requests to its issuer."""
    return (
        Right("get", f"certificates.{_GROUP}", namespace),
        Right("list", f"certificaterequests.{_GROUP}", namespace),
    )


def renews(namespace: str) -> Right:
    return Right("patch", f"certificates.{_GROUP}/status", namespace)


class Condition(Foreign):
    type: str = ""
    status: str = ""
    reason: str = ""
    message: str = ""
    last_transition_time: AwareDatetime | None = None

    @property
    def words(self) -> str:
        return ": ".join(part for part in (self.reason, self.message) if part)


class _Status(Foreign):
    """``conditions`` are kept word for word: a merge patch of one of them sends them all."""

    conditions: tuple[Mapping[str, Any], ...] = ()
    revision: int = 0
    not_after: AwareDatetime | None = None
    last_failure_time: AwareDatetime | None = None


class Certificate(Foreign):
    """``revision``: of what was issued last; 0 while nothing was."""

    metadata: Meta
    status: _Status = _Status()

    def condition(self, kind: str) -> Condition:
        """An empty one when there is none."""
        found = (one for one in self.status.conditions if one.get("type") == kind)
        return Condition.model_validate(next(found, {}))


class _RequestStatus(Foreign):
    conditions: tuple[Condition, ...] = ()


class _Request(Foreign):
    metadata: Meta
    status: _RequestStatus = _RequestStatus()


class Requests(Foreign):
    items: tuple[_Request, ...]

    def say(self, certificate: Certificate) -> str:
        """What the one for its next revision says of itself; empty when there is none, or it says nothing yet."""
        revision = str(certificate.status.revision + 1)
        for one in self.items:
            of_it = one.metadata.owner_uid == certificate.metadata.uid
            if of_it and one.metadata.annotations.get(_REVISION) == revision:
                return "; ".join(condition.words for condition in one.status.conditions if condition.type != "Approved")
        return ""
