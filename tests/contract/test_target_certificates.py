"""What is cert-manager's own: rights, conditions, issuers that fail or never answer, the cluster's clock."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import yaml

import executors.targets
from pipeline.domain.action import RenewCertificate, ScaleTo
from pipeline.domain.errors import PermanentError, PreconditionFailed, TemporaryError
from pipeline.domain.execution import Finding, Intent
from pipeline.domain.plan import TargetRef
from tests.cert_manager_server import stamp
from tests.contract.targets.places import as_soon_as_readable, intent_for, until
from tests.contract.targets.stand_cert_manager import KEY, CertManagerStand, cert_manager_stand
from tests.faults import Fault
from tests.kube_server import rights

RENEW = RenewCertificate()
GRANTED = {
    ("get", "cert-manager.io", "certificates"),
    ("patch", "cert-manager.io", "certificates/status"),
    ("list", "cert-manager.io", "certificaterequests"),
}
"""The golden list: a right added to the role, or a call that needs another one, has to be written here too."""


@pytest.fixture
async def managed() -> AsyncIterator[CertManagerStand]:
    async with cert_manager_stand() as stand:
        yield stand


async def _asked(stand: CertManagerStand) -> tuple[TargetRef, Intent]:
    ref = await stand.target.resolve(stand.address)
    intent = intent_for(await stand.target.observe(ref))
    await stand.target.apply(ref, RENEW, intent)
    return ref, intent


def _ready(stand: CertManagerStand) -> object:
    return stand.manager.condition(KEY, "Ready")


def test_the_shipped_role_grants_the_golden_list_and_no_secrets() -> None:
    folder = Path(next(iter(executors.targets.__path__)))
    role, binding = yaml.safe_load_all((folder / "cert-manager-rbac.yaml").read_text())
    assert (role["kind"], binding["kind"]) == ("Role", "RoleBinding")
    assert binding["roleRef"]["name"] == role["metadata"]["name"]
    assert rights(role["rules"]) == GRANTED


async def test_the_shipped_role_is_enough_and_not_more(managed: CertManagerStand) -> None:
    managed.server.granted = GRANTED
    managed.manager.issuer = "absent"
    ref, intent = await _asked(managed)
    assert await managed.target.find(ref, RENEW, intent) is Finding.APPLIED
    await until(lambda: _has_request(managed))
    _a_minute_ago(managed)
    with pytest.raises(TemporaryError):
        await managed.target.settled(ref, RENEW)
    assert all(one.held for one in await managed.target.check(ref))
    assert managed.server.used() == GRANTED


def _a_minute_ago(stand: CertManagerStand) -> None:
    """When it was asked for, as the mark in the status says."""
    conditions = [dict(one) for one in stand.manager.objects[KEY]["status"]["conditions"]]
    for one in conditions:
        if one["type"] == "sre-bot/renewal":
            one["lastTransitionTime"] = stamp(datetime.now(UTC) - timedelta(minutes=1))
    stand.manager.edit_status(KEY, conditions=conditions)


async def _has_request(stand: CertManagerStand) -> bool:
    return bool(stand.manager.of("certificaterequests"))


async def test_read_only_rights_are_told_before_and_refused_with_the_servers_words(managed: CertManagerStand) -> None:
    managed.server.granted = GRANTED - {("patch", "cert-manager.io", "certificates/status")}
    ref = await managed.target.resolve(managed.address)
    checked = {one.right: one.held for one in await managed.target.check(ref)}
    assert checked == {
        "get certificates.cert-manager.io in namespace shop": True,
        "list certificaterequests.cert-manager.io in namespace shop": True,
        "patch certificates.cert-manager.io/status in namespace shop": False,
    }
    with pytest.raises(PermanentError, match=r"cert-manager-rbac\.yaml grants it") as caught:
        await managed.target.apply(ref, RENEW, intent_for(await managed.target.observe(ref)))
    assert 'cannot patch resource "certificates/status"' in str(caught.value)


async def test_renewal_is_what_cmctl_does_and_nothing_else(managed: CertManagerStand) -> None:
    managed.server.paused = True
    ready, spec = _ready(managed), dict(managed.manager.objects[KEY]["spec"])
    ref = await managed.target.resolve(managed.address)
    before = await managed.target.observe(ref)
    (shown,) = await managed.target.calls(ref, RENEW, before.generation)
    assert "accepted by the API server" in await managed.target.rehearse(ref, RENEW, before.generation)
    assert managed.manager.condition(KEY, "Issuing") is None, "rehearsed, not done"
    intent = intent_for(before)
    await managed.target.apply(ref, RENEW, intent)
    issuing = managed.manager.condition(KEY, "Issuing")
    assert issuing is not None
    assert (issuing["status"], issuing["reason"]) == ("True", "ManuallyTriggered")
    assert f"execution {intent.execution_id}, step 1, fence {intent.fence}" in issuing["message"]
    assert (_ready(managed), managed.manager.objects[KEY]["spec"]) == (ready, spec)
    after = await managed.target.observe(ref)
    assert after.generation == before.generation, "a status moves no generation"
    assert managed.manager.secrets[KEY] == 1, "the secret is what it was"
    sent = json.loads(managed.proxy.writes[-1].body)
    planned = json.loads(shown[shown.index("{") : shown.rindex("}") + 1])
    assert [one["type"] for one in planned["status"]["conditions"]] == [
        one["type"] for one in sent["status"]["conditions"]
    ]
    assert planned["metadata"] == sent["metadata"]
    assert "is issuing it already" in after.refuses["renew"]
    with pytest.raises(PreconditionFailed, match="is issuing it already"):
        await managed.target.apply(ref, RENEW, intent_for(after))
    assert managed.writes() == 2, "the rehearsal and the renewal"


async def test_settled_when_issued_ready_and_later(managed: CertManagerStand) -> None:
    ref = await managed.target.resolve(managed.address)
    before = await managed.target.observe(ref)
    await managed.target.apply(ref, RENEW, intent_for(before))
    await until(lambda: managed.target.settled(ref, RENEW))
    after = await managed.target.observe(ref)
    assert after.not_after is not None
    assert before.not_after is not None
    assert after.not_after > before.not_after
    assert (before.rollout, after.rollout, managed.manager.secrets[KEY]) == ("1", "2", 2)
    managed.manager.set_condition(KEY, "Ready", "False", reason="DoesNotExist", message="no secret")
    assert not await managed.target.settled(ref, RENEW)


async def test_a_failing_issuer_is_said_and_the_secret_is_untouched(managed: CertManagerStand) -> None:
    managed.manager.issuer = "failing"
    ref, intent = await _asked(managed)

    async def failed() -> bool:
        issuing = managed.manager.condition(KEY, "Issuing")
        return issuing is not None and issuing["status"] == "False"

    await until(failed)
    with pytest.raises(PermanentError, match=r"could not issue shop/shop-tls: Failed: .*rate limit of new"):
        await managed.target.settled(ref, RENEW)
    assert await managed.target.find(ref, RENEW, intent) is Finding.APPLIED
    assert managed.manager.secrets[KEY] == 1


async def test_an_issuer_that_never_answers_is_said_after_a_while(managed: CertManagerStand) -> None:
    managed.manager.issuer = "absent"
    ref, _ = await _asked(managed)
    await until(lambda: _has_request(managed))
    assert not await managed.target.settled(ref, RENEW)
    _a_minute_ago(managed)
    with pytest.raises(TemporaryError, match='still issuing it; its request: Pending: Referenced "Issuer" not found'):
        await managed.target.settled(ref, RENEW)


async def test_a_certificate_that_ends_no_later_is_no_success(managed: CertManagerStand) -> None:
    managed.manager.issuer = "short"
    ref, _ = await _asked(managed)

    async def issued() -> bool:
        return bool(managed.manager.secrets[KEY] == 2)

    await until(issued)
    assert not await managed.target.settled(ref, RENEW)
    _a_minute_ago(managed)
    with pytest.raises(TemporaryError, match=r"revision 2 ends .*, no later than the one before"):
        await managed.target.settled(ref, RENEW)


async def test_a_clock_that_is_behind_asks_after_the_last_failure_even_so(managed: CertManagerStand) -> None:
    managed.server.paused = True
    managed.manager.ahead = timedelta(hours=3)
    failed_at = managed.manager.now()
    managed.manager.edit_status(KEY, lastFailureTime=stamp(failed_at))
    await _asked(managed)
    issuing = managed.manager.condition(KEY, "Issuing")
    assert issuing is not None
    assert datetime.fromisoformat(issuing["lastTransitionTime"]) == failed_at + timedelta(seconds=1)


async def test_what_was_never_issued_is_refused(managed: CertManagerStand) -> None:
    managed.manager.edit_status(KEY, revision=None, notAfter=None)
    managed.manager.set_condition(KEY, "Ready", "False", reason="DoesNotExist", message="no such secret")
    ref = await managed.target.resolve(managed.address)
    state = await managed.target.observe(ref)
    assert (state.not_after, state.rollout) == (None, "")
    assert state.refuses["renew"] == "cert-manager has never issued it (DoesNotExist: no such secret)"
    with pytest.raises(PreconditionFailed, match="never issued it"):
        await managed.target.apply(ref, RENEW, intent_for(state))


async def test_renewed_by_another_meanwhile_is_another_certificate(managed: CertManagerStand) -> None:
    ref = await managed.target.resolve(managed.address)
    intent = intent_for(await managed.target.observe(ref))
    managed.manager.edit_status(KEY, revision=2)
    with pytest.raises(PreconditionFailed, match=r"at generation and revision 1\.2, not 1\.1"):
        await managed.target.apply(ref, RENEW, intent)
    assert await managed.target.find(ref, RENEW, intent) is Finding.NOT_APPLIED
    assert managed.writes() == 0


async def test_a_status_that_changes_between_read_and_write_makes_the_server_refuse(managed: CertManagerStand) -> None:
    ref = await managed.target.resolve(managed.address)
    intent = intent_for(await managed.target.observe(ref))
    managed.proxy.strike(Fault.HELD)
    sending = asyncio.create_task(managed.target.apply(ref, RENEW, intent))
    await managed.proxy.held.wait()
    managed.manager.edit_status(KEY, renewalTime="2030-01-01T00:00:00Z")
    managed.proxy.release()
    with pytest.raises(PreconditionFailed, match="the object has been modified"):
        await sending
    assert managed.manager.condition(KEY, "Issuing") is None


async def test_find_tells_lost_from_replaced(managed: CertManagerStand) -> None:
    ref = await managed.target.resolve(managed.address)
    lost = intent_for(await managed.target.observe(ref))
    brief = managed.connect(timeout_s=0.1)
    assert await as_soon_as_readable(lambda: brief.find(ref, RENEW, lost)) is Finding.NOT_APPLIED
    later = intent_for(await managed.target.observe(ref))
    managed.server.paused = True
    await managed.target.apply(ref, RENEW, later)
    assert await managed.target.find(ref, RENEW, lost) is Finding.UNKNOWN, "ours may have stood there"
    assert await managed.target.find(ref, RENEW, replace(later, step=2)) is Finding.UNKNOWN
    assert await managed.target.find(ref, RENEW, later) is Finding.APPLIED


async def test_only_listed_namespaces_and_only_renewal(managed: CertManagerStand) -> None:
    with pytest.raises(PermanentError, match=r"kube-system is not one that the bot may touch \(allowed: shop\)"):
        await managed.target.resolve(managed.address.model_copy(update={"namespace": "kube-system"}))
    assert managed.proxy.requests == []
    ref = await managed.target.resolve(managed.address)
    with pytest.raises(PermanentError, match="cert_manager has no scale to"):
        await managed.target.apply(ref, ScaleTo(replicas=2), intent_for(await managed.target.observe(ref)))
    action = await managed.action(await managed.target.observe(ref))
    assert managed.target.command(ref, action) == "cmctl renew shop-tls --namespace shop"
