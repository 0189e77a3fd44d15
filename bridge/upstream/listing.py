"""The list of the workspace's CVMs: its pages, whether all of it is there, and whom a reference names. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from bridge.events import usable_id
from bridge.upstream.absence import plain
from bridge.upstream.client import Listed, ListPage

MOST_PAGES = 1000
"""A hundred thousand CVMs. No count that upstream gives may make a pass endless."""

_UUID = re.compile("[0-9a-f]{32}")


def key_of(entry: Listed) -> str | None:
    """The id by which the state route is asked for it; None where the entry has none."""
    return usable_id(entry.vm_uuid) or usable_id(entry.hashed_id)


@dataclass(slots=True)
class ListPass:
    """One pass over the pages; it takes a while, in which CVMs come and go."""

    pages: dict[int, ListPage] = field(default_factory=dict)
    entries: dict[str | Listed, Listed] = field(default_factory=dict)
    """Each CVM once, by its key."""
    end: int = MOST_PAGES
    """The number of the last page that is worth asking for."""

    def add(self, number: int, page: ListPage) -> None:
        """Adds an answer. One that names nobody new is the end: an upstream that ignores the number answers with its
        first page for ever.
        """
        before = len(self.entries)
        self.entries.update((key_of(entry) or entry, entry) for entry in page.entries)
        self.pages[number] = page
        if len(self.entries) == before:
            self.end = min(self.end, number)

    @property
    def last(self) -> int | None:
        """The number of the last page; None where the first page does not tell it."""
        first = self.pages[1]
        if first.pages is not None:
            return first.pages
        # Pages may be shorter than they were asked for.
        return -(-first.total // len(first.entries)) if first.total is not None and first.entries else None

    @property
    def is_steady(self) -> bool:
        """Whether each page gave the same total; if not, a CVM may have moved to a page that was read before."""
        return len({page.total for page in self.pages.values()}) == 1

    @property
    def unnamed(self) -> int:
        """How many CVMs upstream counts that no page names."""
        beyond = max(0, (self.last or 0) - MOST_PAGES)
        return max(beyond, (self.pages[1].total or 0) - len(self.entries), 0)


@dataclass(frozen=True, slots=True)
class Directory:
    """Whom each reference names, by a complete list."""

    keys: frozenset[str]
    uuids: frozenset[str]
    """Those of the keys that are canonical ids unless a state says otherwise."""
    entries: Mapping[str, Listed]
    """By key."""
    _by_reference: dict[str, set[str]]

    @classmethod
    def of(cls, entries: Iterable[Listed]) -> Directory:
        found: dict[str, set[str]] = {}
        keys = {key: entry for entry in entries if (key := key_of(entry))}
        for key, entry in keys.items():
            for reference in _references(entry):
                found.setdefault(reference, set()).add(key)
        uuids = frozenset(key for key, entry in keys.items() if key == entry.vm_uuid)
        return cls(frozenset(keys), uuids, keys, found)

    @property
    def references(self) -> Iterable[str]:
        """Every id and name of each CVM."""
        return self._by_reference.keys()

    def find(self, reference: str) -> str | None:
        """The key (see `key_of`) of the only CVM that the reference names; None where it names none, or several."""
        spelled = plain(reference) if _UUID.fullmatch(plain(reference)) else reference
        found = self._by_reference.get(spelled, set())
        return next(iter(found)) if len(found) == 1 else None


def _references(entry: Listed) -> Iterator[str]:
    """As the state route takes them: a uuid with and without dashes, an app id with and without its prefix."""
    for text in (entry.vm_uuid, entry.hashed_id, entry.name, entry.instance_id):
        if text:
            yield plain(text) if _UUID.fullmatch(plain(text)) else text
    if entry.app_id:
        bare = entry.app_id.removeprefix("app_")
        yield from (bare, f"app_{bare}")
