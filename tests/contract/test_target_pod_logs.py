"""What is the pods' own: rights, exec, containers that lack something, pods that come and go."""

from __future__ import annotations

import gzip
import os
import re
import shlex
import subprocess
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import yaml
from kubernetes.client import Configuration
from kubernetes.config.config_exception import ConfigException

import executors.targets
from executors.targets.log_files import LogFilesTarget
from executors.targets.log_truncation_exec import LOADER, PodExec
from executors.targets.log_truncation_script import LIST, TRUNCATE
from executors.targets.pod_logs import PodLogsTarget
from pipeline.domain.action import TruncateAction, TruncateLog
from pipeline.domain.errors import (
    ConfigurationError,
    PermanentError,
    PreconditionFailed,
    TemporaryError,
)
from pipeline.domain.execution import Finding, Intent
from pipeline.domain.plan import TargetRef
from tests.contract.targets.places import intent_for, kube_configuration
from tests.contract.targets.stand_log_files import log_lines
from tests.contract.targets.stand_pod_logs import PodLogsStand, pod_logs_stand
from tests.kube_server import rights
from tests.pod_exec_server import LOGS

MIB = 1 << 20
GRANTED = {
    ("get", "apps", "deployments"),
    ("get", "apps", "statefulsets"),
    ("list", "apps", "replicasets"),
    ("get", "", "pods"),
    ("list", "", "pods"),
    ("get", "", "pods/exec"),
    ("create", "", "pods/exec"),
}
"""The golden list: a right added to the role, or a call that needs another one, has to be written here too."""


@pytest.fixture
async def stand() -> AsyncIterator[PodLogsStand]:
    async with pod_logs_stand() as opened:
        yield opened


async def _planned(stand: PodLogsStand) -> tuple[TargetRef, TruncateLog, Intent]:
    ref = await stand.target.resolve(stand.address)
    state = await stand.target.observe(ref)
    return ref, TruncateLog(file=state.files[0]), intent_for(state)


def _full(stand: PodLogsStand, *, elsewhere_kib: int) -> None:
    """The disk of the logs has no room, another one has some."""
    told = stand.server.folder / "bin" / "df"
    told.unlink()
    told.write_text(f"""#!/bin/sh
case $2 in /tmp) free={elsewhere_kib};; *) free=0;; esac
echo "Filesystem 1024-blocks Used Available Capacity Mounted on"
echo "/dev/vda 9000 9000 $free 100% /"
""")
    told.chmod(0o755)


def _marks(wish: TruncateLog, intent: Intent, sum_of_head: int) -> str:
    inode = wish.file.uid.partition("/")[2]
    size = wish.file.size_bytes
    return f"{intent.execution_id} {intent.step} {intent.fence} {inode} {size} {size} 65536 {sum_of_head}"


def test_the_shipped_role_grants_the_golden_list() -> None:
    folder = Path(next(iter(executors.targets.__path__)))
    role, binding = yaml.safe_load_all((folder / "pod-logs-rbac.yaml").read_text())
    assert (role["kind"], binding["kind"]) == ("Role", "RoleBinding")
    assert binding["roleRef"]["name"] == role["metadata"]["name"]
    assert rights(role["rules"]) == GRANTED


async def test_the_shipped_role_is_enough_and_not_more(stand: PodLogsStand) -> None:
    stand.server.granted = GRANTED
    ref, wish, intent = await _planned(stand)
    await stand.target.apply(ref, wish, intent)
    assert await stand.target.find(ref, wish, intent) is Finding.APPLIED
    assert await stand.target.settled(ref, wish)
    assert {one.right: one.held for one in await stand.target.check(ref)} == {
        f"{verb} {resource}{'.' if group else ''}{group} in namespace shop": True for verb, group, resource in GRANTED
    }
    assert stand.server.used() | {("create", "", "pods/exec")} == GRANTED


@pytest.mark.parametrize("missing", [("get", "", "pods/exec"), ("create", "", "pods/exec"), ("get", "", "pods")])
async def test_a_missing_right_is_named(stand: PodLogsStand, missing: tuple[str, str, str]) -> None:
    ref, wish, intent = await _planned(stand)
    stand.server.granted = GRANTED - {missing}
    with pytest.raises(PermanentError, match=r"may not .*pod-logs-rbac\.yaml grants it"):
        await stand.target.apply(ref, wish, intent)
    assert "may not" in (await stand.target.observe(ref)).refuses["truncate"]
    held = {one.right: one.held for one in await stand.target.check(ref)}
    assert held[f"{missing[0]} {missing[2]} in namespace shop"] is False


async def test_each_pod_has_logs_of_its_own(stand: PodLogsStand) -> None:
    stand.server.cluster.edit_spec(stand.key, replicas=2)
    stand.server.cluster.reconcile()
    names = [pod["metadata"]["name"] for pod in stand.server.cluster.pods_of(stand.key)]
    (second,) = set(names) - {stand.pod}
    (stand.server.pod_folder(second) / "service.log").write_bytes(log_lines(400_000))
    ref = await stand.target.resolve(stand.address)
    state = await stand.target.observe(ref)
    assert [file.instance for file in state.files[:2]] == [second, stand.pod]
    assert state.files[0].path == state.files[1].path
    assert len({file.uid for file in state.files}) == len(state.files)
    said = await stand.target.apply(ref, TruncateLog(file=state.files[0]), intent_for(state))
    assert f"emptied {second}:{LOGS}/service.log" in said
    assert stand.log.stat().st_size >= 300_000
    line = stand.target.command(ref, TruncateAction(files=state.files[:1]))
    assert shlex.split(line)[:6] == ["kubectl", "-n", "shop", "exec", second, "--"]


@pytest.mark.parametrize("translates", [False, True], ids=["handshake refused", "refused after it"])
async def test_a_pod_whose_container_is_not_running_hides_no_other(stand: PodLogsStand, translates: bool) -> None:
    ref, wish, _ = await _planned(stand)
    stand.server.translates = translates
    stand.server.cluster.edit_spec(stand.key, replicas=2)
    stand.server.cluster.reconcile()
    (second,) = {pod["metadata"]["name"] for pod in stand.server.cluster.pods_of(stand.key)} - {stand.pod}
    (stand.server.pod_folder(second) / "service.log").write_bytes(log_lines(400_000))
    before = await stand.facts()
    stand.server.stopped.add(stand.pod)
    state = await stand.target.observe(ref)
    assert [file.instance for file in state.files] == [second]
    assert not state.refuses
    with pytest.raises(TemporaryError, match=r'nothing ran: .*container not found \("'):
        await stand.target.apply(ref, wish, intent_for(state))
    assert stand.writes() == 0
    stand.server.stopped.add(second)
    with pytest.raises(TemporaryError, match="container not found"):
        await stand.target.observe(ref)
    stand.server.stopped.clear()
    assert await stand.facts() == before
    assert len((await stand.target.observe(ref)).files) == 3


async def test_a_handshake_without_an_answer_ran_nothing(stand: PodLogsStand) -> None:
    stand.server.silent = True
    brief = PodExec(kube_configuration(stand.server.url), timeout_s=0.2)
    with pytest.raises(TemporaryError, match="not opened in time, nothing ran"):
        await brief.run("shop", stand.pod, "app", LIST, [LOGS])
    assert not stand.server.ran


async def test_the_token_is_asked_for_beside_the_event_loop(
    stand: PodLogsStand, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kubeconfig's exec plugin is a program that may take for ever."""
    configuration = kube_configuration(stand.server.url)
    threads = []

    def refresh(_: Configuration) -> None:
        threads.append(threading.current_thread().name)
        raise ConfigException("the plugin failed")

    monkeypatch.setattr(configuration, "refresh_api_key_hook", refresh)
    with pytest.raises(TemporaryError, match="nothing ran: the plugin failed"):
        await PodExec(configuration, timeout_s=20.0).run("shop", stand.pod, "app", LIST, [LOGS])
    assert threads == [f"exec shop/{stand.pod}"]


@pytest.mark.parametrize("when", ["before it is emptied", "after it"])
async def test_a_signal_counts_until_the_log_is_emptied(stand: PodLogsStand, when: str) -> None:
    ref, wish, intent = await _planned(stand)
    before = await stand.facts()
    sync = stand.server.folder / "bin" / "sync"
    sync.unlink()
    sync.write_text(f"#!/bin/sh\n[ {'' if when == 'after it' else '!'} -s {stand.log} ] || kill -TERM $PPID\n")
    sync.chmod(0o755)
    if when == "after it":
        assert "emptied" in await stand.target.apply(ref, wish, intent)
        assert stand.log.stat().st_size == 0
    else:
        with pytest.raises(TemporaryError):
            await stand.target.apply(ref, wish, intent)
        assert await stand.facts() == before


async def test_without_gzip_the_newest_lines_are_kept_as_they_are(stand: PodLogsStand) -> None:
    held = log_lines(8 * MIB)
    stand.log.write_bytes(held)
    stand.server.without = "gzip"
    ref, wish, intent = await _planned(stand)
    said = await stand.target.apply(ref, wish, intent)
    (copy,) = stand.folder.glob("service.log.*.sre-bot")
    kept = copy.read_bytes()
    assert held.endswith(kept)
    assert len(held) // 8 <= len(kept) < len(held) // 4
    assert f"kept the newest {len(kept) / MIB:.1f} of 8.0 MiB in {LOGS}/{copy.name}" in said
    assert "there is no gzip in the container" in said
    stand.log.write_bytes(log_lines(2 * MIB))
    ref, wish, intent = await _planned(stand)
    with pytest.raises(PermanentError, match="too little to free without it"):
        await stand.target.apply(ref, wish, intent)
    assert stand.log.stat().st_size >= 2 * MIB


async def test_without_room_nothing_is_emptied(stand: PodLogsStand) -> None:
    ref, wish, intent = await _planned(stand)
    before = await stand.facts()
    _full(stand, elsewhere_kib=0)
    with pytest.raises(PermanentError, match="there is no room"):
        await stand.target.apply(ref, wish, intent)
    assert await stand.facts() == before
    assert not list(stand.folder.glob(".*.part*"))


async def test_a_disk_without_room_leaves_the_copy_to_another(stand: PodLogsStand) -> None:
    held = stand.log.read_bytes()
    _full(stand, elsewhere_kib=9000)
    ref, wish, intent = await _planned(stand)
    said = await stand.target.apply(ref, wish, intent)
    named = re.search(r"all of it is kept in (/tmp/service\.log\.\S+\.sre-bot\.gz)", said)
    assert named is not None
    copy = Path(named[1])
    try:
        assert gzip.decompress(copy.read_bytes()) == held
    finally:
        copy.unlink()
    assert stand.log.stat().st_size == 0


@pytest.mark.parametrize("tool", ["sh", "stat"])
async def test_a_container_that_lacks_a_tool_refuses(stand: PodLogsStand, tool: str) -> None:
    stand.server.without = tool
    ref = await stand.target.resolve(stand.address)
    state = await stand.target.observe(ref)
    assert not state.files
    assert ("no shell" if tool == "sh" else "there is no stat") in state.refuses["truncate"]


async def test_a_pod_that_is_gone_or_another_one(stand: PodLogsStand) -> None:
    ref, wish, intent = await _planned(stand)
    key = ("pods", "shop", stand.pod)
    pod = stand.server.cluster.objects[key]
    stand.server.paused = True
    stand.server.cluster.objects[key] = {**pod, "metadata": {**pod["metadata"], "uid": "another"}}
    with pytest.raises(PreconditionFailed, match="another one than was planned"):
        await stand.target.apply(ref, wish, intent)
    del stand.server.cluster.objects[key]
    with pytest.raises(PreconditionFailed, match="is gone"):
        await stand.target.apply(ref, wish, intent)
    assert await stand.target.find(ref, wish, intent) is Finding.UNKNOWN
    assert await stand.target.settled(ref, wish)
    assert stand.log.stat().st_size >= 300_000
    assert stand.writes() == 0


async def test_a_workload_without_pods_says_so(stand: PodLogsStand) -> None:
    ref = await stand.target.resolve(stand.address)
    stand.server.paused = True
    del stand.server.cluster.objects["pods", "shop", stand.pod]
    assert (await stand.target.observe(ref)).refuses == {"truncate": "it has no pod"}


async def test_somebody_at_work_is_waited_for_and_a_dead_one_is_not(stand: PodLogsStand) -> None:
    ref, wish, intent = await _planned(stand)
    lock = stand.folder / ".sre-bot.lock"
    lock.symlink_to(str(os.getpid()))
    with pytest.raises(TemporaryError, match=f"process {os.getpid()} is emptying logs"):
        await stand.target.apply(ref, wish, intent)
    with pytest.raises(TemporaryError, match="right now"):
        await stand.target.find(ref, wish, intent)
    ended = subprocess.Popen(["true"])
    ended.wait()
    lock.unlink()
    lock.symlink_to(str(ended.pid))
    await stand.target.apply(ref, wish, intent)
    assert stand.log.stat().st_size == 0
    assert not lock.is_symlink()


async def test_a_script_that_was_killed_before_it_took_effect(stand: PodLogsStand) -> None:
    ref, wish, intent = await _planned(stand)
    head = stand.log.read_bytes()[:65536]
    sum_of_head = int(subprocess.run(["cksum"], input=head, capture_output=True, check=True).stdout.split()[0])
    (stand.folder / ".sre-bot.journal").write_text(f"began {_marks(wish, intent, sum_of_head)}\n")
    assert await stand.target.find(ref, wish, intent) is Finding.NOT_APPLIED
    stand.log.write_bytes(log_lines(900_000)[777:])
    assert await stand.target.find(ref, wish, intent) is Finding.APPLIED, "it begins otherwise now"
    stand.log.rename(stand.log.with_name("service.log.7"))
    assert await stand.target.find(ref, wish, intent) is Finding.UNKNOWN


async def test_a_script_that_never_came_is_not_applied_after_a_while(stand: PodLogsStand) -> None:
    ref, wish, intent = await _planned(stand)
    brief = stand.connected(timeout_s=0.5)
    await brief.close()
    assert await stand.connected(timeout_s=0.5).find(ref, wish, intent) is Finding.NOT_APPLIED


def test_half_a_script_is_never_run(tmp_path: Path) -> None:
    text = TRUNCATE.strip("\n").encode()
    log = tmp_path / "a.log"
    log.write_bytes(log_lines(2000))
    words = [str(tmp_path), str(log), "1:1", "1", "1", "1", "1", "stamp", "9", "9"]
    for sent in (text[:-1], text[: len(text) // 2], b""):
        ran = subprocess.run(["sh", "-c", LOADER, "sre-bot", str(len(text)), *words], input=sent, check=False)
        assert ran.returncode == 42
    assert [path.name for path in tmp_path.iterdir()] == ["a.log"]


async def test_failures_of_the_connection(stand: PodLogsStand) -> None:
    ref, wish, intent = await _planned(stand)
    stranger = PodLogsTarget(kube_configuration(stand.server.url, "someone"), namespaces=["shop"], paths=[LOGS])
    with pytest.raises(PermanentError, match="credentials"):
        await stranger.resolve(stand.address)
    await stranger.close()
    stand.server.refuse_next.append((500, "error dialing backend: EOF"))
    with pytest.raises(TemporaryError, match="nothing ran: error dialing backend"):
        await stand.target.apply(ref, wish, intent)
    stand.server.refuse_next.append((503, "etcdserver: leader changed"))
    with pytest.raises(TemporaryError, match="leader changed"):
        await stand.target.observe(ref)
    stand.server.lose_next = True
    with pytest.raises(TemporaryError, match="not answered"):
        await stand.target.settled(ref, wish)
    assert stand.log.stat().st_size >= 300_000


async def test_a_copy_in_several_stretches_is_whole(stand: PodLogsStand) -> None:
    held = log_lines(9 * MIB)
    stand.log.write_bytes(held)
    ref, wish, intent = await _planned(stand)
    await stand.target.apply(ref, wish, intent)
    (copy,) = stand.folder.glob("service.log.*.gz")
    assert gzip.decompress(copy.read_bytes()) == held


def test_a_folder_that_no_path_can_name_is_a_wrong_setting(tmp_path: Path) -> None:
    (tmp_path / "a file").touch()
    with pytest.raises(ConfigurationError, match="SRE_TRUNCATE_COPIES"):
        LogFilesTarget({}, copies=tmp_path / "a file")
    with pytest.raises(ConfigurationError, match="SRE_TRUNCATE_FOLDERS"):
        LogFilesTarget({"logs": Path("/var/my logs")})
    for path in ("/", "var/log", "/var/log/../..", "/var/*"):
        with pytest.raises(ConfigurationError, match="SRE_POD_LOG_PATHS"):
            PodLogsTarget(kube_configuration("http://127.0.0.1:1"), namespaces=["shop"], paths=[path])
