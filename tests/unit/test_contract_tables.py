"""The tables of the documents list what the code has, and nothing else."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from bridge.commands.asking import Exit
from bridge.commands.cli import main
from bridge.commands.wait import Code
from bridge.config import file_variables
from bridge.events import ANY_PHALA, LOG_TYPES, sse_event
from bridge.simulator import simulator
from bridge.simulator.faults import Action, Fault
from bridge.store.deliveries import DELIVERY_STATUSES
from bridge.upstream.errors import RULES, BatchAbsentError
from bridge.waiting import STATUSES
from bridge.web.app import operations
from bridge.web.http.problems import ProblemType
from bridge.webhook_formats import FORMATS
from tests.tables import ROOT, names, rows

if TYPE_CHECKING:
    from collections.abc import Iterator

CONTRACT = "docs/contract.md"


def test_secrets_from_files() -> None:
    told = re.findall(r"`(\w+_FILE)`", (ROOT / CONTRACT).read_text("utf-8"))
    assert set(told) - {"_FILE"} == set(file_variables().values())


def test_event_types() -> None:
    told = rows(CONTRACT, "type", "SSE `event:`", "when it is written", "`data`")
    types = {kind: sse_event(kind) for kind in (*LOG_TYPES, ANY_PHALA)}
    assert {kind.replace("<event>", "*"): event for kind, event in (names(" ".join(row[:2])) for row in told)} == types


def test_reasons_of_stale_watches() -> None:
    told = re.search(r"- `reason` is one of ([^;]+);", (ROOT / CONTRACT).read_text("utf-8"))
    assert told
    assert set(names(told[1])) == {rule.reason for error, rule in RULES.items() if error is not BatchAbsentError}


def test_routes() -> None:
    told = set(re.findall(r"/[\w./{}-]*", " ".join(row[0] for row in rows(CONTRACT, "route", "what it does"))))
    actions = {f"/v1/webhooks/{{id}}{each}" for each in told if each.count("/") == 1}
    shown = {each.path for each in operations() if not each.path.startswith("/api/")}
    assert shown <= told | actions
    assert {each for each in told if each.startswith(("/v1", "/."))} <= shown


def test_problem_types() -> None:
    told: dict[str, str] = {}
    for kinds, statuses, _ in rows(CONTRACT, "`type` after `urn:bridge:problem:`", "status", "meaning"):
        found = re.findall(r"\d{3}", statuses)
        for n, kind in enumerate(names(kinds)):
            told[kind] = found[min(n, len(found) - 1)] if found else "400"
    assert told == {each.slug: str(each.status) for each in ProblemType}


def test_formats_of_webhooks() -> None:
    told = {names(row[0])[0]: names(row[1])[0] for row in rows(CONTRACT, "format", "content type", "body")}
    assert told == FORMATS


def test_statuses_of_deliveries_and_those_that_can_be_waited_for() -> None:
    assert {names(row[0])[0] for row in rows(CONTRACT, "status", "meaning")} == set(DELIVERY_STATUSES)
    (to,) = (row[1] for row in rows(CONTRACT, "parameter", "meaning") if names(row[0]) == ["to"])
    assert names(to)[1:] == list(STATUSES)


def test_exit_statuses() -> None:
    told = [int(row[0]) for row in rows(CONTRACT, "exit status", "when")]
    assert told == [*(each.value for each in Code), *Exit]


def test_commands() -> None:
    told = {names(row[0])[0].split()[1] for row in rows(CONTRACT, "command", "what it runs")}
    assert told == set(main.commands)


def test_settings_and_faults_of_the_simulator() -> None:
    settings = [names(row[0])[0] for row in rows("docs/simulator.md", "field", "meaning")]
    assert settings == list(simulator.Settings.model_fields)
    fields = [name for row in rows("docs/simulator.md", "field", "default", "meaning") for name in names(row[0])]
    assert set(fields) == Fault.model_fields.keys() - {"id", "hits"}
    assert [names(row[0])[0] for row in rows("docs/simulator.md", "`action`", "effect")] == list(get_args(Action))


def test_make_targets() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    told = re.findall(r"`make ([a-z-]+)`", " ".join(row[0] for row in rows("README.md", "command", "what it does")))
    assert set(told) <= targets


def test_modules_that_every_package_may_use() -> None:
    (told,) = (row[1] for row in rows("docs/architecture.md", "package", "what is in it") if row[0] == "`bridge/*.py`")
    assert sorted(names(told)) == sorted(each.stem for each in (ROOT / "bridge").glob("*.py") if each.stem[0] != "_")


def test_metrics() -> None:
    pages = ("docs/reliability.md", "docs/webhooks.md")
    told = {name for page in pages for name in re.findall(r"`(bridge_[a-z_]+)", (ROOT / page).read_text("utf-8"))}
    assert told == set(metrics())


def metrics() -> Iterator[str]:
    """As Prometheus shows them."""
    for module in Path(ROOT / "bridge").rglob("*.py"):
        for kind, name in re.findall(r'\b(Counter|Gauge|Histogram)\(\s*"(bridge_\w+)"', module.read_text("utf-8")):
            yield f"{name}_total" if kind == "Counter" else name
