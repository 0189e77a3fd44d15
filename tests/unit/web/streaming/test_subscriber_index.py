"""Which subscribers an event reaches, and how, while subscribers come, go and fall behind."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import strategies as st
from hypothesis.stateful import Bundle as Pool
from hypothesis.stateful import RuleBasedStateMachine, consumes, invariant, rule

from bridge.web.http.event_filter import EventFilter
from bridge.web.streaming.frames import Frame
from bridge.web.streaming.subscriber import Subscriber
from bridge.web.streaming.subscriber_index import SubscriberIndex
from tests.unit.web.streaming.test_hub import ListSink


@dataclass(eq=False)
class FileSink(ListSink):
    """A sink with a file, and with bytes that wait while it is behind."""

    file: int | None = None
    behind: bool = False

    def backlog(self) -> int:
        return int(self.behind)


CVMS = st.none() | st.frozensets(st.sampled_from("abc"), min_size=1)
TYPES = st.none() | st.just(frozenset({"cvm.state"}))


class Comings(RuleBasedStateMachine):
    """Subscribers in every state, compared with a walk over all of them."""

    pool = Pool("pool")

    def __init__(self) -> None:
        super().__init__()
        self.index = SubscriberIndex()
        self.present: list[tuple[Subscriber, FileSink]] = []
        self.free = list(range(1000, 1100))

    @rule(target=pool, cvms=CVMS, types=TYPES, behind=st.booleans())
    def come(self, cvms: frozenset[str] | None, types: frozenset[str] | None, *, behind: bool) -> Subscriber:
        sink = FileSink()
        sink.file, sink.behind = self.free.pop(0), behind
        subscriber = Subscriber(sink, cvms=cvms, filter=EventFilter(types=types))
        self.present.append((subscriber, sink))
        self.index.add(subscriber)
        return subscriber

    @rule(who=consumes(pool))
    def go(self, who: Subscriber) -> None:
        self.index.discard(who)
        assert isinstance(who.sink, FileSink)
        assert who.sink.file is not None
        self.free.insert(0, who.sink.file)  # the next connection gets it
        self.present = [each for each in self.present if each[0] is not who]

    @rule(who=pool, behind=st.booleans())
    def fall_behind_or_catch_up(self, who: Subscriber, *, behind: bool) -> None:
        assert isinstance(who.sink, FileSink)
        who.sink.behind = behind
        self.index.review(who)

    @invariant()
    def each_subscriber_that_wants_an_event_gets_it_once_and_directly_if_nothing_waits(self) -> None:
        for cvm_id in "abc":
            for kind in ("cvm.state", "cvm.transition"):
                event = Frame(1, "1-0", kind, cvm_id, b"")
                groups = self.index.of(event)
                direct = sorted(file for group in groups for file in group.files())
                others = [subscriber for group in groups for subscriber in group.others]
                wanting = [(one, sink) for one, sink in self.present if one.wants(event)]
                assert direct == sorted(sink.file or 0 for _, sink in wanting if not sink.behind)
                assert set(others) == {one for one, sink in wanting if sink.behind}
                assert len(others) == len(set(others))


TestComings = Comings.TestCase
