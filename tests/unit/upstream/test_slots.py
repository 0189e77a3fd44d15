"""A slot's life under every order of calls."""

from __future__ import annotations

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from bridge.store.holdings import Holding
from bridge.upstream.slots import TRANSITIONS, IllegalTransitionError, Life, Slot

OWNER = ("one", 1)
CALLS = {
    "take": Life.OPENING,
    "hold": Life.OPEN,
    "release": Life.CLOSING,
    "quarantine": Life.QUARANTINED,
    "lose": Life.QUARANTINED,
}


class SlotMachine(RuleBasedStateMachine):
    """Calls in any order: a legal one does its step, any other is refused and changes nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.slot = Slot(0)
        self.now = 0.0

    @rule(call=st.sampled_from(list(CALLS)), seconds=st.sampled_from([0.0, 1.0, 50.0]))
    def step(self, call: str, seconds: float) -> None:
        until = self.now + seconds
        arguments = {"take": ("a", OWNER, self.now, until), "hold": (self.now, until), "lose": ()}.get(call, (until,))
        before = repr(self.slot)
        if CALLS[call] in TRANSITIONS[self.slot.life]:
            getattr(self.slot, call)(*arguments)
            assert self.slot.life is CALLS[call]
        else:
            with pytest.raises(IllegalTransitionError):
                getattr(self.slot, call)(*arguments)
            assert repr(self.slot) == before

    @rule(seconds=st.sampled_from([0.0, 1.0, 100.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds
        before = self.slot.life
        self.slot.ripen(self.now)
        waits = before in (Life.CLOSING, Life.QUARANTINED)
        assert (self.slot.life is not before) is (waits and self.slot.until <= self.now)
        assert self.slot.life in (before, Life.FREE)

    @invariant()
    def a_free_slot_has_no_cvm_and_one_with_a_stream_has(self) -> None:
        if self.slot.life in (Life.FREE, Life.OPENING, Life.OPEN):
            assert (self.slot.cvm_id is None) is (self.slot.life is Life.FREE)
        assert self.slot.streams is (self.slot.life is not Life.FREE)


TestSlot = SlotMachine.TestCase


def test_a_loaded_slot_waits_for_its_deadline_under_its_owner() -> None:
    slot = Slot(3)
    slot.load(Holding(3, *OWNER, "a", 30.0, 7.0), 3.0)
    assert slot.holding(4.0) == Holding(3, *OWNER, "a", 30.0, 6.0, quarantined=True)
    slot.ripen(9.9)
    assert (slot.life, slot.cvm_id, slot.owner) == (Life.QUARANTINED, "a", OWNER)
    slot.ripen(10.0)
    assert (slot.life, slot.cvm_id) == (Life.FREE, None)


def test_a_stream_that_opened_late_prolongs_the_quarantine_and_an_early_one_does_not_shorten_it() -> None:
    slot = Slot(0)
    slot.take("a", OWNER, 0.0, 85.0)
    slot.hold(5.0, 75.0)
    assert slot.until == 85.0
    slot.lose()
    slot.ripen(84.9)
    assert slot.streams
    slot.ripen(85.0)
    slot.take("a", OWNER, 100.0, 185.0)
    slot.hold(150.0, 220.0)
    slot.lose()
    slot.ripen(219.9)
    assert slot.streams
