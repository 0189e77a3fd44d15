"""The drop-in's timers."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from bridge.web.dropin.timer_wheel import TimerWheel


@given(
    st.lists(st.tuples(st.integers(0, 9), st.one_of(st.none(), st.floats(0, 40))), max_size=60),
    st.lists(st.floats(0, 1), max_size=20),
)
def test_a_timer_wheel_returns_each_item_once_in_order_and_never_early(
    puts: list[tuple[int, float | None]], waits: list[float]
) -> None:
    wheel: TimerWheel[int] = TimerWheel()
    due: dict[int, float] = {}
    for item, at in puts:
        if at is None:
            wheel.remove(item)
            due.pop(item, None)
        else:
            wheel.put(item, at)
            due[item] = at
    assert len(wheel) == len(due)
    now, taken = 0.0, list[int]()
    for wait in [*waits, 100.0]:
        now += wait
        found = wheel.take(now)
        assert all(due[item] <= now + 1e-6 for item in found)
        assert all(due[item] + 0.051 > now for item in due if item not in [*taken, *found] and due[item] <= now)
        taken += found
    assert sorted(taken) == sorted(due)
    assert wheel.next_due() is None
