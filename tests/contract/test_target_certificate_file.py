"""What is certificate files' own: authorities, keys, names, links, clocks, and what a crash leaves behind."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import stat
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509

from executors.targets.certificate_file import CertificateFileTarget
from executors.targets.certificate_file_store import CertificateFile, Entry, Permit
from pipeline.domain.action import RenewAction, RenewCertificate, RollBackAction, RollBackTo
from pipeline.domain.catalogue import WorkloadAddress
from pipeline.domain.errors import PermanentError, PreconditionFailed, TemporaryError
from pipeline.domain.execution import Finding, Intent
from pipeline.ports.targets import Target
from tests.contract.targets.places import as_soon_as_readable, intent_for
from tests.contract.targets.stand_certificate_file import (
    FOLDER,
    FileStand,
    Pair,
    an_authority,
    certificate_file_stand,
    key_pem,
    make_certificate,
    pem,
)

RENEW = RenewCertificate()


@pytest.fixture
async def filed() -> AsyncIterator[FileStand]:
    async with certificate_file_stand() as stand:
        yield stand


def _alone(folder: Path, authority: Path | None = None) -> CertificateFileTarget:
    return CertificateFileTarget({FOLDER: folder}, authority=authority, timeout_s=20.0)


async def _renewed(target: Target) -> x509.Certificate:
    """Renews web.pem and reads it back."""
    ref = await target.resolve(FileStand.address)
    await target.apply(ref, RENEW, intent_for(await target.observe(ref)))
    assert await target.settled(ref, RENEW)
    folder = target._folders[FOLDER]  # type: ignore[attr-defined]
    return x509.load_pem_x509_certificate((folder / "web.pem").read_bytes())


async def _refused(target: Target, words: str) -> None:
    """Said beforehand, refused when tried, and the file is what it was."""
    path = target._folders[FOLDER] / "web.pem"  # type: ignore[attr-defined]
    before = path.read_bytes()
    ref = await target.resolve(FileStand.address)
    state = await target.observe(ref)
    assert words in state.refuses["renew"]
    with pytest.raises(PermanentError) as caught:
        await target.apply(ref, RENEW, intent_for(state))
    assert words in str(caught.value)
    assert path.read_bytes() == before
    assert sorted(one.name for one in path.parent.iterdir() if one.name.startswith(".")) == []


async def test_the_successor_is_for_the_same_and_checked(filed: FileStand) -> None:
    filed.live.chmod(0o640)
    old_content, old = filed.live.read_bytes(), x509.load_pem_x509_certificate(filed.live.read_bytes())
    new = await _renewed(filed.target)
    new.verify_directly_issued_by(an_authority()[0])
    assert (new.subject, new.public_key()) == (old.subject, old.public_key()), "the key elsewhere is still its key"
    for kind in (x509.SubjectAlternativeName, x509.ExtendedKeyUsage, x509.BasicConstraints):
        assert new.extensions.get_extension_for_class(kind) == old.extensions.get_extension_for_class(kind)
    now = datetime.now(UTC)
    assert new.not_valid_before_utc < now
    assert timedelta(days=89) < new.not_valid_after_utc - now <= timedelta(days=90)
    assert stat.S_IMODE(filed.live.stat().st_mode) == 0o640
    kept = filed.folder / "web.pem.previous"
    assert (kept.read_bytes(), stat.S_IMODE(kept.stat().st_mode)) == (old_content, 0o640)
    assert sorted(one.name for one in filed.folder.iterdir()) == ["web.pem", "web.pem.previous", "web.pem.sre-bot.json"]


@pytest.mark.parametrize(("had_days", "gets_days"), [(7, 30), (60, 60), (400, 90)])
async def test_the_lifetime_is_the_former_one_within_bounds(filed: FileStand, had_days: int, gets_days: int) -> None:
    old = make_certificate(by=an_authority(), began=timedelta(days=2 - had_days), ends=timedelta(days=2))
    filed.live.write_bytes(pem(old[0]))
    new = await _renewed(filed.target)
    assert abs(new.not_valid_after_utc - datetime.now(UTC) - timedelta(days=gets_days)) < timedelta(hours=1)


async def test_a_key_in_the_file_is_replaced_with_it_and_comes_back_with_it(filed: FileStand) -> None:
    certificate, key = make_certificate(by=an_authority())
    filed.live.write_bytes(pem(certificate) + pem(an_authority()[0]) + key_pem(key))
    filed.live.chmod(0o600)
    content = filed.live.read_bytes()
    ref = await filed.target.resolve(filed.address)
    before = await filed.target.observe(ref)
    new = await _renewed(filed.target)
    assert new.public_key() != certificate.public_key()
    assert x509.load_pem_x509_certificates(filed.live.read_bytes())[1:] == [an_authority()[0]], "with its chain"
    assert {stat.S_IMODE(one.stat().st_mode) for one in filed.folder.glob("web.pem*") if one.suffix != ".json"} == {
        0o600
    }
    after = await filed.target.observe(ref)
    await filed.target.apply(ref, RollBackTo(revision=before.rollout), intent_for(after))
    assert filed.live.read_bytes() == content
    assert (await filed.target.observe(ref)).revisions[0].name == after.rollout, "and forth again"


async def test_a_key_that_everybody_may_read_is_refused(filed: FileStand) -> None:
    certificate, key = make_certificate(by=an_authority())
    filed.live.write_bytes(pem(certificate) + key_pem(key))
    filed.live.chmod(0o644)
    await _refused(filed.target, "holds a private key and everybody on this machine may read or write it: chmod o=")


async def test_a_key_with_a_passphrase_stays_as_it_is(filed: FileStand) -> None:
    certificate, key = make_certificate()
    filed.live.write_bytes(pem(certificate) + key_pem(key, b"secret"))
    filed.live.chmod(0o600)
    for target in (filed.target, _alone(filed.folder)):
        await _refused(target, "has a passphrase, which the bot does not know")


async def test_one_that_signs_itself_does_so_again_with_the_key_beside(filed: FileStand) -> None:
    certificate, key = make_certificate()
    filed.live.write_bytes(pem(certificate))
    beside = filed.folder / "web.key"
    target = _alone(filed.folder)
    await _refused(target, f"its key is neither in it nor in {beside}")
    beside.write_bytes(key_pem(make_certificate()[1]))
    beside.chmod(0o600)
    await _refused(target, f"the key in {beside} is not that of")
    beside.write_bytes(key_pem(key))
    new = await _renewed(target)
    new.verify_directly_issued_by(new)
    assert new.public_key() == key.public_key()


async def _authority_of(stand: FileStand, pair: Pair, *, with_key: bool = True) -> None:
    stand.authority.write_bytes(pem(pair[0]) + (key_pem(pair[1]) if with_key else b""))


async def test_an_authority_that_cannot_sign_is_named(filed: FileStand) -> None:
    days = timedelta(days=1)
    expired = make_certificate("the authority", began=-400 * days, ends=-days, authority=True)
    await _authority_of(filed, expired)
    await _refused(filed.target, "the authority's own certificate is valid from")
    await _authority_of(filed, make_certificate("the authority", began=-days, ends=days, authority=True))
    await _refused(filed.target, "no later than this one")
    await _authority_of(filed, make_certificate("another", began=-days, ends=99 * days, authority=True))
    await _refused(filed.target, "CN=the authority, and the authority here is CN=another: renew it where it came from")
    await _authority_of(filed, make_certificate("the authority", ends=99 * days))
    await _refused(filed.target, "is not that of an authority: it may not sign others")
    await _authority_of(filed, an_authority(), with_key=False)
    await _refused(filed.target, "holds no private key: the authority's certificate and key belong in one file")
    await _authority_of(filed, (an_authority()[0], make_certificate()[1]))
    await _refused(filed.target, "is not that of the first certificate in it")
    filed.authority.chmod(0o644)
    await _refused(filed.target, "chmod o= it first")
    filed.authority.unlink()
    await _refused(filed.target, "the authority that is set up is not there")
    await _refused(_alone(filed.folder), "it was issued by CN=the authority, and no authority is set up here")


async def test_clocks_and_lives_that_leave_nothing_to_gain(filed: FileStand) -> None:
    later = make_certificate(by=an_authority(), began=timedelta(hours=2), ends=timedelta(days=30))
    filed.live.write_bytes(pem(later[0]))
    await _refused(filed.target, "before the certificate began: set the clock")
    fresh = make_certificate(by=an_authority(), began=timedelta(days=-5), ends=timedelta(days=300))
    filed.live.write_bytes(pem(fresh[0]))
    await _refused(filed.target, "no later than this one")
    filed.live.write_bytes(pem(an_authority()[0]))
    await _refused(filed.target, "an authority's own certificate, which the bot does not renew")


async def test_what_is_no_certificate_file_is_named(filed: FileStand) -> None:
    async def said(words: str) -> None:
        with pytest.raises(PermanentError, match=words):
            await filed.target.resolve(filed.address)

    ref = await filed.target.resolve(filed.address)
    filed.live.write_bytes(b"not a certificate")
    await said("web.pem holds no certificate in PEM")
    filed.live.write_bytes(b"x" * 1_000_001)
    await said("is larger than 1000000 bytes: no certificate file")
    filed.live.unlink()
    with pytest.raises(PreconditionFailed, match="there is no file"):
        await filed.target.observe(ref)
    os.mkfifo(filed.live)
    await said("web.pem is no file")
    filed.live.unlink()
    filed.live.mkdir()
    await said("web.pem is no file")
    filed.live.rmdir()
    filed.live.symlink_to("web.pem")
    await said("cannot be followed")
    with pytest.raises(PermanentError, match=r"etc is no folder that the bot may touch \(set up: web-certs\)"):
        await filed.target.resolve(WorkloadAddress(platform="certificate_file", namespace="etc", name="shadow"))


async def test_links_are_followed_inside_of_the_folder_only(filed: FileStand) -> None:
    inside = filed.folder / "archive"
    inside.mkdir()
    filed.live.rename(inside / "web1.pem")
    filed.live.symlink_to("archive/web1.pem")
    await _renewed(filed.target)
    assert filed.live.is_symlink()
    assert sorted(one.name for one in inside.iterdir()) == ["web1.pem", "web1.pem.previous", "web1.pem.sre-bot.json"]
    outside = filed.folder.parent / "outside.pem"
    outside.write_bytes(pem(make_certificate(by=an_authority())[0]))
    filed.live.unlink()
    filed.live.symlink_to("../outside.pem")
    with pytest.raises(PermanentError, match=r"outside\.pem, outside of the folder that is set up"):
        await filed.target.resolve(filed.address)


async def test_an_account_without_rights_is_told_so_beforehand(filed: FileStand) -> None:
    ref = await filed.target.resolve(filed.address)
    await filed.deny()
    held = {one.right: one.held for one in await filed.target.check(ref)}
    assert held["write to and search the folder"] is False
    assert held["read the certificate file"] is True
    with pytest.raises(PermanentError, match="needs to write to its folder"):
        await filed.target.apply(ref, RENEW, intent_for(await filed.target.observe(ref)))


async def test_a_late_request_finds_that_it_was_done_even_after_a_rollback(filed: FileStand) -> None:
    ref = await filed.target.resolve(filed.address)
    before = await filed.target.observe(ref)
    late = intent_for(before)
    await filed.target.apply(ref, RENEW, late)
    renewed = await filed.target.observe(ref)
    await filed.target.apply(ref, RollBackTo(revision=before.rollout), intent_for(renewed))
    assert await filed.target.observe(ref) != renewed
    with pytest.raises(PreconditionFailed, match=f"has seen step 1 of execution {late.execution_id}"):
        await filed.target.apply(ref, RENEW, late)
    assert await filed.target.find(ref, RENEW, late) is Finding.APPLIED


async def test_only_the_previous_one_can_be_put_back(filed: FileStand) -> None:
    ref = await filed.target.resolve(filed.address)
    before = await filed.target.observe(ref)
    assert "no certificate from before is kept" in before.refuses["roll_back"]
    with pytest.raises(PermanentError, match="no certificate from before is kept"):
        await filed.target.apply(ref, RollBackTo(revision="f" * 64), intent_for(before))
    await filed.target.apply(ref, RENEW, intent_for(before))
    after = await filed.target.observe(ref)
    with pytest.raises(PermanentError, match=f"is not kept any more: the previous one is {before.rollout}"):
        await filed.target.apply(ref, RollBackTo(revision="f" * 64), intent_for(after))
    (filed.folder / "web.pem.previous").write_bytes(pem(make_certificate("other.example", by=an_authority())[0]))
    assert "is for other names" in (await filed.target.observe(ref)).refuses["roll_back"]


async def test_a_journal_that_nobody_can_read_stops_everything(filed: FileStand) -> None:
    ref = await filed.target.resolve(filed.address)
    intent = intent_for(await filed.target.observe(ref))
    (filed.folder / "web.pem.sre-bot.json").write_text('{"entries": 1}')
    before = await filed.facts()
    with pytest.raises(PermanentError, match=r"web\.pem\.sre-bot\.json is not as the bot wrote it"):
        await filed.target.apply(ref, RENEW, intent)
    assert await filed.target.find(ref, RENEW, intent) is Finding.UNKNOWN
    assert await filed.facts() == before


async def test_nothing_is_replaced_for_somebody_who_no_longer_waits(filed: FileStand) -> None:
    ref = await filed.target.resolve(filed.address)
    intent = intent_for(await filed.target.observe(ref))
    file = CertificateFile(filed.folder, "web")
    standing, permit = file.read(), Permit()
    assert permit.withdraw()
    entry = Entry(
        execution=intent.execution_id,
        step=1,
        fence=intent.fence,
        operation="renew_certificate",
        before=intent.generation,
        before_not_after=standing.bundle.not_after,
        after="f" * 64,
        at=datetime.now(UTC),
    )
    with file.locked(), pytest.raises(TemporaryError, match="it took too long"):
        file.replace(standing, b"new", entry, permit)
    assert file.read().content == standing.content
    assert not list(filed.folder.glob(".*"))
    with file.locked(), pytest.raises(TemporaryError, match="another process holds the lock"):
        await filed.target.find(ref, RENEW, intent)
    assert await as_soon_as_readable(lambda: _brief(filed).find(ref, RENEW, intent)) is Finding.NOT_APPLIED
    with pytest.raises(PreconditionFailed, match=f"with fence {intent.fence}"):
        await filed.target.apply(ref, RENEW, replace(intent, fence=intent.fence - 1))
    await filed.change_by_another()
    assert await filed.target.find(ref, RENEW, intent) is Finding.UNKNOWN, "it was begun, and a third one stands there"
    assert await filed.target.find(ref, RENEW, replace(intent, step=2)) is Finding.NOT_APPLIED, "that one was not"


def _brief(stand: FileStand) -> CertificateFileTarget:
    return CertificateFileTarget({FOLDER: stand.folder}, authority=stand.authority, timeout_s=0.5)


async def _killed(stand: FileStand, moment: str, intent: Intent) -> str:
    """The adapter in a process of its own that is killed at ``moment``; what it printed until then."""
    words = [str(stand.folder), str(stand.authority), moment, str(intent.execution_id), intent.generation]
    command = [sys.executable, "-m", "tests.certificate_child", *words]
    ended = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, check=False)
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    return str(ended.stdout)


async def test_without_room_or_killed_before_the_rename_nothing_happened_and_it_can_be_done_over(
    filed: FileStand,
) -> None:
    ref = await filed.target.resolve(filed.address)
    before = await filed.facts()
    intent = intent_for(await filed.target.observe(ref))
    printed = await _killed(filed, "renaming", intent)
    assert printed.startswith("TemporaryError")
    assert "was not replaced: File too large; left: ['web.pem']" in printed, "the disk was full before"
    assert await filed.facts() == before
    assert await as_soon_as_readable(lambda: _brief(filed).find(ref, RENEW, intent)) is Finding.NOT_APPLIED
    await filed.target.apply(ref, RENEW, replace(intent, fence=intent.fence + 1))
    assert await filed.target.find(ref, RENEW, intent) is Finding.APPLIED
    assert await filed.target.settled(ref, RENEW)
    assert not list(filed.folder.glob(".*")), "what the killed one left is gone"


async def test_killed_after_the_rename_it_is_found_and_can_be_undone(filed: FileStand) -> None:
    ref = await filed.target.resolve(filed.address)
    before, facts = await filed.target.observe(ref), await filed.facts()
    intent = intent_for(before)
    await _killed(filed, "renamed", intent)
    assert await filed.target.find(ref, RENEW, intent) is Finding.APPLIED
    assert await filed.target.settled(ref, RENEW)
    with pytest.raises(PreconditionFailed):
        await filed.target.apply(ref, RENEW, intent)
    after = await filed.target.observe(ref)
    await filed.target.apply(ref, RollBackTo(revision=before.rollout), intent_for(after))
    assert await filed.facts() == facts
    assert await filed.target.find(ref, RENEW, intent) is Finding.APPLIED, "it was, before it was undone"


async def test_a_rehearsal_makes_and_checks_and_writes_nothing(filed: FileStand) -> None:
    ref = await filed.target.resolve(filed.address)
    state = await filed.target.observe(ref)
    assert "nothing was written: it would end" in await filed.target.rehearse(ref, RENEW, state.generation)
    with pytest.raises(PreconditionFailed):
        await filed.target.rehearse(ref, RENEW, "f" * 64)
    assert [one.name for one in filed.folder.iterdir()] == ["web.pem"]


@pytest.mark.parametrize("key_inside", [False, True])
async def test_the_command_does_the_same_by_hand(filed: FileStand, key_inside: bool) -> None:
    certificate, key = make_certificate(by=an_authority())
    filed.live.write_bytes((key_pem(key) if key_inside else b"") + pem(certificate) + pem(an_authority()[0]))
    filed.live.chmod(0o600)
    if not key_inside:
        (filed.folder / "web.key").write_bytes(key_pem(key))
    content = filed.live.read_bytes()
    ref = await filed.target.resolve(filed.address)
    state = await filed.target.observe(ref)
    assert state.not_after is not None
    renew = filed.target.command(ref, RenewAction(not_after=state.not_after, keeps_previous=True))
    back = filed.target.command(ref, RollBackAction(from_revision="renewed", to_revision=state.rollout))
    assert f"-CAkey {filed.authority}" in renew
    if shutil.which("openssl") is None:
        return
    subprocess.run(["sh", "-ec", renew], check=True)
    new, *chain = x509.load_pem_x509_certificates(filed.live.read_bytes())
    new.verify_directly_issued_by(an_authority()[0])
    assert (new.public_key(), chain) == (certificate.public_key(), [an_authority()[0]])
    assert new.not_valid_after_utc > state.not_after
    assert (b"PRIVATE KEY" in filed.live.read_bytes()) is key_inside
    assert stat.S_IMODE(filed.live.stat().st_mode) == 0o600
    assert (await filed.target.observe(ref)).revisions[0].name == state.rollout
    subprocess.run(["sh", "-ec", back], check=True)
    assert filed.live.read_bytes() == content
