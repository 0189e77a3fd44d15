"""Places for streams: the limit of five is exact, and a place is given back exactly once."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from bridge.simulator.stream_quota import OpenStream, StreamQuota


class Time:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def opened(quota: StreamQuota, user: str = "alice", cvm: str = "a") -> OpenStream | None:
    return quota.open(cvm, user, "deleted", 5, 10)


def test_the_sixth_stream_of_a_user_is_refused_and_each_user_has_five() -> None:
    quota = StreamQuota(Time())
    mine = [opened(quota) for _ in range(6)]

    assert mine[5] is None
    assert None not in mine[:5]
    assert opened(quota, "bob") is not None
    assert (quota.users["alice"].max, quota.users["alice"].refused) == (5, 1)


def test_a_stream_released_twice_counts_once() -> None:
    quota = StreamQuota(Time())
    streams = [opened(quota) for _ in range(5)]
    assert streams[0] is not None
    quota.lapse(streams[0])
    quota.release(streams[0])

    assert quota.held("alice") == 4
    assert opened(quota) is not None
    assert opened(quota) is None


def test_a_client_that_went_away_counts_until_the_late_notice() -> None:
    time = Time()
    quota = StreamQuota(time)
    quota.late_notice = 2.0
    streams = [opened(quota) for _ in range(5)]
    for stream in streams[:2]:
        assert stream is not None
        stream.gone = stream is streams[0]
        quota.release(stream)

    assert (quota.held("alice"), quota.users["alice"].open) == (4, 4)
    time.now = 2.0
    assert (quota.held("alice"), quota.users["alice"].open) == (3, 3)


def test_a_stream_whose_end_is_not_noticed_counts_until_its_timeout() -> None:
    time = Time()
    quota = StreamQuota(time)
    quota.late_notice = 3600.0
    stream = quota.open("cvm", "alice", "x", 5, 300, 30.0)
    assert stream is not None
    stream.gone = True
    time.now = 10.0
    quota.release(stream)
    assert (quota.streams(), quota.held("alice")) == ([], 1)
    time.now = 30.0
    assert quota.held("alice") == 0


def test_occupied_streams_count_against_the_limit() -> None:
    quota = StreamQuota(Time())
    quota.occupied["alice"] = 4

    assert opened(quota) is not None
    assert opened(quota) is None
    assert quota.users["alice"].max == 1


def test_a_lapsed_stream_is_still_connected_but_does_not_count() -> None:
    quota = StreamQuota(Time())
    stream = opened(quota)
    assert stream is not None
    quota.lapse(stream)

    assert quota.streams() == [stream]
    assert quota.held("alice") == 0
    quota.release(stream)
    assert quota.streams() == []


@given(st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from(["open", "close"])), max_size=80))
def test_the_tallies_agree_with_a_list_of_open_streams(steps: list[tuple[str, str]]) -> None:
    quota, mine = StreamQuota(Time()), dict[str, list[OpenStream]](a=[], b=[])
    most = {"a": 0, "b": 0}
    for user, step in steps:
        if step == "open" and (stream := opened(quota, user, cvm=user)):
            mine[user].append(stream)
        elif step == "close" and mine[user]:
            quota.release(mine[user].pop())
        most[user] = max(most[user], len(mine[user]))
        assert quota.held(user) == len(mine[user]) <= 5

    assert {user: tally.max for user, tally in quota.users.items()} == {user: most[user] for user in quota.users}
    assert len(quota.streams("a")) == len(mine["a"])
