"""Certificates that cert-manager keeps in a Kubernetes cluster."""

from __future__ import annotations

import re
import shlex
from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from kubernetes.client import Configuration

from executors.targets.cert_manager_objects import (
    Certificate,
    Requests,
    certificates_path,
    reads,
    renews,
    requests_path,
)
from executors.targets.kubernetes_api import MERGE, KubernetesApi, Write
from executors.targets.late import wait_out
from executors.targets.offers import not_offered
from pipeline.domain.action import Action, ManualAction, Operation, RenewAction, RenewCertificate
from pipeline.domain.capability import Declaration, Offer, RightCheck
from pipeline.domain.catalogue import WorkloadAddress
from pipeline.domain.errors import PermanentError, PreconditionFailed, TemporaryError
from pipeline.domain.execution import Finding, Intent
from pipeline.domain.plan import TargetRef, TargetState
from pipeline.ports.targets import Target

_PLATFORM = "cert_manager"
_PRIVILEGES = "cert-manager-rbac.yaml"
_EACH = "NAMESPACE"
_MARK = "sre-bot/renewal"
"""The condition of ours. cert-manager takes Issuing away when it is done, and leaves others alone."""
_MARKED = re.compile(
    r"execution (\d+), step (\d+), fence (\d+), generation (\S+); before it revision (\d+) until (\S+)"
)
_SLOW_S = 30.0
"""After this long without a new certificate, ``settled`` says what it waits for."""


@dataclass(frozen=True, slots=True)
class _Mark:
    """What the last renewal of ours left in the status."""

    execution: int
    step: int
    fence: int
    generation: str
    revision: int
    not_after: datetime


class CertManagerTarget(Target):
    """The Certificates of the listed namespaces; everything else is refused before anything is sent.

    ``generation`` is ``metadata.generation``, which the server raises with each change of the spec, and after a dot
    ``status.revision``, which cert-manager raises with each certificate that it issued: what was to be renewed is then
    another one. Nothing else in the status moves it.

    A renewal is what ``cmctl renew`` does: the condition Issuing=True with the reason ManuallyTriggered, written to
    the status. Secrets are never read: that cert-manager has replaced one is seen by ``status.revision`` and
    ``status.notAfter``, which it takes from the certificate in the Secret.
    """

    def __init__(self, configuration: Configuration, *, namespaces: Collection[str], timeout_s: float = 10.0) -> None:
        self._api = KubernetesApi(configuration, timeout_s=timeout_s, privileges=_PRIVILEGES)
        self._namespaces = frozenset(namespaces)
        # A call may still be connecting when it is given up, and then the server needs its time too.
        self._flight_s = 2 * timeout_s

    @property
    def platform(self) -> str:
        return _PLATFORM

    def declares(self) -> Declaration:
        guarded = "uid and resourceVersion of the object whose generation and revision were read"
        return Declaration(
            offers=(Offer("renew", False, (str(renews(_EACH)),), guarded),),
            observes=(
                "until when the certificate in the Secret is valid, and its revision",
                "the conditions Ready and Issuing",
                "what the issuer says of a request that takes long",
            ),
            reads=tuple(str(right) for right in reads(_EACH)),
            privileges=_PRIVILEGES,
            settles_s=600.0,
        )

    async def check(self, ref: TargetRef) -> tuple[RightCheck, ...]:
        self._allowed(ref.namespace)
        rights = (*reads(ref.namespace), renews(ref.namespace))
        checks = tuple([await self._api.may(right) for right in rights])
        if checks[0].held:
            await self._certificate(ref)
        return checks

    async def resolve(self, address: WorkloadAddress) -> TargetRef:
        found = await self._named(address.namespace, address.name)
        if found is None:
            where = f"{address.namespace}/{address.name}"
            raise PermanentError(f"there is no Certificate {where}, or no cert-manager in this cluster")
        uid = found.metadata.uid
        return TargetRef(platform="cert_manager", namespace=address.namespace, name=address.name, uid=uid)

    async def observe(self, ref: TargetRef) -> TargetState:
        certificate = await self._certificate(ref)
        obstacle = _obstacle(certificate)
        return TargetState(
            ref=ref,
            generation=_generation(certificate),
            rollout=str(certificate.status.revision or ""),
            not_after=certificate.status.not_after,
            refuses={"renew": obstacle} if obstacle else {},
        )

    async def apply(self, ref: TargetRef, operation: Operation, intent: Intent) -> str:
        certificate = await self._renewable(ref, operation, intent.generation)
        mark = _mark_of(certificate)
        # The generation too: a bot with another database may have used the same execution id before.
        if mark is not None and (mark.execution, mark.generation) == (intent.execution_id, intent.generation):
            raise PreconditionFailed(
                f"{ref.describe()} bears step {mark.step} of this execution already, sent with fence {mark.fence}"
            )
        words = _words(str(intent.execution_id), str(intent.step), str(intent.fence), certificate)
        await self._api.write(_issuing(ref, certificate, _asked_at(certificate), words))
        return f"asked cert-manager to issue {ref.describe()} anew (revision {certificate.status.revision + 1})"

    async def calls(self, ref: TargetRef, operation: Operation, generation: str) -> tuple[str, ...]:
        _only_renewal(operation)
        certificate = await self._certificate(ref)
        words = _words("<execution>", "<step>", "<fence>", certificate)
        sent = self._api.shown(_issuing(ref, certificate, "<now>", words))
        return (f"{sent} only while the Certificate {ref.describe()} is at generation and revision {generation}",)

    async def rehearse(self, ref: TargetRef, operation: Operation, generation: str) -> str:
        certificate = await self._renewable(ref, operation, generation)
        words = _words("<execution>", "<step>", "<fence>", certificate)
        await self._api.write(_issuing(ref, certificate, _asked_at(certificate), words), rehearsed=True)
        return "accepted by the API server (dryRun=All); its issuer was not asked"

    async def settled(self, ref: TargetRef, operation: Operation) -> bool:
        """Whether cert-manager has issued what we asked for last, it is Ready, and it ends later than the one before.

        Raises PermanentError with cert-manager's words when the issuance failed (the issuer refused, the request was
        denied), and TemporaryError with what it waits for when it takes longer than half a minute.
        """
        _only_renewal(operation)
        certificate = await self._certificate(ref)
        mark = _mark_of(certificate)
        if mark is None:
            return False
        issuing = certificate.condition("Issuing")
        if certificate.status.revision <= mark.revision and issuing.status == "False":
            raise PermanentError(f"cert-manager could not issue {ref.describe()}: {issuing.words}")
        waiting = _waiting(certificate, mark)
        since = certificate.condition(_MARK).last_transition_time
        if waiting and since is not None and (datetime.now(UTC) - since).total_seconds() > _SLOW_S:
            if issuing.status == "True":
                _, listing = reads(ref.namespace)
                requests = await self._api.read_all(listing, requests_path(ref.namespace), Requests)
                waiting += f"; its request: {requests.say(certificate) or 'says nothing'}"
            raise TemporaryError(f"{ref.describe()}: {waiting}")
        return not waiting

    async def find(self, ref: TargetRef, operation: Operation, intent: Intent) -> Finding:
        """What came of a dispatched renewal, by a condition of ours that is written together with Issuing=True.

        Ours on the Certificate is the proof that it was applied. Without it, it is NOT_APPLIED when the generation has
        moved on, since the server refuses the resourceVersion that ours would carry, or once no request can be under
        way any more (twice the time-out of a call). The one of a later execution may have replaced ours: UNKNOWN, as
        when the Certificate itself was deleted or recreated.
        """
        _only_renewal(operation)
        return await wait_out(lambda: self._look(ref, intent), flight_s=self._flight_s)

    def command(self, ref: TargetRef, action: Action) -> str:
        match action:
            case RenewAction():
                return shlex.join(("cmctl", "renew", ref.name, "--namespace", ref.namespace))
            case ManualAction(command=command):
                return command
            case _:
                raise not_offered(_PLATFORM, action)

    async def close(self) -> None:
        self._api.close()

    async def _look(self, ref: TargetRef, intent: Intent) -> Finding | None:
        try:
            certificate = await self._certificate(ref)
        except PreconditionFailed:
            return Finding.UNKNOWN
        mark = _mark_of(certificate)
        if mark is not None:
            if (mark.execution, mark.step, mark.generation) == (intent.execution_id, intent.step, intent.generation):
                return Finding.APPLIED
            if mark.execution >= intent.execution_id:
                return Finding.UNKNOWN
        return None if _generation(certificate) == intent.generation else Finding.NOT_APPLIED

    async def _renewable(self, ref: TargetRef, operation: Operation, generation: str) -> Certificate:
        _only_renewal(operation)
        certificate = await self._certificate(ref)
        now = _generation(certificate)
        if now != generation:
            raise PreconditionFailed(
                f"{ref.describe()} has changed: it is at generation and revision {now}, not {generation}"
            )
        if obstacle := _obstacle(certificate):
            raise PreconditionFailed(f"{ref.describe()} cannot be renewed now: {obstacle}")
        return certificate

    async def _certificate(self, ref: TargetRef) -> Certificate:
        """Raises PreconditionFailed when it is not the one that ``ref`` means."""
        certificate = await self._named(ref.namespace, ref.name)
        if certificate is None or certificate.metadata.uid != ref.uid:
            now = f": {certificate.metadata.uid} bears its name now" if certificate else ""
            raise PreconditionFailed(f"the Certificate {ref.describe()} with uid {ref.uid} is gone{now}")
        return certificate

    async def _named(self, namespace: str, name: str) -> Certificate | None:
        self._allowed(namespace)
        getting, _ = reads(namespace)
        return await self._api.read(getting, certificates_path(namespace, name), Certificate)

    def _allowed(self, namespace: str) -> None:
        if namespace not in self._namespaces:
            allowed = ", ".join(sorted(self._namespaces)) or "none"
            raise PermanentError(f"the namespace {namespace} is not one that the bot may touch (allowed: {allowed})")


def _only_renewal(operation: Operation) -> None:
    match operation:
        case RenewCertificate():
            return
        case _:
            raise not_offered(_PLATFORM, operation)


def _generation(certificate: Certificate) -> str:
    return f"{certificate.metadata.generation}.{certificate.status.revision}"


def _obstacle(certificate: Certificate) -> str:
    """Why it cannot be renewed as it stands; empty when it can."""
    issuing = certificate.condition("Issuing")
    if certificate.metadata.deletion_timestamp is not None:
        return "it is being deleted"
    if issuing.status == "True":
        began = issuing.last_transition_time
        since = f" since {began:%Y-%m-%d %H:%M:%S} UTC" if began else ""
        return f"cert-manager is issuing it already{since} ({issuing.words})"
    if certificate.status.not_after is None or not certificate.status.revision:
        ready = certificate.condition("Ready")
        return f"cert-manager has never issued it ({ready.words or 'it does not say why'})"
    return ""


def _asked_at(certificate: Certificate) -> str:
    """By this machine's clock, as cmctl does, and after the last failure even so: cert-manager compares the two, and
    takes a request from before it for the one that failed."""
    now, failed_at = datetime.now(UTC), certificate.status.last_failure_time
    return _stamp(now if failed_at is None else max(now, failed_at + timedelta(seconds=1)))


def _stamp(moment: datetime) -> str:
    return f"{moment:%Y-%m-%dT%H:%M:%SZ}"


def _words(execution: str, step: str, fence: str, certificate: Certificate) -> str:
    until = _stamp(certificate.status.not_after) if certificate.status.not_after else "never"
    return (
        f"execution {execution}, step {step}, fence {fence}, generation {_generation(certificate)};"
        f" before it revision {certificate.status.revision} until {until}"
    )


def _issuing(ref: TargetRef, certificate: Certificate, asked_at: str, words: str) -> Write:
    """A merge patch replaces the list of conditions as a whole; its resourceVersion keeps that from losing any."""
    meta = certificate.metadata
    ours = {"status": "True", "lastTransitionTime": asked_at, "observedGeneration": meta.generation}
    message = f"Certificate re-issuance triggered by sre-bot: {words}"
    body = {
        "metadata": {"uid": meta.uid, "resourceVersion": meta.resource_version},
        "status": {
            "conditions": [
                *(dict(one) for one in certificate.status.conditions if one.get("type") not in ("Issuing", _MARK)),
                {"type": "Issuing", "reason": "ManuallyTriggered", "message": message, **ours},
                {"type": _MARK, "reason": "Requested", "message": words, **ours},
            ]
        },
    }
    path = f"{certificates_path(ref.namespace, ref.name)}/status"
    return Write(renews(ref.namespace), "PATCH", path, MERGE, body)


def _mark_of(certificate: Certificate) -> _Mark | None:
    marked = _MARKED.fullmatch(certificate.condition(_MARK).message)
    if marked is None:
        return None
    execution, step, fence, generation, revision, until = marked.groups()
    try:
        not_after = datetime.fromisoformat(until)
    except ValueError:
        return None
    return _Mark(int(execution), int(step), int(fence), generation, int(revision), not_after)


def _waiting(certificate: Certificate, mark: _Mark) -> str:
    """What is still to come before the renewal is over; empty when nothing is."""
    status, ready = certificate.status, certificate.condition("Ready")
    if status.revision <= mark.revision:
        return "cert-manager is still issuing it"
    if ready.status != "True":
        return f"revision {status.revision} is issued and not ready ({ready.words})"
    if status.not_after is None or status.not_after <= mark.not_after:
        ends = _stamp(status.not_after) if status.not_after else "at no known time"
        return f"revision {status.revision} ends {ends}, no later than the one before ({_stamp(mark.not_after)})"
    return ""
