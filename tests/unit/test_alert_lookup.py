"""From an alert's name to its runbook."""

import pytest

from knowledge_base.alerts import AlertIndex
from knowledge_base.stored import StoredDocument

DOCUMENTS = [
    StoredDocument(1, "kubernetes/KubePodCrashLooping.md", "Kube Pod Crash Looping"),
    StoredDocument(2, "disk.md", "NodeFilesystemAlmostOutOfSpace"),
    StoredDocument(3, "memory.md", "Memory leak", alerts=("ContainerOOMKilled", "KubePodCrashLooping")),
    StoredDocument(4, "etcd-no-leader.md", "etcd"),
    StoredDocument(5, "general.md", "Overview", alerts=("Watchdog",)),
    StoredDocument(6, "other/KubePodCrashLooping.md", "Crash loops here"),
    StoredDocument(7, "disk-full.md", "Disk full"),
    StoredDocument(8, "CoreDNS.md", "CoreDNS"),
]
INDEX = AlertIndex(DOCUMENTS)


@pytest.mark.parametrize(
    ("alert", "found"),
    [
        ("NodeFilesystemAlmostOutOfSpace", (2,)),
        ("node_filesystem_almost_out_of_space", (2,)),
        ("nodefilesystemalmostoutofspace", (2,)),
        ("container-oom-killed", (3,)),
        ("EtcdNoLeader", (4,)),
        ("Watchdog", (5,)),
        ("NodeDown", ()),
        ("", ()),
    ],
)
def test_a_given_name(alert: str, found: tuple[int, ...]) -> None:
    assert INDEX.documents((alert,), "") == found


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("NodeFilesystemAlmostOutOfSpace: /dev/sda1 at web-1 has 3 % left", (2,)),
        ("[FIRING:1] container_oom_killed (checkout)", (3,)),
        ("what to do about node filesystem almost out of space?", (2,)),
        ("etcd no leader since 10:00", (4,)),
        ("the overview of general matters", ()),
        ("a memory leak", ()),
        ("[FIRING:1] disk-full on web-1", (7,)),
        ("the disk full of logs", ()),
        ("pods cannot resolve names since CoreDNS was updated", ()),
        ("CoreDNS", (8,)),
        ("NodeDown", ()),
    ],
)
def test_a_name_in_a_text(text: str, found: tuple[int, ...]) -> None:
    assert INDEX.documents((), text) == found


def test_what_is_called_like_the_alert_comes_before_what_lists_it() -> None:
    assert INDEX.documents(("KubePodCrashLooping",), "") == (1, 6)


def test_several_alerts_give_each_document_once() -> None:
    assert INDEX.documents(("Watchdog", "EtcdNoLeader"), "Watchdog and ContainerOOMKilled") == (5, 4, 3)
