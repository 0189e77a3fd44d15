"""The simulated CVMs: identity, states, lives, all without I/O and with time passed in."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.simulator.scenes import BOOT_PROGRESS, CHOICES
from bridge.simulator.world import Change, Cvm, World, dumps, uptime

HOUR = 3600.0
MODEL_FIELDS = {
    "id",
    "instance_id",
    "name",
    "status",
    "uptime",
    "exited_at",
    "boot_progress",
    "boot_error",
    "shutdown_progress",
}


def lived(world: World, seconds: float, times: Sequence[float] = ()) -> list[tuple[float, str, str | None]]:
    """What happened, in order: CVM and its status after, where the world was looked at at `times` too."""
    changes: list[Change] = []
    for time in [*sorted(times), seconds]:
        changes += world.advance(world.start + time)
    return [(change.cvm.number, change.cvm.vm_uuid, change.after) for change in changes]


@given(st.integers(0, 2**32), st.lists(st.floats(0, 600), max_size=20))
def test_the_same_seed_gives_the_same_changes_however_often_it_advances(seed: int, times: list[float]) -> None:
    one, other = World(seed, 5), World(seed, 5)

    assert lived(one, 600) == lived(other, 600, times)
    states = [[cvm.state(world.now) for cvm in world.cvms] for world in (one, other)]
    assert states[0] == states[1]


def test_another_seed_gives_other_changes() -> None:
    assert lived(World(1), HOUR) != lived(World(2), HOUR)


@given(st.integers(0, 2**32))
def test_a_cvm_goes_through_possible_statuses_only(seed: int) -> None:
    world = World(seed, 4)
    allowed: dict[str | None, set[str | None]] = {
        None: {"provisioning"},
        "provisioning": {"starting"},
        "starting": {"starting", "running", "error"},
        "running": {"restarting", "stopping", "exited", "error"},
        "restarting": {"starting"},
        "stopping": {"stopping", "stopped", "deleted", None},
        "stopped": {"starting", "stopping"},
        "exited": {"starting", "stopping"},
        "error": {"starting", "stopping"},
        "deleted": {None},
    }
    for change in world.advance(world.start + HOUR / 4):
        assert change.after in allowed[change.before]


@given(st.integers(0, 2**32))
def test_the_first_cvm_stays_so_that_examples_with_its_name_work(seed: int) -> None:
    world = World(seed, 2)
    first = world.cvms[0]
    for change in world.advance(world.start + HOUR / 2):
        assert change.cvm is not first or change.after not in (None, "deleted")
    assert world.find("web-1") == [first]


def test_a_demo_shows_a_change_every_few_seconds_and_every_scene() -> None:
    world = World(seed=0)
    changes = world.advance(world.start + HOUR)

    assert HOUR / 5 < len(changes) < HOUR * 3
    assert len(world.advance(world.start + HOUR + 10)) > 0
    seen = {change.after for change in changes}
    assert seen >= {*CHOICES, "starting", "restarting", "stopping", "deleted", None}


def test_a_demo_moves_within_its_first_ten_seconds() -> None:
    assert all(World(seed).advance(1_795_536_010.0) for seed in range(20))


def test_the_number_of_cvms_stays() -> None:
    world = World(seed=4)
    world.advance(world.start + 6 * HOUR)

    assert 9 <= len(world.cvms) <= 12
    assert len(world.all_cvms) > 40


def test_a_boot_has_progress_and_a_crash_has_its_time() -> None:
    world = World(seed=5, cvms=3)
    states = _states(world, 400)

    assert {state.get("boot_progress") for state in states if state["status"] == "starting"} == {*BOOT_PROGRESS}
    assert all("boot_progress" not in state for state in states if state["status"] == "running")
    assert all("exited_at" in state for state in states if state["status"] in ("exited", "stopped", "error"))
    assert all("boot_error" in state for state in states if state["status"] == "error")
    assert all(("uptime" in state) == (state["status"] == "running") for state in states)
    assert {field for state in states for field in state} == MODEL_FIELDS


def _states(world: World, wanted: int) -> list[dict[str, Any]]:
    """The states right after each of so many changes."""
    states: list[dict[str, Any]] = []
    while len(states) < wanted:
        changes = world.advance(world.now + 0.1)
        states += [change.cvm.state(world.now) for change in changes if change.after is not None]
    return states


def test_in_a_frozen_world_only_the_uptime_changes() -> None:
    world = World(seed=1, cvms=2, frozen=True)
    before = [cvm.state(world.now) for cvm in world.cvms]

    assert world.advance(world.start + HOUR) == []
    after = [cvm.state(world.now) for cvm in world.cvms]

    assert [state.pop("uptime") for state in before] != [state.pop("uptime") for state in after]
    assert before == after


def test_an_unfrozen_world_skips_the_time_it_was_frozen() -> None:
    world = World(seed=1, frozen=True)
    world.advance(world.start + HOUR)
    world.freeze(False)

    assert world.advance(world.now + 1) == []
    assert len(world.advance(world.now + 100)) > 0


@pytest.fixture
def cvm() -> Cvm:
    return World(seed=9, cvms=1, frozen=True).cvms[0]


def test_every_form_of_reference_finds_the_cvm() -> None:
    world = World(seed=9, cvms=5, frozen=True)
    cvm = world.cvms[2]
    forms = [
        cvm.vm_uuid,
        cvm.vm_uuid.replace("-", ""),
        cvm.vm_uuid.upper(),
        cvm.cvm_id,
        cvm.app_id,
        f"app_{cvm.app_id}",
        cvm.instance_id,
        cvm.name,
    ]

    assert [world.find(form) for form in forms] == [[cvm]] * len(forms)
    assert world.find(cvm.name.upper()) == []
    assert world.find("") == []


def test_a_shared_name_and_an_app_with_replicas_find_all_of_them() -> None:
    world = World(cvms=0, frozen=True)
    one = world.create(name="same", app_id="ab" * 20)
    other = world.create(name="same")
    replica = world.create(app_id="ab" * 20)

    assert world.find("same") == [one, other]
    assert world.find("app_" + "ab" * 20) == [one, replica]


def test_an_app_grows_and_loses_its_newest_replicas() -> None:
    world = World(cvms=1, frozen=True)
    first, app_id = world.cvms[0], world.cvms[0].app_id

    assert [change.after for change in world.scale(app_id, 3, "starting")] == ["starting"] * 2
    second = world.find(app_id)[1]
    assert [(change.cvm.number, change.after) for change in world.scale(app_id, 2, "starting")] == [(2, None)]
    assert world.find(app_id) == [first, second]
    assert world.scale(app_id, 2, "starting") == []


def test_a_cvm_that_dies_is_followed_by_another_one_of_its_app() -> None:
    world = World(seed=3, cvms=6)
    apps = {cvm.app_id for cvm in world.cvms}
    changes = world.advance(world.now + 20_000)

    assert sum(change.before is None for change in changes) > 0
    assert {cvm.app_id for cvm in world.all_cvms} == apps


def test_a_moved_name_finds_its_new_cvm() -> None:
    world = World(cvms=0, frozen=True)
    one, other = world.create(name="web"), world.create(name="spare")
    world.identify(one, name="old")
    world.identify(other, name="web")

    assert world.find("web") == [other]
    assert world.find("old") == [one]
    assert world.find("spare") == []


def test_a_deleted_cvm_is_not_found_until_it_is_restored() -> None:
    world = World(cvms=1, frozen=True)
    cvm = world.cvms[0]

    assert world.delete(cvm).before == "running"
    assert world.delete(cvm).before is None
    assert (world.find(cvm.name), world.find_any(cvm.name)) == ([], [cvm])
    assert world.by_uuid(cvm.vm_uuid) is None
    world.restore(cvm)
    assert world.find(cvm.name) == [cvm]


def test_another_users_cvm_is_not_found() -> None:
    world = World(cvms=0, frozen=True)
    hers, everybodys = world.create(owner="alice"), world.create()

    assert world.find(hers.vm_uuid, "bob") == []
    assert world.by_uuid(hers.vm_uuid, "bob") is None
    assert world.find(hers.vm_uuid, "alice") == [hers]
    assert world.seen_by("bob") == [everybodys]


def test_a_new_status_clears_the_fields_of_the_old_one() -> None:
    world = World(cvms=1, frozen=True)
    cvm = world.cvms[0]
    world.update(cvm, {"status": "starting", "boot_progress": "pulling images"})
    assert cvm.state(world.now)["boot_progress"] == "pulling images"
    world.update(cvm, {"status": "running"})

    assert "boot_progress" not in cvm.state(world.now)
    assert cvm.state(world.now)["uptime"] == "0s"


def test_odd_fields_are_shown_as_they_were_set() -> None:
    world = World(cvms=1, frozen=True)
    cvm = world.cvms[0]
    world.update(cvm, {"boot_error": None, "name": 7, "events": [1.5, {"a": None}]}, unset=["instance_id", "uptime"])
    state = cvm.state(world.now)

    assert (state["boot_error"], state["name"], state["events"]) == (None, 7, [1.5, {"a": None}])
    assert "instance_id" not in state
    assert "uptime" not in state
    world.update(cvm, {"status": 5})
    assert (cvm.status, cvm.state(world.now)["status"]) == ("", 5)
    world.update(cvm, {}, unset=["status"])
    assert "status" not in cvm.state(world.now)


def test_a_raw_state_is_served_byte_for_byte(cvm: Cvm) -> None:
    cvm.raw = b'{"status" : 1.10}\n\xff'
    assert cvm.body(0.0) == b'{"status" : 1.10}\n\xff'


@given(st.text(st.characters(exclude_categories=())))
def test_any_text_survives_json(text: str) -> None:
    assert json.loads(dumps({"name": text})) == {"name": text}


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (59.9, "59s"), (60, "1m 0s"), (3600, "1h 0m 0s"), (90_061, "1d 1h 1m 1s"), (-5, "0s")],
)
def test_uptime_reads_like_upstreams(seconds: float, text: str) -> None:
    assert uptime(seconds) == text


def test_the_number_of_remembered_deleted_cvms_is_limited() -> None:
    world = World(cvms=0, frozen=True)
    first = world.create(name="first")
    world.delete(first)
    for _ in range(1000):
        world.delete(world.create())

    assert len(world.all_cvms) == 1000
    assert world.find_any("first") == []


@pytest.mark.parametrize("seed", range(5))
def test_a_demo_moves_within_seconds_and_all_of_it_within_a_minute(seed: int) -> None:
    world = World(seed=seed, cvms=12, now=1000.0)
    first = {change.cvm.vm_uuid for change in world.advance(1003.0)}
    rest = {change.cvm.vm_uuid for change in world.advance(1060.0)}
    assert first
    assert {cvm.vm_uuid for cvm in world.all_cvms if cvm.number < 12} <= first | rest
