"""What a standby remembers of the slots, and what it writes back."""

from __future__ import annotations

from dataclasses import replace

from bridge.store.holdings import Holding
from bridge.upstream.slot_memory import SlotMemory

HELD = Holding(0, "one", 3, "a", 145.0, 100.0)


def test_what_redis_lost_is_written_back_until_its_deadline() -> None:
    memory = SlotMemory()
    assert memory.see([HELD], 0.0) == []
    assert memory.see([], 10.0) == [replace(HELD, remaining=90.0)]
    assert memory.held(99.0) == [replace(HELD, remaining=1.0)]
    assert (memory.see([], 100.0), memory.held(100.0)) == ([], [])


def test_a_closed_slot_is_forgotten_unless_the_record_is_older_than_the_stream() -> None:
    memory = SlotMemory()
    memory.see([HELD], 0.0)
    assert memory.see([replace(HELD, closed=True, remaining=0.5)], 10.0) == []
    assert memory.held(10.0) == []
    again = replace(HELD, remaining=145.0)
    memory.see([again], 20.0)
    assert memory.see([replace(HELD, closed=True, remaining=-10.0)], 21.0) == [replace(again, remaining=144.0)]


def test_the_record_of_a_later_stream_or_term_takes_the_place_of_an_earlier_one_and_not_the_other_way_round() -> None:
    memory = SlotMemory()
    later = replace(HELD, cvm_id="b", remaining=140.0)
    memory.see([HELD], 0.0)
    assert memory.see([later], 1.0) == []
    assert memory.see([replace(HELD, remaining=98.0)], 2.0) == [replace(later, remaining=139.0)]
    next_term = replace(HELD, holder="two", epoch=4, remaining=140.0)
    assert memory.see([next_term], 3.0) == []
    assert memory.see([later], 4.0) == [replace(next_term, remaining=139.0)]


def test_a_new_redis_whose_epochs_begin_again_hides_nothing() -> None:
    memory = SlotMemory()
    memory.see([HELD], 0.0)
    assert memory.see([Holding(0, "two", 1, "b", 145.0, 145.0)], 1.0) == [replace(HELD, remaining=99.0)]
