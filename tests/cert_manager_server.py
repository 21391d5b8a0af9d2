"""A Kubernetes API server with cert-manager in it: Certificates, and the controllers that have them issued."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta
from typing import Literal

from tests.kube_objects import Cluster
from tests.kube_server import KubeServer
from tests.kube_store import Key, Object, Resource, owner_uid

GROUP = "cert-manager.io"
LIFETIME = timedelta(days=90)
_REVISION = "cert-manager.io/certificate-revision"

Issuer = Literal["ready", "failing", "absent", "short"]


class CertManager(Cluster):
    """``issuer``: "failing" ends requests as Failed, "absent" answers none, "short" issues what ends with the old one.

    ``ahead`` is how far the cluster's clock is from this machine's. ``secrets`` holds, by Certificate, the serial
    number of what its Secret holds: another once it was issued.
    """

    def __init__(self) -> None:
        super().__init__()
        self.issuer: Issuer = "ready"
        self.ahead = timedelta()
        self.secrets: dict[Key, int] = {}
        self._serials = itertools.count(1)
        self.define(Resource("certificates", GROUP, "v1", "Certificate", builtin=False))
        self.define(Resource("certificaterequests", GROUP, "v1", "CertificateRequest", builtin=False))

    def now(self) -> datetime:
        return datetime.now(UTC).replace(microsecond=0) + self.ahead

    def add(self, key: Key, *, ends_in: timedelta = timedelta(days=2)) -> None:
        """A Certificate that was issued once and ends soon; where one stands already, another in its place."""
        self.objects.pop(key, None)
        plural, namespace, name = key
        ready = {
            "type": "Ready",
            "status": "True",
            "reason": "Ready",
            "message": "Certificate is up to date and has not expired",
            "lastTransitionTime": stamp(self.now() + ends_in - LIFETIME),
            "observedGeneration": 1,
        }
        status = {"conditions": [ready], "revision": 1, "notAfter": stamp(self.now() + ends_in)}
        spec = {"secretName": name, "dnsNames": [f"{name}.example"], "issuerRef": {"name": "ca"}}
        self.create(plural, namespace, name, {"spec": spec, "status": status})
        self.secrets[key] = next(self._serials)

    def condition(self, key: Key, kind: str) -> Object | None:
        return next((one for one in self.objects[key]["status"]["conditions"] if one["type"] == kind), None)

    def set_condition(self, key: Key, kind: str, status: str | None, reason: str = "", message: str = "") -> None:
        """None takes it away."""
        conditions = [one for one in self.objects[key]["status"]["conditions"] if one["type"] != kind]
        if status is not None:
            words = {"reason": reason, "message": message, "lastTransitionTime": stamp(self.now())}
            conditions.append({"type": kind, "status": status, **words})
        self.edit_status(key, conditions=conditions)

    def reconcile(self) -> None:
        super().reconcile()
        for key in self.of("certificates"):
            issuing = self.condition(key, "Issuing")
            if issuing is not None and issuing["status"] == "True":
                self._issue(key)

    def _issue(self, key: Key) -> None:
        """One round: a request for the next revision, and in a later one what became of it.

        As cert-manager's controllers certificates-request-manager, -issuing and -readiness do.
        """
        certificate = self.objects[key]
        revision = certificate["status"].get("revision", 0) + 1
        request = self._request(certificate, revision)
        if request is None:
            said = _ready(self.issuer)
            self.create(
                "certificaterequests",
                key[1],
                f"{key[2]}-{revision}",
                {"status": {"conditions": [_APPROVED, said]}},
                annotations={_REVISION: str(revision)},
                owner=certificate,
            )
        elif self.issuer == "failing":
            failure = request["status"]["conditions"][-1]["message"]
            self.edit_status(key, lastFailureTime=stamp(self.now()), failedIssuanceAttempts=1)
            message = f"The certificate request has failed to complete and will be retried: {failure}"
            self.set_condition(key, "Issuing", "False", "Failed", message)
        elif self.issuer != "absent":
            self.secrets[key] = next(self._serials)
            ends = certificate["status"]["notAfter"] if self.issuer == "short" else stamp(self.now() + LIFETIME)
            self.edit_status(key, revision=revision, notAfter=ends)
            self.set_condition(key, "Issuing", None)

    def _request(self, certificate: Object, revision: int) -> Object | None:
        for key in self.of("certificaterequests"):
            found = self.objects[key]
            if owner_uid(found) == certificate["metadata"]["uid"] and (
                found["metadata"]["annotations"][_REVISION] == str(revision)
            ):
                return found
        return None


class CertManagerServer(KubeServer):
    """``manager`` is its cluster."""

    def __init__(self) -> None:
        self.manager = CertManager()
        super().__init__(self.manager)


_APPROVED = {"type": "Approved", "status": "True", "reason": "cert-manager.io", "message": "Approved"}


def _ready(issuer: Issuer) -> Object:
    status, reason, message = {
        "ready": ("True", "Issued", "Certificate fetched from issuer successfully"),
        "short": ("True", "Issued", "Certificate fetched from issuer successfully"),
        "failing": ("False", "Failed", "the issuer refused: rate limit of new certificates exceeded"),
        "absent": ("False", "Pending", 'Referenced "Issuer" not found: issuer.cert-manager.io "ca" not found'),
    }[issuer]
    return {"type": "Ready", "status": status, "reason": reason, "message": message}


def stamp(moment: datetime) -> str:
    return f"{moment:%Y-%m-%dT%H:%M:%SZ}"
