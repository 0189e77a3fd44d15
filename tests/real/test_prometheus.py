"""A real Prometheus on a running bridge: metrics, alerts and the dashboard fit each other."""

from __future__ import annotations

import json
import re
from functools import partial
from pathlib import Path
from typing import Any

import httpx

from tests.alerts.faults import REHEARSALS
from tests.alerts.rules import longest, read_rules, shortened
from tests.commands import Command
from tests.prometheus import Prometheus, prometheus, promtool
from tests.servers import eventually, free_port

DEPLOY = Path("deploy")
RULES = DEPLOY / "prometheus/rules.yaml"
EMPTY = {"max by (reason) (bridge_upstream_streams_held_back)"}
"""Queries that tell nothing of a bridge that is well."""


def names(query: str) -> set[str]:
    """The metric families that a query reads."""
    return {re.sub(r"_(bucket|sum|count)$", "", each) for each in re.findall(r"\b(?:bridge|process)_\w+", query)}


def panels() -> list[str]:
    """Every query of the dashboard, over a time that this test has."""
    board = json.loads((DEPLOY / "grafana/bridge.json").read_text())
    queries = [target["expr"] for panel in board["panels"] for target in panel.get("targets", ())]
    return [each.replace("$__rate_interval", "10s") for each in queries]


def test_alerts_fire_where_they_should_and_each_has_its_paragraph() -> None:
    assert "SUCCESS" in promtool("check", "rules", str(RULES))
    assert "SUCCESS" in promtool("test", "rules", str(RULES.with_name("rules_test.yaml")))
    headings = re.findall(r"^### (\w+)$", Path("docs/operations.md").read_text(), re.MULTILINE)
    links = re.findall(r"runbook_url: (\S+)", RULES.read_text())
    alerts = re.findall(r"- alert: (\w+)", RULES.read_text())
    assert alerts == headings
    assert links == [f"docs/operations.md#{each.lower()}" for each in alerts]


def test_each_alert_is_rehearsed_by_the_same_rules_in_a_shorter_time(tmp_path: Path) -> None:
    """`make alerts` does it."""
    rules = read_rules()
    assert list(dict.fromkeys(each.alert for each in REHEARSALS)) == [*longest(rules)]
    (tmp_path / "rules.json").write_text(json.dumps(shortened(rules, 20)))
    assert "SUCCESS" in promtool("check", "rules", str(tmp_path / "rules.json"))
    assert shortened(rules, 1) != rules, "durations are written otherwise"
    number = [*longest(rules)].index("BridgeRedisRefuses")
    (before, after) = (each["groups"][0]["rules"][number] for each in (rules, shortened(rules, 20)))
    assert after == before | {"for": "9000ms", "expr": before["expr"].replace("[2m]", "[6000ms]")}


def test_alerts_and_panels_read_what_a_running_bridge_has(tmp_path: Path) -> None:
    probe = free_port()
    up = Command(tmp_path, "up", PORT="0", BRIDGE_PROBE_PORT=str(probe), BRIDGE_TOKENS="o:operators-own-secret:read")
    address = up.shows(r"address +(http://\S+)\n")
    metrics = f"http://127.0.0.1:{probe}/metrics"
    eventually(lambda: "bridge_position " in httpx.get(metrics).text, "the front end has the log")
    page = httpx.get(metrics).text
    assert promtool("check", "metrics", given=page) == ""
    assert "_created" not in page
    public = [httpx.get(f"{address}/metrics", headers=each) for each in ({}, {"X-API-Key": "operators-own-secret"})]
    assert [each.status_code for each in public] == [401, 200]
    exposed = set(re.findall(r"^# TYPE (\w+)", page, re.MULTILINE))
    (tmp_path / "prometheus").mkdir()
    scraped = {"static_configs": [{"targets": [f"127.0.0.1:{probe}"]}]}
    with prometheus(tmp_path / "prometheus", RULES, scraped) as server:
        eventually(partial(server.query, "count_over_time(up[1m]) >= 3"), "Prometheus's third look")
        rules = _rules(server)
        for query in [*panels(), *(rule["query"] for rule in rules)]:
            assert names(query) <= exposed, query
        for query in panels():
            if query in EMPTY:
                server.query(query)
            else:
                eventually(partial(server.query, query), f"{query} has an answer")
        assert [rule["name"] for rule in _rules(server) if rule["health"] != "ok" or rule["state"] == "firing"] == []


def _rules(server: Prometheus) -> list[dict[str, Any]]:
    return [rule for group in server.get("rules")["groups"] for rule in group["rules"]]
