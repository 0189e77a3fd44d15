"""The live subscribers, by what they want: an event finds its readers, no reader is asked about an event."""

from __future__ import annotations

from bridge.web.subscriber import Subscriber

# A dict keeps the order of coming, which is also the order in memory; a set of ten thousand is walked at random.
Group = dict[Subscriber, None]


class Audience:
    """Groups of subscribers by CVM (None: every CVM) and, within, by types (None: every type)."""

    def __init__(self) -> None:
        self._by_cvm: dict[str | None, dict[frozenset[str] | None, Group]] = {}

    def add(self, subscriber: Subscriber) -> None:
        for cvm_id in _keys(subscriber):
            self._by_cvm.setdefault(cvm_id, {}).setdefault(subscriber.types, {})[subscriber] = None

    def discard(self, subscriber: Subscriber) -> None:
        for cvm_id in _keys(subscriber):
            groups = self._by_cvm.get(cvm_id, {})
            group = groups.get(subscriber.types, {})
            group.pop(subscriber, None)
            if not group:
                groups.pop(subscriber.types, None)
            if not groups:
                self._by_cvm.pop(cvm_id, None)

    def of(self, cvm_id: str, kind: str) -> list[Group]:
        """The groups that an event goes to; no subscriber is in two of them. Who leaves meanwhile does not disturb."""
        return [
            group
            for key in (None, cvm_id)
            for types, group in self._by_cvm.get(key, {}).items()
            if types is None or kind in types
        ]


def _keys(subscriber: Subscriber) -> frozenset[str] | tuple[None]:
    return (None,) if subscriber.cvms is None else subscriber.cvms
