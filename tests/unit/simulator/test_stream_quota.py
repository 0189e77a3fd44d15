"""Places for streams: the limit of five is exact, and a place is given back exactly once."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from bridge.simulator.stream_quota import Ledger, OpenStream


class Time:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def opened(ledger: Ledger, user: str = "alice", cvm: str = "a") -> OpenStream | None:
    return ledger.open(cvm, user, "deleted", 5, 10)


def test_the_sixth_of_a_user_is_refused_and_another_user_has_five_of_his_own() -> None:
    ledger = Ledger(Time())
    mine = [opened(ledger) for _ in range(6)]

    assert mine[5] is None
    assert None not in mine[:5]
    assert opened(ledger, "bob") is not None
    assert (ledger.users["alice"].max, ledger.users["alice"].refused) == (5, 1)


def test_a_place_given_back_twice_is_free_once() -> None:
    ledger = Ledger(Time())
    streams = [opened(ledger) for _ in range(5)]
    assert streams[0] is not None
    ledger.lapse(streams[0])
    ledger.release(streams[0])

    assert ledger.held("alice") == 4
    assert opened(ledger) is not None
    assert opened(ledger) is None


def test_a_client_that_went_away_counts_until_it_is_noticed() -> None:
    time = Time()
    ledger = Ledger(time)
    ledger.late_notice = 2.0
    streams = [opened(ledger) for _ in range(5)]
    for stream in streams[:2]:
        assert stream is not None
        stream.gone = stream is streams[0]
        ledger.release(stream)

    assert (ledger.held("alice"), ledger.users["alice"].open) == (4, 3)
    time.now = 2.0
    assert ledger.held("alice") == 3


def test_places_that_somebody_else_occupies_are_not_to_be_had() -> None:
    ledger = Ledger(Time())
    ledger.occupied["alice"] = 4

    assert opened(ledger) is not None
    assert opened(ledger) is None
    assert ledger.users["alice"].max == 1


def test_a_lapsed_stream_is_still_connected_but_holds_no_place() -> None:
    ledger = Ledger(Time())
    stream = opened(ledger)
    assert stream is not None
    ledger.lapse(stream)

    assert ledger.streams() == [stream]
    assert ledger.held("alice") == 0
    ledger.release(stream)
    assert ledger.streams() == []


@given(st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from(["open", "close"])), max_size=80))
def test_the_tallies_are_what_a_list_of_open_streams_would_say(steps: list[tuple[str, str]]) -> None:
    ledger, mine = Ledger(Time()), dict[str, list[OpenStream]](a=[], b=[])
    most = {"a": 0, "b": 0}
    for user, step in steps:
        if step == "open" and (stream := opened(ledger, user, cvm=user)):
            mine[user].append(stream)
        elif step == "close" and mine[user]:
            ledger.release(mine[user].pop())
        most[user] = max(most[user], len(mine[user]))
        assert ledger.held(user) == len(mine[user]) <= 5

    assert {user: tally.max for user, tally in ledger.users.items()} == {user: most[user] for user in ledger.users}
    assert len(ledger.streams("a")) == len(mine["a"])
