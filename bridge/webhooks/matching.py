"""Which endpoints want an event: an index by type and CVM, made once per revision of the endpoints."""

from __future__ import annotations

from collections import defaultdict

from bridge.events import entry_key, names_of
from bridge.store.endpoints import Endpoint, EndpointSet
from bridge.store.lanes import Entry

ANY = ""
"""An empty filter; no type and no CVM has this name."""


class Matcher:
    """Does no I/O. Disabled endpoints match too, because their events are listed as skipped."""

    def __init__(self, endpoint_set: EndpointSet) -> None:
        self.revision = endpoint_set.revision
        self._index: dict[tuple[str, str], list[tuple[Endpoint, tuple[int, int]]]] = defaultdict(list)
        for endpoint in endpoint_set.endpoints.values():
            candidate = endpoint, entry_key(endpoint.created_after)
            for type in endpoint.types or (ANY,):
                for cvm in (ANY,) if endpoint.named is None else endpoint.named:
                    self._index[type, cvm].append(candidate)

    def matching(self, entry: Entry, log_id: str) -> list[str]:
        """The ids, ascending, of the endpoints that want this entry of the log `log_id`."""
        key, type, cvm = entry_key(entry.event.id), entry.event.type, entry.event.cvm_id
        return sorted(
            {
                endpoint.id
                for name in (*names_of(type), ANY)
                for endpoint, after in (*self._index.get((name, cvm), ()), *self._index.get((name, ANY), ()))
                if (after < key or endpoint.created_log_id != log_id)
                and endpoint.wants(entry.event, entry.from_, entry.to, entry.ready)
            }
        )
