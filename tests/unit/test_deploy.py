"""The image and the manifests that are shipped: who it runs as, what it may write. No container is built."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

import bot.runtime
from bot.config import variables

FOLDER = Path(next(iter(bot.__path__))) / "deploy"
KINDS = {
    "Namespace",
    "ServiceAccount",
    "ConfigMap",
    "Deployment",
    "PodDisruptionBudget",
    "Service",
    "NetworkPolicy",
}


def steps(text: str) -> list[tuple[str, str]]:
    """(instruction, arguments) of a Dockerfile, with lines that go on joined and comments left out."""
    joined = re.sub(r"\\\n\s*", "", "\n".join(line for line in text.splitlines() if not line.startswith("#")))
    return [(word, rest.strip()) for word, _, rest in (line.partition(" ") for line in joined.splitlines()) if word]


@pytest.fixture
def dockerfile() -> list[tuple[str, str]]:
    return steps((FOLDER / "Dockerfile").read_text())


@pytest.fixture
def manifests() -> dict[str, Any]:
    made = list(yaml.safe_load_all((FOLDER / "kubernetes.yaml").read_text()))
    assert {one["kind"] for one in made} == KINDS
    return {one["kind"]: one for one in made}


def test_the_image_is_built_in_two_stages_and_the_last_has_no_tools(dockerfile: list[tuple[str, str]]) -> None:
    bases = [at for at, (word, _) in enumerate(dockerfile) if word == "FROM"]
    assert len(bases) == 2
    (pinned,) = [rest for word, rest in dockerfile if (word, rest.partition("=")[0]) == ("ARG", "PYTHON")]
    assert re.fullmatch(r"PYTHON=python:3\.11\.\d+-slim-\w+", pinned), "by tag, and no other host's"
    assert all(rest.startswith("${PYTHON}") for word, rest in dockerfile if word == "FROM")
    first, last = dockerfile[: bases[1]], dockerfile[bases[1] :]
    build = " ".join(rest for word, rest in first if word == "RUN")
    assert "pip wheel --no-deps" in build, "a wheel"
    assert "--constraint requirements.lock" in build, "with pinned packages"
    assert not re.search(r"(-e|--editable)\b", build)
    (run,) = [rest for word, rest in last if word == "RUN"]
    assert "uninstall --yes pip setuptools wheel" in run
    assert not re.search(r"apt|apk|curl|gcc|pip install", run)
    assert [rest for word, rest in last if word == "COPY"] == ["--from=build /opt/sre-bot /opt/sre-bot"]


def test_the_image_runs_as_nobody_special_and_writes_in_one_folder(dockerfile: list[tuple[str, str]]) -> None:
    said = dict(dockerfile)
    user, group = said["USER"].split(":")
    assert (int(user) >= 10_000, int(group) >= 10_000) == (True, True), "numeric, so that runAsNonRoot can tell"
    environment = dict(re.findall(r"(\w+)=(\S+)", said["ENV"]))
    own = said["VOLUME"]
    for name in ("HOME", "TMPDIR", "MPLCONFIGDIR", "NUMBA_CACHE_DIR", "SRE_DATA_DIR"):
        assert environment[name].startswith(own), name
    assert environment["PYTHONDONTWRITEBYTECODE"] == "1"
    assert said["WORKDIR"] == own
    assert "/healthz" in said["HEALTHCHECK"]
    assert (said["ENTRYPOINT"], said["CMD"]) == ('["sre-bot"]', '["run"]'), "no shell: SIGTERM reaches the bot"
    ours = {variable.name for _, _, variable, _ in variables()}
    assert {name for name in environment if name.startswith("SRE_")} <= ours


def test_a_pod_may_do_nothing_it_need_not(manifests: dict[str, Any]) -> None:
    pod = manifests["Deployment"]["spec"]["template"]["spec"]
    assert {key: pod["securityContext"][key] for key in ("runAsNonRoot", "seccompProfile")} == {
        "runAsNonRoot": True,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    (container,) = pod["containers"]
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "privileged": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert not {"hostNetwork", "hostPID", "hostIPC", "initContainers"} & set(pod)
    assert {frozenset(one) - {"name"} for one in pod["volumes"]} == {frozenset({"emptyDir"}), frozenset({"configMap"})}
    writable = [one["mountPath"] for one in container["volumeMounts"] if not one.get("readOnly")]
    said = dict(steps((FOLDER / "Dockerfile").read_text()))
    assert writable == [said["VOLUME"]]
    assert f"{pod['securityContext']['runAsUser']}:{pod['securityContext']['runAsGroup']}" == said["USER"]
    assert {"cpu", "memory", "ephemeral-storage"} <= set(container["resources"]["limits"])
    assert {"cpu", "memory"} <= set(container["resources"]["requests"])
    assert manifests["ServiceAccount"]["automountServiceAccountToken"] is False
    assert manifests["Namespace"]["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"


def test_secrets_are_referred_to_and_every_setting_exists(manifests: dict[str, Any]) -> None:
    (container,) = manifests["Deployment"]["spec"]["template"]["spec"]["containers"]
    ours = {variable.name: "SecretStr" in str(info.annotation) for _, _, variable, info in variables()}
    for one in container["env"]:
        assert ours[one["name"]], f"{one['name']} is no secret setting"
        assert set(one["valueFrom"]) == {"secretKeyRef"}
    plain = {name for name, secret in ours.items() if not secret}
    assert set(manifests["ConfigMap"]["data"]) | {"SRE_CATALOGUE"} <= plain | {"services.yaml"}
    text = (FOLDER / "kubernetes.yaml").read_text()
    assert not re.search(r"xox[bap]-|postgres(ql)?://|redis://|sk-", text)


def test_two_replicas_that_drain(manifests: dict[str, Any]) -> None:
    deployment = manifests["Deployment"]["spec"]
    pod = deployment["template"]["spec"]
    assert deployment["replicas"] == 2
    assert deployment["strategy"]["rollingUpdate"]["maxUnavailable"] == 0
    assert pod["terminationGracePeriodSeconds"] > 2 * bot.runtime.DRAIN_S
    assert manifests["PodDisruptionBudget"]["spec"]["minAvailable"] == 1
    (container,) = pod["containers"]
    for probe in ("startupProbe", "readinessProbe"):
        assert container[probe]["httpGet"]["path"] == "/healthz"
    assert "tcpSocket" in container["livenessProbe"], "a database that is away is not mended by a restart"
    labels = deployment["selector"]["matchLabels"]
    for kind, path in (("PodDisruptionBudget", "selector"), ("NetworkPolicy", "podSelector")):
        assert manifests[kind]["spec"][path]["matchLabels"] == labels
    assert manifests["Service"]["spec"]["selector"] == labels
    assert set(manifests["NetworkPolicy"]["spec"]["policyTypes"]) == {"Ingress", "Egress"}
    assert all(one["from"] for one in manifests["NetworkPolicy"]["spec"]["ingress"])
    account = manifests["ServiceAccount"]["metadata"]
    assert (pod["serviceAccountName"], account["name"], account["namespace"]) == ("sre-bot", "sre-bot", "sre")
