"""The live subscribers by their filters: an event finds its subscribers without a look at the others."""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field

from bridge.web.http.event_filter import EventFilter, Filterable
from bridge.web.streaming.subscriber import Subscriber


@dataclass(eq=False, slots=True)
class Group:
    """Subscribers that get the same events; `sent` is the sequence of the last one that they got.

    `direct`: those on whose connections nothing waits, by file descriptor; `others`: those that are written to through
    their sinks. Dicts keep the order of insertion, which is also the order in memory.
    """

    direct: dict[int, Subscriber] = field(default_factory=dict)
    others: dict[Subscriber, None] = field(default_factory=dict)
    sent: int = 0
    _files: array[int] | None = None

    def __len__(self) -> int:
        return len(self.direct) + len(self.others)

    def add(self, subscriber: Subscriber) -> None:
        if subscriber.file is None:
            self.others[subscriber] = None
        else:
            self.direct[subscriber.file] = subscriber
            self._files = None

    def discard(self, subscriber: Subscriber) -> None:
        if subscriber.file is None:
            self.others.pop(subscriber, None)
        else:
            self.direct.pop(subscriber.file, None)
            self._files = None

    def files(self) -> array[int]:
        """The keys of `direct` as an array: those of a dict are scattered in memory."""
        if self._files is None:
            self._files = array("i", self.direct)
        return self._files


class SubscriberIndex:
    """Groups by CVM (None: every CVM) and, within, by filter."""

    def __init__(self) -> None:
        self._by_cvm: dict[str | None, dict[EventFilter, Group]] = {}

    def add(self, subscriber: Subscriber) -> None:
        sink = subscriber.sink
        subscriber.file = None if sink.backlog() else sink.file
        for cvm_id in _keys(subscriber):
            self._by_cvm.setdefault(cvm_id, {}).setdefault(subscriber.filter, Group()).add(subscriber)

    def discard(self, subscriber: Subscriber) -> None:
        for cvm_id in _keys(subscriber):
            groups = self._by_cvm.get(cvm_id, {})
            group = groups.get(subscriber.filter)
            if group is None:
                continue
            group.discard(subscriber)
            if not len(group):
                del groups[subscriber.filter]
            if not groups:
                del self._by_cvm[cvm_id]

    def review(self, subscriber: Subscriber) -> None:
        """Moves a live subscriber between `direct` and `others`, if its backlog has come or gone."""
        if (subscriber.file is None) != (subscriber.sink.file is None or subscriber.sink.backlog() > 0):
            sent = self.sent(subscriber)
            self.discard(subscriber)
            self.add(subscriber)
            subscriber.sent = max(subscriber.sent, sent)

    def sent(self, subscriber: Subscriber) -> int:
        """The sequence of the last event that its groups got."""
        return max((group.sent for group in self._groups(subscriber)), default=0)

    def of(self, event: Filterable) -> list[Group]:
        """The groups that an event goes to; no subscriber is in two. Subscribers may leave while it is used."""
        return [
            group
            for key in (None, event.cvm_id)
            for wanted, group in self._by_cvm.get(key, {}).items()
            if wanted.lets_through(event)
        ]

    def _groups(self, subscriber: Subscriber) -> Iterator[Group]:
        for cvm_id in _keys(subscriber):
            group = self._by_cvm.get(cvm_id, {}).get(subscriber.filter)
            if group is not None:
                yield group


def _keys(subscriber: Subscriber) -> frozenset[str] | tuple[None]:
    return (None,) if subscriber.cvms is None else subscriber.cvms
