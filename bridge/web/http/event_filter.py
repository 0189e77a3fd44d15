"""Which events of its CVMs a client wants: the query's filters, beside the CVMs themselves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from bridge.cvm_scope import Identified
from bridge.events import lets_through


class Filterable(Identified, Protocol):
    """The values that a filter may look at; events and frames have them."""

    @property
    def type(self) -> str: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class EventFilter:
    """None lets everything but notices through. Subscribers with equal filters form one group of the
    SubscriberIndex.
    """

    types: frozenset[str] | None = None

    def lets_through(self, event: Filterable) -> bool:
        return lets_through(event.type, self.types)


EVERY_EVENT = EventFilter()
