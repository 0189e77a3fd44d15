"""`deploy/kubernetes`, rendered by kubectl's kustomize and held against Kubernetes' own schemas."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from tests.deploy.reading import assert_accepted, tool

ROLES = {"web", "upstream", "dispatcher"}
Found = dict[tuple[str, str], dict[str, Any]]


@pytest.fixture(scope="module")
def found() -> Found:
    """The objects of the example, which has everything in it, by kind and name."""
    rendered = list(yaml.safe_load_all(tool("kubectl", "kustomize", "deploy/kubernetes/example")))
    return {(each["kind"], each["metadata"]["name"]): each for each in rendered}


def pods(found: Found) -> dict[str, Any]:
    """By role."""
    return {
        each["metadata"]["labels"]["role"]: each["spec"]["template"]
        for (kind, _), each in found.items()
        if kind == "Deployment"
    }


def environment(found: Found, role: str) -> dict[str, str]:
    (container,) = pods(found)[role]["spec"]["containers"]
    (shared,) = [found["ConfigMap", source["configMapRef"]["name"]]["data"] for source in container["envFrom"]]
    return {**shared, **{each["name"]: each["value"] for each in container.get("env", [])}}


@pytest.mark.parametrize("version", ["1.30", kubernetes_validate.latest_version()])
def test_every_object_is_one_that_kubernetes_takes(found: Found, version: str) -> None:
    unknown = set()
    for (kind, _), each in found.items():
        try:
            kubernetes_validate.validate(each, version, strict=True)
        except kubernetes_validate.SchemaNotFoundError:
            unknown.add(kind)
    assert unknown == {"ServiceMonitor", "PrometheusRule"}  # the Prometheus Operator's


def test_the_base_alone_needs_nothing_that_a_cluster_may_lack() -> None:
    rendered = yaml.safe_load_all(tool("kubectl", "kustomize", "deploy/kubernetes/base"))
    assert {each["kind"] for each in rendered} == {
        "ConfigMap",
        "Deployment",
        "NetworkPolicy",
        "PodDisruptionBudget",
        "Service",
    }


def test_each_role_runs_its_command_with_settings_that_the_bridge_has(found: Found, tmp_path: Path) -> None:
    assert set(pods(found)) == ROLES
    for role, pod in pods(found).items():
        (container,) = pod["spec"]["containers"]
        assert container["args"] == ["bridge", role]
        assert_accepted(environment(found, role), tmp_path)


def test_a_pod_has_the_secrets_that_its_role_reads_and_no_others(found: Found) -> None:
    for role, pod in pods(found).items():
        (mount,) = [m for m in pod["spec"]["containers"][0]["volumeMounts"] if m["name"] == "secrets"]
        (volume,) = [v["secret"] for v in pod["spec"]["volumes"] if v["name"] == "secrets"]
        mounted = {f"{mount['mountPath']}/{item['path']}" for item in volume["items"]}
        assert mounted == {path for name, path in environment(found, role).items() if name.endswith("_FILE")}


def test_every_pod_meets_the_restricted_standard(found: Found) -> None:
    for pod in pods(found).values():
        assert pod["spec"]["securityContext"]["runAsNonRoot"] is True
        assert pod["spec"]["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        (container,) = pod["spec"]["containers"]
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert set(container["resources"]) == {"requests", "limits"}


def test_probes_ask_the_port_that_the_bridge_serves_them_on(found: Found) -> None:
    for role, pod in pods(found).items():
        (container,) = pod["spec"]["containers"]
        ports = {port["name"]: str(port["containerPort"]) for port in container["ports"]}
        for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
            assert ports[container[probe]["httpGet"]["port"]] == environment(found, role)["BRIDGE_PROBE_PORT"]


def test_a_pod_outlives_what_its_role_finishes_first(found: Found) -> None:
    kept = {role: pod["spec"].get("terminationGracePeriodSeconds", 30) for role, pod in pods(found).items()}
    web = pods(found)["web"]["spec"]["containers"][0]
    assert kept["web"] > web["lifecycle"]["preStop"]["sleep"]["seconds"] + 5 + 6  # the default drain, and its end
    assert kept["dispatcher"] > 15  # BRIDGE_WEBHOOK_TIMEOUT


@pytest.mark.parametrize("kind", ["Service", "PodDisruptionBudget", "NetworkPolicy"])
def test_what_selects_pods_selects_some_and_names_their_ports(found: Found, kind: str) -> None:
    for each in [each for (its_kind, _), each in found.items() if its_kind == kind]:
        selector = each["spec"].get("podSelector", each["spec"].get("selector"))
        wanted = selector.get("matchLabels", selector)
        selected = [pod for pod in pods(found).values() if wanted.items() <= pod["metadata"]["labels"].items()]
        assert selected
        for pod in selected:
            names = {port["name"] for port in pod["spec"]["containers"][0]["ports"]}
            assert {port["targetPort"] for port in each["spec"].get("ports", [])} <= names


def test_the_ingress_and_the_monitor_lead_to_ports_that_are_there(found: Found) -> None:
    backend = found["Ingress", "bridge"]["spec"]["rules"][0]["http"]["paths"][0]["backend"]["service"]
    assert backend["port"]["name"] in {port["name"] for port in found["Service", backend["name"]]["spec"]["ports"]}
    monitor = found["ServiceMonitor", "bridge"]["spec"]
    (watched,) = [
        each
        for (kind, _), each in found.items()
        if kind == "Service" and monitor["selector"]["matchLabels"].items() <= each["metadata"]["labels"].items()
    ]
    assert monitor["endpoints"][0]["port"] in {port["name"] for port in watched["spec"]["ports"]}


def test_the_alerts_are_those_of_every_other_prometheus(found: Found) -> None:
    rules = yaml.safe_load(Path("deploy/prometheus/rules.yaml").read_text())
    assert found["PrometheusRule", "bridge"]["spec"] == rules, "`make rules` copies them"
