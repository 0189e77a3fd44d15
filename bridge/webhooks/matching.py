"""Which endpoints want an event: an index by type and CVM, made once per revision of the endpoints."""

from __future__ import annotations

from collections import defaultdict

from bridge.events import entry_key, names_of
from bridge.reference_sets import EVERYTHING, ReferenceIndex, parse
from bridge.store.endpoint_record import Endpoint
from bridge.store.endpoints import EndpointSet
from bridge.store.lanes import Entry

ANY = ""
"""An empty filter; no type has this name."""

EVERY = (parse(EVERYTHING),)

_Candidates = list[tuple[Endpoint, tuple[int, int]]]


class Matcher:
    """Does no I/O. Disabled endpoints match too, because their events are listed as skipped."""

    def __init__(self, endpoint_set: EndpointSet) -> None:
        self.revision = endpoint_set.revision
        self._by_type: dict[str, ReferenceIndex[_Candidates]] = defaultdict(ReferenceIndex)
        for endpoint in endpoint_set.endpoints.values():
            candidate = endpoint, entry_key(endpoint.created_after)
            for type in endpoint.types or (ANY,):
                for reference in EVERY if endpoint.named is None else endpoint.named:
                    self._by_type[type].setdefault(reference, []).append(candidate)

    def matching(self, entry: Entry, log_id: str) -> list[str]:
        """The ids, ascending, of the endpoints that want this entry of the log `log_id`."""
        event = entry.event
        key, cvm = entry_key(event.id), (event.cvm_id, event.app_id, event.name)
        return sorted(
            {
                endpoint.id
                for type in (*names_of(event.type), ANY)
                if type in self._by_type
                for candidates in self._by_type[type].matching(*cvm)
                for endpoint, after in candidates
                if (after < key or endpoint.created_log_id != log_id)
                and endpoint.wants(event, entry.from_, entry.to, entry.ready)
            }
        )
