"""Whether an eviction passes the PodDisruptionBudgets, as the API server decides it.

After https://kubernetes.io/docs/concepts/scheduling-eviction/api-eviction/ and the eviction subresource of 1.36.
"""

from __future__ import annotations

from tests.kube_objects import Cluster
from tests.kube_store import Key, Object


class TooMany(Exception):
    """A budget does not let it go now; the text is the cause that the server names."""

    def __init__(self, said: str, retry_after_s: int = 0) -> None:
        super().__init__(said)
        self.retry_after_s = retry_after_s


def evict(cluster: Cluster, pod: Object, *, rehearsed: bool) -> str:
    """Counts the eviction in its budget. Raises TooMany; says why it is not supported at all, where it is not."""
    if pod["status"]["phase"] != "Running" or "deletionTimestamp" in pod["metadata"]:
        return ""
    covering = [key for key in cluster.of("poddisruptionbudgets") if _covers(cluster.objects[key], pod)]
    if len(covering) > 1:
        return "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support."
    for key in covering:
        _count(cluster, key, pod, rehearsed=rehearsed)
    return ""


def _covers(budget: Object, pod: Object) -> bool:
    wanted = budget["spec"]["selector"].get("matchLabels", {}).items()
    return (
        budget["metadata"]["namespace"] == pod["metadata"]["namespace"] and wanted <= pod["metadata"]["labels"].items()
    )


def _count(cluster: Cluster, key: Key, pod: Object, *, rehearsed: bool) -> None:
    budget = cluster.objects[key]
    status, name = budget["status"], key[2]
    ready = any(one == {"type": "Ready", "status": "True"} for one in pod["status"].get("conditions", ()))
    if not ready:
        always = budget["spec"].get("unhealthyPodEvictionPolicy") == "AlwaysAllow"
        if always or status.get("currentHealthy", 0) >= status.get("desiredHealthy", 0) > 0:
            return
    if status.get("observedGeneration", 0) < budget["metadata"]["generation"]:
        raise TooMany(f"The disruption budget {name} is still being processed by the server.", 10)
    if status["disruptionsAllowed"] == 0:
        raise TooMany(
            f"The disruption budget {name} needs {status['desiredHealthy']} healthy pods and has "
            f"{status['currentHealthy']} currently"
        )
    if not rehearsed:
        cluster.edit_status(key, disruptionsAllowed=status["disruptionsAllowed"] - 1)
