"""Whose a Kubernetes object is, told from its labels, its owner, or its name."""

from __future__ import annotations

import pytest

from pipeline.adapters.telemetry.kubernetes_names import ServiceNames
from pipeline.adapters.telemetry.kubernetes_reads import Meta
from tests.contract.telemetry.kube_log_server import Object, owner


@pytest.mark.parametrize(
    ("labels", "made_by", "service"),
    [
        ({"team.io/service": "pay", "app": "x"}, None, "pay"),
        ({"app.kubernetes.io/name": "pay", "app": "x"}, None, "pay"),
        ({"app": "pay"}, owner("StatefulSet", "x"), "pay"),
        ({"k8s-app": "pay"}, None, "pay"),
        ({"pod-template-hash": "abc"}, owner("ReplicaSet", "pay-abc"), "pay"),
        ({}, owner("ReplicaSet", "pay-7d9f8bc4d"), "pay"),
        ({}, owner("DaemonSet", "pay"), "pay"),
        ({}, owner("Job", "pay-29391234"), "pay"),
        ({"app": ""}, {**owner("ReplicaSet", "x"), "controller": False}, "pay"),
    ],
)
def test_whose_a_pod_is(labels: dict[str, str], made_by: Object | None, service: str) -> None:
    meta = Meta(name="pay", labels=labels, ownerReferences=None if made_by is None else (made_by,))
    assert ServiceNames((), label="team.io/service").of(meta) == service


@pytest.mark.parametrize(
    ("kind", "name", "service"),
    [
        ("Pod", "pay-7d9f8bc4d-x2v5k", "pay"),
        ("Pod", "pay-api-12", "pay-api"),
        ("ReplicaSet", "pay-api-7d9f8bc4d", "pay-api"),
        ("Deployment", "pay-api", "pay-api"),
        ("Node", "node-1", None),
        ("PersistentVolumeClaim", "data", None),
    ],
)
def test_whom_an_event_concerns_when_its_pod_is_gone(kind: str, name: str, service: str | None) -> None:
    assert ServiceNames((), label="app").about(kind, name) == service
