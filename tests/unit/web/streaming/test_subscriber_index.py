"""Which subscribers an event reaches, and how, while subscribers come, go and fall behind."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import strategies as st
from hypothesis.stateful import Bundle as Pool
from hypothesis.stateful import RuleBasedStateMachine, consumes, invariant, rule

from bridge.cvm_scope import CvmScope
from bridge.reference_sets import ReferenceSet
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


TEXTS = st.sampled_from(["a", "b", "*", "app_1", "name:x*", "name:?y"])
REFERENCES = st.none() | st.lists(TEXTS, min_size=1, max_size=3)
SETS = REFERENCES.map(lambda texts: None if texts is None else ReferenceSet.parsed(texts))
SCOPES = st.builds(CvmScope, SETS, SETS)
EVENTS = [
    Frame(1, "1-0", "cvm.state", "a", b"", None, None),
    Frame(2, "2-0", "cvm.state", "a", b"", "1", "xy"),
    Frame(3, "3-0", "cvm.transition", "b", b"", None, "zy"),
    Frame(4, "4-0", "cvm.state", "b", b"", "1", None),
    Frame(5, "5-0", "cvm.transition", "c", b"", "1", "x"),
]
TYPES = st.none() | st.just(frozenset({"cvm.state"}))


class Comings(RuleBasedStateMachine):
    """Subscribers in every state, compared with a walk over all of them."""

    pool = Pool("pool")

    def __init__(self) -> None:
        super().__init__()
        self.index = SubscriberIndex()
        self.present: list[tuple[Subscriber, FileSink]] = []
        self.free = list(range(1000, 1100))

    @rule(target=pool, scope=SCOPES, types=TYPES, behind=st.booleans())
    def come(self, scope: CvmScope, types: frozenset[str] | None, *, behind: bool) -> Subscriber:
        sink = FileSink()
        sink.file, sink.behind = self.free.pop(0), behind
        subscriber = Subscriber(sink, scope=scope, filter=EventFilter(types=types))
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
        for event in EVENTS:
            groups = self.index.of(event)
            direct = sorted(file for group in groups for file in group.files())
            others = [subscriber for group in groups for subscriber in group.others]
            wanting = [(one, sink) for one, sink in self.present if one.wants(event)]
            assert direct == sorted(sink.file or 0 for _, sink in wanting if not sink.behind)
            assert set(others) == {one for one, sink in wanting if sink.behind}
            assert len(others) == len(set(others))


TestComings = Comings.TestCase
