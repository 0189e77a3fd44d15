"""When a CVM was last confirmed is told exactly, and costs next to nothing while all of a batch are confirmed."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from bridge.clock import rfc3339, unix
from bridge.events import Draft
from bridge.store.confirmations import Confirmations, Rounds, confirmed_times
from bridge.store.connection import Backend
from bridge.store.errors import FencedError, StoreUnavailableError
from bridge.store.leadership import Leadership, Term
from bridge.store.log import Log
from bridge.store.log_writer import LogWriter, WritePosition
from bridge.store.snapshots import Snapshot, Snapshots
from tests.fakes import HandClock

ZERO = 1_795_536_000.0
"""The wall time at monotonic zero."""

IDS = [f"cvm-{number}" for number in range(6)]


class Hashes:
    """What Redis would have."""

    def __init__(self) -> None:
        self.rounds: dict[str, str] = {}
        self.confirmed: dict[str, str] = {}
        self.written = 0

    def take(self, rounds: Mapping[str, str], confirmed: Mapping[str, str]) -> None:
        for fields, changes in ((self.rounds, rounds), (self.confirmed, confirmed)):
            self.written += len(changes)
            fields.update(changes)
            for name in [name for name, text in fields.items() if not text]:
                del fields[name]

    def times(self) -> dict[str, float]:
        return {each: unix(text) - ZERO for each, text in confirmed_times(self.confirmed, self.rounds).items()}


class ConfirmedTimes(RuleBasedStateMachine):
    """Batches of any CVMs, single reads, ends of watches: at every moment the hashes tell the truth, not more."""

    def __init__(self) -> None:
        super().__init__()
        self.rounds, self.hashes, self.now = Rounds({}), Hashes(), 0.0
        self.truth: dict[str, float] = {}

    def confirm(self, confirmed: Mapping[str, float]) -> None:
        self.rounds.confirm(confirmed)
        for cvm_id, at in confirmed.items():
            self.truth[cvm_id] = max(at, self.truth.get(cvm_id, at))

    @rule(batches=st.lists(st.sets(st.sampled_from(IDS)), max_size=3), late=st.booleans())
    def confirm_batches(self, batches: list[set[str]], late: bool) -> None:
        confirmed: dict[str, float] = {}
        for members in batches:
            self.now += 1
            confirmed |= dict.fromkeys(members, self.now - (1.5 if late else 0))
        self.confirm(confirmed)

    @rule(cvm_id=st.sampled_from(IDS))
    def forget(self, cvm_id: str) -> None:
        self.rounds.forget(cvm_id)
        self.truth.pop(cvm_id, None)

    @rule()
    def write_all_anew(self) -> None:
        self.hashes = Hashes()
        self.hashes.take(*self.rounds.changes(ZERO * 1000, whole=True))

    @invariant()
    def the_hashes_tell_the_truth(self) -> None:
        self.hashes.take(*self.rounds.changes(ZERO * 1000, whole=False))
        assert self.hashes.times() == pytest.approx(self.truth)
        used = {text.split(" ")[0].removeprefix("#") for text in self.hashes.confirmed.values() if text.startswith("#")}
        assert set(self.hashes.rounds) == used


TestConfirmedTimes = ConfirmedTimes.TestCase


def test_a_batch_of_which_all_were_confirmed_costs_one_number() -> None:
    rounds, hashes, batches = (
        Rounds({}),
        Hashes(),
        [[f"cvm-{n}" for n in range(k, k + 100)] for k in range(0, 1000, 100)],
    )
    for at, members in enumerate(batches):
        rounds.confirm(dict.fromkeys(members, float(at)))
        hashes.take(*rounds.changes(ZERO * 1000, whole=False))
    hashes.written = 0
    for at, members in enumerate(batches, 10):
        rounds.confirm(dict.fromkeys(members, float(at)))
        hashes.take(*rounds.changes(ZERO * 1000, whole=False))
    assert hashes.written == 10
    assert hashes.times() == {cvm_id: at for at, members in enumerate(batches, 10) for cvm_id in members}


def test_a_cvm_that_its_batch_does_not_confirm_keeps_its_time_while_the_round_moves_on() -> None:
    rounds, hashes = Rounds({}), Hashes()
    rounds.confirm(dict.fromkeys("abcd", 1.0))
    rounds.confirm(dict.fromkeys("abc", 2.0))
    rounds.confirm({**dict.fromkeys("abc", 3.0), "d": 3.5})
    rounds.confirm(dict.fromkeys("abc", 4.0))
    hashes.take(*rounds.changes(ZERO * 1000, whole=False))
    assert hashes.times() == {"a": 4.0, "b": 4.0, "c": 4.0, "d": 3.5}


@given(st.dictionaries(st.text(), st.text()), st.dictionaries(st.text(), st.text()))
def test_fields_that_the_bridge_did_not_write_are_left_out(confirmed: dict[str, str], rounds: dict[str, str]) -> None:
    good = {"good": "#7 1795536000000"}
    found = confirmed_times({**confirmed, **good}, {**rounds, "7": "1795536001000"})
    assert found["good"] == rfc3339(ZERO + 1)


# In Redis

AT = rfc3339(ZERO)


async def lead(backend: Backend, holder: str = "one") -> Term:
    term = await Leadership(backend).acquire(holder, 10, "log")
    assert isinstance(term, Term)
    return term


async def see(backend: Backend, term: Term, *cvm_ids: str) -> None:
    """Their first events, at ZERO."""
    written = WritePosition(term.sequence, term.last_id)
    for cvm_id in cvm_ids:
        draft = Draft("cvm.state", cvm_id, AT, "{}")
        snapshot = Snapshot(cvm_id, '{"status":"running"}', "running", "n", AT, AT)
        written = await LogWriter(backend, 100).append(term, written, draft, snapshot, ran=False)


async def told(backend: Backend, cvm_id: str) -> float:
    """Seconds from ZERO to its `observed_at`, both ways in which it is read."""
    one, every = (await Snapshots(backend).get([cvm_id]))[cvm_id], (await Log(backend).snapshot())[1][cvm_id]
    assert one == every
    return unix(one.observed_at) - ZERO


async def write(confirmations: Confirmations, now: float) -> None:
    await confirmations.write(ZERO + now, now)


async def test_a_confirmation_leaves_the_public_snapshot_alone_and_is_told_exactly(backend: Backend) -> None:
    term = await lead(backend)
    await see(backend, term, "a", "b")
    stored = await backend.client.hgetall(backend.keys.state)
    confirmations = Confirmations(backend, term, {})
    for cvm_id in "ab":
        confirmations.add(cvm_id, 5.0)
    await write(confirmations, 5.5)
    assert await backend.client.hgetall(backend.keys.state) == stored
    assert (await told(backend, "a"), await told(backend, "b")) == (5.0, 5.0)
    confirmations.add("b", 7.25)
    await write(confirmations, 8.0)
    assert (await told(backend, "a"), await told(backend, "b")) == (5.0, 7.25)


async def test_an_event_after_the_last_confirmation_counts(backend: Backend) -> None:
    term = await lead(backend)
    confirmations = Confirmations(backend, term, {})
    confirmations.add("a", -3.0)
    await write(confirmations, 0.0)
    await see(backend, term, "a")
    assert await told(backend, "a") == 0.0


async def test_a_new_leader_goes_on_with_what_the_last_one_confirmed(backend: Backend, clock: HandClock) -> None:
    old = await lead(backend)
    await see(backend, old, "a", "b")
    before = Confirmations(backend, old, {})
    for cvm_id in "ab":
        before.add(cvm_id, 5.0)
    await write(before, 5.0)
    clock.now += 11
    new = await lead(backend, "two")
    before.add("a", 6.0)
    with pytest.raises(FencedError):
        await write(before, 6.0)
    assert await told(backend, "a") == 5.0
    after = Confirmations(backend, new, {"a": 5.0, "b": 5.0})
    after.add("b", 9.0)
    await write(after, 9.0)
    assert (await told(backend, "a"), await told(backend, "b")) == (5.0, 9.0)


@pytest.mark.parametrize("lost", ["rounds", "confirmed", "last write", "both damaged"])
async def test_what_redis_lost_or_holds_instead_is_written_anew(backend: Backend, lost: str) -> None:
    term = await lead(backend)
    await see(backend, term, "a", "b", "c")
    confirmations, keys = Confirmations(backend, term, {}), backend.keys
    for cvm_id in "abc":
        confirmations.add(cvm_id, 5.0)
    await write(confirmations, 5.0)
    kept = {key: await backend.client.hgetall(key) for key in (keys.rounds, keys.confirmed)}
    for cvm_id in "ab":  # "c" leaves the round
        confirmations.add(cvm_id, 6.0)
    await write(confirmations, 6.0)
    if lost == "rounds":
        await backend.client.delete(keys.rounds)
    elif lost == "confirmed":
        await backend.client.delete(keys.confirmed)
    elif lost == "last write":
        await backend.client.delete(*kept)
        for key, fields in kept.items():
            await backend.client.hset(key, mapping=fields)
    else:
        await backend.client.set(keys.rounds, "x")
        await backend.client.set(keys.confirmed, "x")
        assert await told(backend, "a") == 0.0
    for cvm_id in "ab":
        confirmations.add(cvm_id, 7.0)
    await write(confirmations, 7.0)
    assert [await told(backend, cvm_id) for cvm_id in "abc"] == [7.0, 7.0, 5.0]


@pytest.mark.parametrize("done", [True, False])
async def test_after_a_write_without_an_answer_the_next_one_puts_it_right(
    backend: Backend, monkeypatch: pytest.MonkeyPatch, done: bool
) -> None:
    term = await lead(backend)
    await see(backend, term, "a", "b")
    confirmations, run = Confirmations(backend, term, {}), Backend.run

    async def without_an_answer(self: Backend, *args: object) -> object:
        if done:
            await run(self, *args)  # type: ignore[arg-type]
        raise StoreUnavailableError

    for now in (5.0, 6.0):
        confirmations.add("a", now)
        with monkeypatch.context() as patch:
            patch.setattr(Backend, "run", without_an_answer)
            with pytest.raises(StoreUnavailableError):
                await write(confirmations, now)
    confirmations.add("b", 7.0)
    await write(confirmations, 7.0)
    assert (await told(backend, "a"), await told(backend, "b")) == (6.0, 7.0)


async def test_a_clock_that_was_set_back_leaves_no_time_in_the_future(backend: Backend) -> None:
    term = await lead(backend)
    await see(backend, term, "a", "b")
    confirmations = Confirmations(backend, term, {})
    confirmations.add("a", 5.0)
    await confirmations.write(ZERO + 3600, 5.0)
    confirmations.add("b", 6.0)
    await write(confirmations, 6.0)
    assert (await told(backend, "a"), await told(backend, "b")) == (5.0, 6.0)


async def test_the_end_of_a_watch_ends_its_record(backend: Backend) -> None:
    term = await lead(backend)
    confirmations = Confirmations(backend, term, {})
    for cvm_id in "abc":
        confirmations.add(cvm_id, 5.0)
    await write(confirmations, 5.0)
    confirmations.add("c", 6.0)
    for cvm_id in "abc":
        confirmations.forget(cvm_id)
    await write(confirmations, 6.0)
    assert await backend.client.hgetall(backend.keys.confirmed) == {}
    assert list(await backend.client.hgetall(backend.keys.rounds)) == ["revision"]


async def test_while_nothing_was_confirmed_nothing_is_written(backend: Backend) -> None:
    confirmations = Confirmations(backend, await lead(backend), {})
    confirmations.add("a", 5.0)
    await write(confirmations, 5.0)
    fields = await backend.client.hgetall(backend.keys.rounds)
    await write(confirmations, 6.0)
    assert await backend.client.hgetall(backend.keys.rounds) == fields
