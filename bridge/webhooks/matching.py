"""Which endpoints want an event: an index by type and CVM, made once per revision of the endpoints."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

from bridge.events import entry_key
from bridge.store.endpoints import Endpoint, EndpointSet
from bridge.store.lanes import Entry

ANY = ""
"""An empty filter; no type and no CVM has this name."""


@dataclass(frozen=True, slots=True)
class _Candidate:
    endpoint: Endpoint
    after: tuple[int, int]


class Matcher:
    """Does no I/O. Disabled endpoints match too, because their events are listed as skipped."""

    def __init__(self, endpoint_set: EndpointSet) -> None:
        self.revision = endpoint_set.revision
        self._index: dict[tuple[str, str], list[_Candidate]] = defaultdict(list)
        for endpoint in endpoint_set.endpoints.values():
            candidate = _Candidate(endpoint, entry_key(endpoint.created_after))
            for type in endpoint.types or (ANY,):
                for cvm in endpoint.cvms or (ANY,):
                    self._index[type, cvm].append(candidate)

    def matching(self, entry: Entry, log_id: str) -> list[str]:
        """The ids, ascending, of the endpoints that want this entry of the log `log_id`."""
        key = entry_key(entry.event.id)
        return sorted(
            {
                each.endpoint.id
                for each in self._candidates(entry.event.type, entry.event.cvm_id)
                if (each.after < key or each.endpoint.created_log_id != log_id)
                and each.endpoint.wants(entry.event.type, entry.event.cvm_id, entry.from_, entry.to)
            }
        )

    def _candidates(self, type: str, cvm_id: str) -> Iterator[_Candidate]:
        for key in ((type, cvm_id), (type, ANY), (ANY, cvm_id), (ANY, ANY)):
            yield from self._index.get(key, ())
