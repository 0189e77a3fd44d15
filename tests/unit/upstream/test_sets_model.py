"""Generated lives of an app: replicas and operations come and go, names move, lists fail, leaders change."""

from __future__ import annotations

import asyncio
import json
import os
from collections import defaultdict
from typing import Any

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from bridge.config import Settings
from bridge.events import READINESS, RUNNING
from bridge.store.connection import Backend
from bridge.store.log import Log
from bridge.store.reference_lookups import ReferenceLookups
from bridge.store.snapshots import Snapshots
from bridge.store.watches import Watches
from tests.fakes import fake_backend
from tests.unit.upstream.fleets import OTHER, WEB, Fleet, FleetClient
from tests.unit.upstream.test_discovery import Lister, leading, watched
from tests.virtual import run_virtual

CVMS = [f"c{number}" for number in range(5)]
START = {"c0": (WEB, "web-0"), "c1": (WEB, "one"), "c2": (OTHER, "two")}
SETS = (WEB, "name:web-*")
SETTLED = 100
"""Seconds in which two lists come, a watch that nobody wants ends, and a round of batches goes to every CVM."""

Action = tuple[str, str, str]

ACTIONS = st.one_of(
    st.tuples(st.just("add"), st.sampled_from(CVMS), st.sampled_from([WEB, OTHER])),
    st.tuples(st.just("delete"), st.sampled_from(CVMS), st.just("")),
    st.tuples(st.just("rename"), st.sampled_from(CVMS), st.sampled_from(["web-1", "web-2", "idle"])),
    st.tuples(st.just("status"), st.sampled_from(CVMS), st.sampled_from(["stopped", "restarting", "running"])),
    st.tuples(st.just("begin"), st.sampled_from(CVMS), st.sampled_from(["u1", "u2"])),
    st.tuples(st.just("end"), st.sampled_from(CVMS), st.just("")),
    st.tuples(st.just("hint"), st.sampled_from(CVMS), st.just("")),
    st.tuples(st.just("lists"), st.sampled_from(["fail", "short", ""]), st.just("")),
    st.tuples(st.just("leave"), st.sampled_from(["9", "40"]), st.just("")),
    st.tuples(st.just("lead"), st.just(""), st.just("")),
    st.tuples(st.just("wait"), st.sampled_from(["3", "12", "35", str(SETTLED)]), st.just("")),
)

EXAMPLES = os.environ.get("MODEL_EXAMPLES")


# As in test_model.py: a few lives in the suite, and new ones with MODEL_EXAMPLES=60 by hand.
@settings(
    max_examples=int(EXAMPLES or 4),
    derandomize=EXAMPLES is None,
    phases=[Phase.explicit, Phase.reuse, Phase.generate] if EXAMPLES else [Phase.explicit, Phase.generate],
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
@given(st.sampled_from(["configuration", "subscriber"]), st.lists(ACTIONS, min_size=4, max_size=20))
def test_members_and_their_readiness_follow_from_what_upstream_told_last(asked_by: str, actions: list[Action]) -> None:
    run_virtual(_live(asked_by, actions))


async def _live(asked_by: str, actions: list[Action]) -> None:
    fleet, backend = Fleet(START), fake_backend()
    cvms = SETS if asked_by == "configuration" else ()
    given = Settings(cvms=cvms, watch_linger=5, max_streams=2)
    trouble = ""
    remaining = [*actions, ("lists", "", ""), ("wait", str(SETTLED), "")]
    while remaining:
        async with leading(fleet, given, FleetClient, backend) as (client, _, _upstream):
            while remaining and remaining[0][0] != "lead":
                what, on, to = remaining.pop(0)
                if what == "leave":
                    await Watches(backend).retire("front")
                    await asyncio.sleep(float(on))
                if asked_by == "subscriber":
                    await Watches(backend).announce("front", dict.fromkeys(SETS, 1), 300)
                if what == "lists":
                    trouble = on
                change(fleet, what, on, to)
                apply_trouble(client, fleet, trouble)
                if what == "hint":
                    await ReferenceLookups(backend).hint(f"hashed-{on}")
                await asyncio.sleep(float(on) if what == "wait" else 0.7)
                if what == "wait" and int(on) == SETTLED and not trouble:
                    await check(fleet, backend)
            remaining = remaining[1:]
    check_told([json.loads(event.json) for event in await Log(backend).read("0-0", 100_000)])
    await backend.close()


def change(fleet: Fleet, what: str, on: str, to: str) -> None:
    alive = fleet.status.get(on) is not None
    if what == "add" and not alive:
        fleet.add(on, to, on)
    elif what == "delete" and alive:
        fleet.change(on, None)
        fleet.operations.pop(on, None)
    elif what == "rename" and alive:
        fleet.rename(on, to)
    elif what == "status" and alive:
        fleet.change(on, to)
    elif what == "begin" and alive:
        fleet.operations[on] = to
    elif what == "end":
        fleet.operations.pop(on, None)


def apply_trouble(client: Lister, fleet: Fleet, trouble: str) -> None:
    """A list that is "short" counts and names nobody of the app, as often as it is asked for until it is mended."""
    client.failing_pages = frozenset([1]) if trouble == "fail" else frozenset()
    client.hidden = frozenset(name for _, name in fleet.cvms.values()) if trouble == "short" else frozenset()
    client.shown_total = 0 if trouble == "short" else None


def members(fleet: Fleet) -> set[str]:
    alive = {cvm_id: each for cvm_id, each in fleet.cvms.items() if fleet.status[cvm_id] is not None}
    return {cvm_id for cvm_id, (app_id, name) in alive.items() if app_id == WEB or name.startswith("web-")}


async def check(fleet: Fleet, backend: Backend) -> None:
    """All is well and nothing happened for a while: the bridge has what upstream has."""
    assert await watched(backend) == members(fleet)
    snapshots = await Snapshots(backend).all()
    assert {cvm_id: (each.status, each.name) for cvm_id, each in snapshots.items()} == {
        cvm_id: (fleet.status[cvm_id], fleet.cvms[cvm_id][1]) for cvm_id in members(fleet)
    }
    assert {
        cvm_id: (each.ready, each.operation and each.operation.correlation_id) for cvm_id, each in snapshots.items()
    } == {
        cvm_id: (fleet.status[cvm_id] == RUNNING and cvm_id not in fleet.operations, fleet.operations.get(cvm_id))
        for cvm_id in members(fleet)
    }


def check_told(events: list[dict[str, Any]]) -> None:
    """Each CVM enters with its first state; no readiness is told twice or left out."""
    assert [int(event["sequence"]) for event in events] == list(range(1, len(events) + 1))
    by_cvm: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
    for event in events:
        by_cvm[event["subject"]].append(event)
    for told in by_cvm.values():
        _check_one(told)


def _check_one(told: list[dict[str, Any]]) -> None:
    known, last = False, (None, None)
    for number, event in enumerate(told):
        data = event["data"]
        if event["type"] == "watch.dropped":
            known = False
        elif event["type"] == READINESS:
            operation = data["operation"] and data["operation"]["correlation_id"]
            assert known
            assert data["was_ready"] == last[0]
            assert (data["ready"], operation) != last
            last = data["ready"], operation
        elif event["type"].startswith("cvm."):
            assert (event["type"] == "cvm.state" and data["from"] is None) == (not known)
            now = data["ready"], data["operation"] and data["operation"]["correlation_id"]
            if known and now[0] != last[0]:
                assert told[number + 1]["type"] == READINESS
            if not known:
                known, last = True, now
