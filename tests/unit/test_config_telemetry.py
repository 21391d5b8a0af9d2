"""Whatever is set wrongly for a telemetry provider is told in one line that begins with the variable."""

import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from bot.config import load
from bot.wiring.telemetry import NO_METRICS, sources_of
from pipeline.domain.errors import ConfigurationError
from tests.contract.telemetry.aws_server import use_test_credentials
from tests.contract.telemetry.pixie_server import CLUSTER


@pytest.fixture(autouse=True)
def _nothing_of_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_test_credentials(monkeypatch)
    # The client has read KUBECONFIG when it was imported.
    monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(tmp_path / "none"))
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)


def mistake(environ: dict[str, str]) -> str:
    with pytest.raises(ConfigurationError) as caught:
        sources_of(load(environ, env_file=None))
    (line,) = str(caught.value).splitlines()
    return line


PROMETHEUS = {"PROMETHEUS_URL": "http://localhost:9"}
AWS = {"AWS_REGION": "eu-central-1"}
NEW_RELIC = {"NEW_RELIC_ACCOUNT_ID": "7", "NEW_RELIC_API_KEY": "k"}
PIXIE = {"PIXIE_URL": "https://px", "PIXIE_API_KEY": "k", "PIXIE_CLUSTER_ID": CLUSTER}


@pytest.mark.parametrize(
    "variable",
    ["PROMETHEUS_URL", "LOKI_URL", "JAEGER_URL", "TEMPO_URL", "SRE_AWS_ENDPOINT_URL", "NEW_RELIC_URL", "PIXIE_URL"],
)
@pytest.mark.parametrize("value", ["loki:3100", "ftp://x", "http://", "http://x:99999", "http://a b"])
def test_an_address_that_is_none(variable: str, value: str) -> None:
    assert mistake({variable: value}) == f"{variable}: must be an address that starts with http:// or https://"


@pytest.mark.parametrize(
    ("environ", "said"),
    [
        ({}, NO_METRICS),
        ({"LOKI_URL": "http://x"}, NO_METRICS),
        ({"PROMETHEUS_TOKEN": "t", "PROMETHEUS_USER": "u"}, "PROMETHEUS_TOKEN, PROMETHEUS_USER: give a token or a"),
        ({"PROMETHEUS_TOKEN": "t\nu"}, "PROMETHEUS_TOKEN: the Authorization header contains a line break"),
        ({"PROMETHEUS_PASSWORD": "p"}, "PROMETHEUS_USER: needed with PROMETHEUS_PASSWORD"),
        ({"PROMETHEUS_SERVICE_LABEL": "app,a-b"}, "PROMETHEUS_SERVICE_LABEL: 'a-b' is no label name"),
        ({"PROMETHEUS_INSTANCE_LABEL": "a,b"}, "PROMETHEUS_INSTANCE_LABEL: 'a,b' is no label name"),
        ({"PROMETHEUS_NAMESPACES": "shop,S"}, "PROMETHEUS_NAMESPACES: 'S' is no name of a Kubernetes namespace"),
        ({"PROMETHEUS_CONVENTIONS": "cadviser"}, "PROMETHEUS_CONVENTIONS, PROMETHEUS_TENANT: 'cadviser' is not a"),
        ({"LOKI_SERVICE_LABEL": "service.name"}, "LOKI_SERVICE_LABEL: 'service.name' is no label name"),
        ({"LOKI_URL": "http://x", "LOKI_TOKEN": "a\nb"}, "LOKI_TOKEN: the Authorization header contains a line"),
        ({"JAEGER_URL": "http://x", "JAEGER_TENANT": "a\nb"}, "JAEGER_TENANT: the x-tenant header contains a line"),
        ({"TEMPO_URL": "http://x", "TEMPO_TENANT": "a\nb"}, "TEMPO_TENANT: the X-Scope-OrgID header contains a"),
        ({"JAEGER_DEPENDENCIES_LOOKBACK_S": "-1"}, "JAEGER_DEPENDENCIES_LOOKBACK_S: input should be greater"),
        ({"SRE_TELEMETRY_CA_FILE": "/no/ca"}, "SRE_TELEMETRY_CA_FILE: /no/ca is no file"),
        ({"SRE_TELEMETRY_CA_FILE": __file__}, "SRE_TELEMETRY_CA_FILE: TLS files cannot be used"),
        ({"SRE_TELEMETRY_CLIENT_KEY": __file__}, "SRE_TELEMETRY_CLIENT_KEY: a client key was given without its"),
        ({"SRE_KUBERNETES_WATCH": "Shop"}, "SRE_KUBERNETES_WATCH: 'Shop' is no name of a Kubernetes namespace"),
        ({"SRE_KUBERNETES_WATCH": "shop"}, "SRE_KUBERNETES_WATCH, SRE_KUBERNETES_CONTEXT: the kubeconfig cannot be"),
        ({"SRE_KUBERNETES_LOG_PODS": "0"}, "SRE_KUBERNETES_LOG_PODS: input should be greater"),
        ({"SRE_CLOUDWATCH": "si"}, "SRE_CLOUDWATCH: input should be a valid boolean"),
        ({"SRE_XRAY": "true"}, "AWS_REGION, SRE_AWS_PROFILE: AWS: no region"),
        ({"SRE_XRAY": "true", "SRE_AWS_PROFILE": "nobody"}, "AWS_REGION, SRE_AWS_PROFILE: AWS: The config profile"),
        ({**AWS, "SRE_CLOUDWATCH": "1", "SRE_CLOUDWATCH_NAMESPACES": "AWS/X"}, "SRE_CLOUDWATCH_NAMESPACES: no conven"),
        ({"SRE_CLOUDWATCH_NAMES": "i-17"}, "SRE_CLOUDWATCH_NAMES: 'i-17' is not of the form name=value"),
        ({"SRE_CLOUDWATCH_ONLY": "ClusterName="}, "SRE_CLOUDWATCH_ONLY: 'ClusterName=' is not of the form name=value"),
        ({"SRE_CLOUDWATCH_LOG_GROUPS": "/ecs/shop"}, "SRE_CLOUDWATCH_LOG_GROUPS: '/ecs/shop' is not of the form"),
        ({**AWS, "SRE_CLOUDWATCH_LOG_GROUPS": "a b=shop"}, "SRE_CLOUDWATCH_LOG_GROUPS: CloudWatch Logs: 'a b' is no"),
        ({"NEW_RELIC_ACCOUNT_ID": "7"}, "NEW_RELIC_API_KEY: needed with NEW_RELIC_ACCOUNT_ID"),
        ({"NEW_RELIC_ACCOUNT_ID": "seven"}, "NEW_RELIC_ACCOUNT_ID: input should be a valid integer"),
        ({**NEW_RELIC, "NEW_RELIC_API_KEY": "a\nb"}, "NEW_RELIC_API_KEY: the API-Key header contains a line break"),
        ({**NEW_RELIC, "NEW_RELIC_REGION": "asia"}, "NEW_RELIC_REGION: input should be 'us' or 'eu'"),
        (
            {**NEW_RELIC, "SRE_NEWRELIC_HOST_SERVICE": "a`b"},
            "SRE_NEWRELIC_HOST_SERVICE, SRE_NEWRELIC_POD_SERVICE: 'a`b' is no attribute",
        ),
        ({**PIXIE, "PIXIE_API_KEY": ""}, "PIXIE_API_KEY: needed with PIXIE_URL"),
        ({**PIXIE, "PIXIE_CLUSTER_ID": ""}, "PIXIE_CLUSTER_ID: needed with PIXIE_URL"),
        ({**PIXIE, "PIXIE_CLUSTER_ID": "prod"}, "PIXIE_API_KEY, PIXIE_CLUSTER_ID: the Pixie cluster id is a UUID"),
        ({"SRE_CHANGES_REPO": "/no/clone"}, "SRE_CHANGES_REPO: /no/clone is no git repository"),
    ],
)
def test_what_is_set_wrongly_is_named_in_one_line(environ: dict[str, str], said: str) -> None:
    complete = environ if said == NO_METRICS else {**PROMETHEUS, **environ}
    assert mistake(complete).startswith(said)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "cannot be read (No such file or directory)"),
        ("- {", "is no YAML: while parsing a flow node"),
        ("", "the whole: input should be a valid list"),
        ("- {service: shop, signal: latency, expression: x}", "0.signal: input should be 'latency_p99', "),
        ("- {service: shop, signal: traffic}", "0.expression: field required"),
    ],
)
def test_a_file_of_expressions_that_cannot_be_used(content: str | None, said: str, tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    if content is not None:
        path.write_text(content)
    line = mistake({**AWS, "SRE_CLOUDWATCH": "true", "SRE_CLOUDWATCH_EXPRESSIONS": str(path)})
    assert line.startswith(f"SRE_CLOUDWATCH_EXPRESSIONS: {path}")
    assert said in line


@pytest.mark.parametrize(
    ("sdk", "adapters", "environ", "command"),
    [
        (
            "kubernetes",
            ["kubernetes_logs", "kubernetes_reads"],
            {"SRE_KUBERNETES_WATCH": "shop"},
            "sre-bot[kubernetes]",
        ),
        ("boto3", ["aws_client"], {"SRE_CLOUDWATCH": "true"}, "sre-bot[aws]"),
    ],
)
def test_an_extra_that_is_missing(
    sdk: str, adapters: Sequence[str], environ: dict[str, str], command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name == sdk or name.startswith(f"{sdk}.")]:
        monkeypatch.delitem(sys.modules, name)
    for module in [*(f"pipeline.adapters.telemetry.{name}" for name in adapters), "executors.targets.kubernetes"]:
        monkeypatch.delitem(sys.modules, module, raising=False)
    monkeypatch.setitem(sys.modules, sdk, None)
    assert mistake(environ).endswith(f'is missing: pip install "{command}"')
    assert next(iter(environ)) in mistake(environ)
