"""What a reference meant last, by the names in the snapshots and by upstream's last answer."""

from __future__ import annotations

import pytest

from bridge.store.reference_lookups import Answer, ReferenceLookups
from bridge.store.snapshots import Snapshot, Snapshots
from bridge.web.api.stand_ins import StandIns
from tests.fakes import fake_backend
from tests.virtual import VirtualClock

TWO = Answer("web", None, 409, "{}")


@pytest.mark.parametrize(
    ("names", "last", "stands_in"),
    [
        ({}, None, None),
        ({"a": "web"}, None, "a"),
        ({"a": "web", "b": "web"}, None, 409),
        ({"a": "web", "b": "web"}, Answer("web", "a"), 409),
        ({"a": "web"}, TWO, 409),  # one of the two is not watched
        ({"a": "web"}, Answer("web", "b", by_name=True), "a"),
        ({"a": "other"}, Answer("web", "a"), "a"),  # such as an app id
        ({"a": "other"}, Answer("web", "a", by_name=True), None),
        ({}, Answer("web", "a", by_name=True), "a"),
        ({"b": "other"}, Answer("web", "a", by_name=True), "a"),
    ],
)
async def test_a_reference_means_what_it_meant_last(
    names: dict[str, str], last: Answer | None, stands_in: str | int | None
) -> None:
    backend = fake_backend()
    for cvm_id, name in names.items():
        await backend.client.hset(backend.keys.state, cvm_id, Snapshot(cvm_id, "{}", "x", name, "t", "t").to_json())
    lookups = ReferenceLookups(backend)
    if last is not None:
        await lookups.answer(last)
    found = await StandIns(Snapshots(backend), lookups, VirtualClock()).find("web")
    assert (found and (found.cvm_id or found.status)) == stands_in
    await backend.close()


async def test_an_answer_that_there_is_no_such_cvm_ends_the_last_one() -> None:
    backend = fake_backend()
    lookups = ReferenceLookups(backend)
    for answer, last in (
        (Answer("web", "a"), True),
        (Answer("web", None, 503), True),
        (Answer("web", None, 404), False),
    ):
        await lookups.answer(answer)
        assert (await lookups.last("web") is not None) is last
    await backend.close()


@pytest.mark.parametrize("name", ["web", "", 'a","since":"b', "a\\b", "ü\u2028", "x" * 256, "\U0001f600" * 256, None])
async def test_names_are_read_from_the_last_states(name: str | None) -> None:
    """A state may have anything; deleted CVMs and foreign values have no name."""
    raw = '{"name":"inner","node":{"name":"x","since":"y"},"text":"\\",\\"name\\":\\"z\\",\\"since\\":"}'
    backend = fake_backend()
    fields = {
        "a": Snapshot("a", raw, "running", name, "t", "t").to_json(),
        "gone": Snapshot("gone", None, "deleted", name, "t", "t").to_json(),
        "foreign": "rubbish",
        "half": '{"state":{},"name":"x',
    }
    await backend.client.hset(backend.keys.state, mapping=fields)
    assert await Snapshots(backend).names() == ({} if name is None else {"a": name})
    await backend.close()
