"""`deploy/compose.yaml`, read by Docker Compose, which checks its names, types and references."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.deploy.reading import assert_accepted, tool

ROLES = {"web", "upstream", "dispatcher"}


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    read = json.loads(tool("docker-compose", "-f", "deploy/compose.yaml", "config", "--format", "json"))
    found: dict[str, Any] = read["services"]
    assert set(found) == ROLES | {"redis"}
    return found


def test_each_role_runs_its_command_with_settings_that_the_bridge_has(services: dict[str, Any], tmp_path: Path) -> None:
    for role in ROLES:
        assert services[role]["command"] == ["bridge", role]
        assert_accepted(services[role]["environment"], tmp_path)


def test_no_secret_is_in_the_environment_and_each_file_that_a_role_reads_is_mounted(services: dict[str, Any]) -> None:
    for role in ROLES:
        given = services[role]["environment"]
        files = {name: path for name, path in given.items() if name.endswith("_FILE")}
        assert {secret["target"] for secret in services[role]["secrets"]} == set(files.values())
        assert set(given) - set(files) <= {"REDIS_URL", "BRIDGE_CVMS", "BRIDGE_PROBE_PORT"}


def test_every_container_writes_only_where_it_must_and_has_no_rights(services: dict[str, Any]) -> None:
    for service in services.values():
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges"]


def test_health_is_asked_where_each_role_answers(services: dict[str, Any]) -> None:
    assert services["redis"]["healthcheck"]["test"] == ["CMD", "valkey-cli", "-e", "ping"]
    for role in ROLES:
        assert services[role]["depends_on"]["redis"]["condition"] == "service_healthy"
        # The image's check asks there.
        assert services[role]["environment"]["BRIDGE_PROBE_PORT"] == "9000"
