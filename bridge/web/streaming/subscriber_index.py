"""The live subscribers by their filters: an event finds its subscribers without a look at the others."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from bridge.cvm_scope import EVERY_CVM, CvmScope, holds
from bridge.reference_sets import ReferenceIndex
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
    strayed: bool = False
    """Whether a CVM that the subscribers named by its id is none any more that their token may see."""
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
    """Groups by CVM (None: every CVM) and, within, by filter; where an app or a name decides, by scope and filter.

    A group of a scope with sets stands under each of its references, and an event finds those that its CVM belongs to.
    """

    def __init__(self) -> None:
        self._by_cvm: dict[str | None, dict[EventFilter, Group]] = {}
        self._by_scope: dict[_Wanted, Group] = {}
        self._by_set: ReferenceIndex[dict[_Wanted, Group]] = ReferenceIndex()

    def add(self, subscriber: Subscriber) -> None:
        sink = subscriber.sink
        subscriber.file = None if sink.backlog() else sink.file
        keys = _keys(subscriber)
        if keys is None:
            self._group_of_scope((subscriber.scope, subscriber.filter)).add(subscriber)
            return
        for cvm_id in keys:
            self._by_cvm.setdefault(cvm_id, {}).setdefault(subscriber.filter, Group()).add(subscriber)

    def _group_of_scope(self, wanted: _Wanted) -> Group:
        group = self._by_scope.get(wanted)
        if group is None:
            group = self._by_scope[wanted] = Group()
            for reference in wanted[0].narrower or ():
                self._by_set.setdefault(reference, {})[wanted] = group
        return group

    def discard(self, subscriber: Subscriber) -> None:
        keys = _keys(subscriber)
        if keys is None:
            self._discard_from_scope(subscriber)
            return
        for cvm_id in keys:
            groups = self._by_cvm.get(cvm_id, {})
            group = groups.get(subscriber.filter)
            if group is None:
                continue
            group.discard(subscriber)
            if not len(group):
                del groups[subscriber.filter]
            if not groups:
                del self._by_cvm[cvm_id]

    def _discard_from_scope(self, subscriber: Subscriber) -> None:
        wanted = subscriber.scope, subscriber.filter
        if (group := self._by_scope.get(wanted)) is None:
            return
        group.discard(subscriber)
        if len(group):
            return
        del self._by_scope[wanted]
        for reference in wanted[0].narrower or ():
            groups = self._by_set.get(reference) or {}
            groups.pop(wanted, None)
            if not groups:
                self._by_set.discard(reference)

    def review(self, subscriber: Subscriber) -> None:
        """Moves a live subscriber between `direct` and `others`, if its backlog has come or gone."""
        if (subscriber.file is None) != (subscriber.sink.file is None or subscriber.sink.backlog() > 0):
            groups, sent = list(self._groups(subscriber)), self.sent(subscriber)
            for group in groups:
                group.discard(subscriber)
            subscriber.file = None if subscriber.sink.backlog() else subscriber.sink.file
            for group in groups:
                group.add(subscriber)
            subscriber.sent = max(subscriber.sent, sent)

    def sent(self, subscriber: Subscriber) -> int:
        """The sequence of the last event that its groups got."""
        return max((group.sent for group in self._groups(subscriber)), default=0)

    def has_strayed(self, subscriber: Subscriber) -> bool:
        """Whether a CVM that it named by its id is none any more that its token may see."""
        return any(group.strayed for group in self._groups(subscriber))

    def of(self, event: Filterable) -> list[Group]:
        """The groups that an event goes to; no subscriber is in two. Subscribers may leave while it is used."""
        found = [
            group
            for key in (None, event.cvm_id)
            for wanted, group in self._by_cvm.get(key, {}).items()
            if wanted.lets_through(event)
        ]
        return [*found, *self._of_sets(event)] if self._by_scope else found

    def _of_sets(self, event: Filterable) -> dict[Group, None]:
        found: dict[Group, None] = {}
        for groups in self._by_set.matching(event.cvm_id, event.app_id, event.name):
            for (scope, wanted), group in groups.items():
                if group in found:
                    continue
                if not holds(scope.limit, event):
                    group.strayed = group.strayed or (scope.named is not None and event.cvm_id in scope.named.cvm_ids)
                elif wanted.lets_through(event):
                    found[group] = None
        return found

    def _groups(self, subscriber: Subscriber) -> Iterator[Group]:
        keys = _keys(subscriber)
        if keys is None:
            yield from filter(None, [self._by_scope.get((subscriber.scope, subscriber.filter))])
            return
        for cvm_id in keys:
            group = self._by_cvm.get(cvm_id, {}).get(subscriber.filter)
            if group is not None:
                yield group


_Wanted = tuple[CvmScope, EventFilter]


def _keys(subscriber: Subscriber) -> Iterable[str | None] | None:
    """None: the CVMs' ids alone do not decide."""
    if subscriber.cvm_ids is not None:
        return subscriber.cvm_ids
    return (None,) if subscriber.scope is EVERY_CVM or subscriber.scope.is_every else None
