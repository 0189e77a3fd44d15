"""References that name one CVM or many: an app, a pattern over names, every CVM. Pure.

A plain reference stands for the one CVM whose canonical id it is; which id a name has, upstream tells.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import Enum, auto
from functools import lru_cache
from itertools import islice
from typing import Generic, TypeVar

from bridge.events import usable_id

EVERYTHING = "*"
APP_PREFIX = "app_"
NAME_PREFIX = "name:"

MOST_COMPILED = 16_384
"""Patterns that are kept ready: to make one takes up to a tenth of a millisecond."""

MOST_REMEMBERED = 20_000
"""Names of which an index remembers the patterns that match: those of a very large workspace."""

LONGEST_REMEMBERED = 256
"""Characters of such a name; a state may hold one of a megabyte."""

MOST_MATCHES = 10_000_000
"""Patterns that an index remembers for all names together: 80 MB. Thousands of patterns may match each of thousands of
names."""

MOST_GONE = 100
"""Patterns that are gone and still tried, beside as many as there are."""

_APP = re.compile(f"{APP_PREFIX}[0-9A-Fa-f]+")
_CANONICAL = re.compile("[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")

V = TypeVar("V")


class Kind(Enum):
    """What a reference names."""

    CVM = auto()
    APP = auto()
    NAME = auto()
    EVERYTHING = auto()


@dataclass(frozen=True, slots=True)
class Reference:
    """Made by `parse`. `text` is the one spelling of equal references, in which they are stored."""

    text: str
    kind: Kind
    value: str
    """The id, the app as `plain_app` has it, or the pattern."""

    @property
    def is_set(self) -> bool:
        """Whether it may name several CVMs, which come and go."""
        return self.kind is not Kind.CVM

    def matches(self, cvm_id: str | None, app_id: str | None, name: str | None) -> bool:
        """Whether the CVM belongs to it. What is not known of a CVM matches no app and no pattern."""
        match self.kind:
            case Kind.CVM:
                return cvm_id == self.value
            case Kind.APP:
                return plain_app(app_id) == self.value
            case Kind.NAME:
                return name is not None and bool(_matcher(self.value)(name))
        return True


def parse(text: str) -> Reference:
    """Raises ValueError with words that complete an error line about the field that held the text."""
    if usable_id(text) is None:
        raise ValueError("a reference has 1 to 256 printable characters")
    if text == EVERYTHING:
        return Reference(text, Kind.EVERYTHING, text)
    if _APP.fullmatch(text):
        app = text.removeprefix(APP_PREFIX).lower()
        return Reference(f"{APP_PREFIX}{app}", Kind.APP, app)
    if text.startswith(NAME_PREFIX):
        pattern = _pattern(text.removeprefix(NAME_PREFIX))
        return Reference(f"{NAME_PREFIX}{pattern}", Kind.NAME, pattern)
    return Reference(text, Kind.CVM, text)


def is_canonical(text: str) -> bool:
    """Whether it is an id as upstream makes them; any other plain reference may be a name, and names move."""
    return _CANONICAL.fullmatch(text) is not None


def _pattern(text: str) -> str:
    if not text:
        raise ValueError("'name:' can match no CVM: a pattern follows it, as in name:web-*")
    if "[" in text or "]" in text:
        raise ValueError("a pattern of names has no brackets: * stands for any text, ? for one character")
    return re.sub(r"\*+", "*", text)


def plain_app(app_id: str | None) -> str | None:
    """An app's id as it compares: upstream writes it with and without a prefix."""
    return None if app_id is None else app_id.lower().removeprefix(APP_PREFIX)


@lru_cache(maxsize=MOST_COMPILED)
def _matcher(pattern: str) -> Callable[[str], object]:
    if "?" not in pattern:
        return _parts_matcher(pattern)  # made in a thirtieth of the time of an expression
    # Its groups are atomic: however many stars, the time grows with the product of both lengths at most.
    return re.compile(fnmatch.translate(pattern)).match


def _parts_matcher(pattern: str) -> Callable[[str], bool]:
    """For stars alone: the texts between them follow each other, each at the first place where it fits."""
    if "*" not in pattern:
        return lambda name: name == pattern
    start, *middle, end = pattern.split("*")

    def matches(name: str) -> bool:
        at, until = len(start), len(name) - len(end)
        if at > until or not name.startswith(start) or not name.endswith(end):
            return False
        for part in middle:
            if (found := name.find(part, at, until)) < 0:
                return False
            at = found + len(part)
        return True

    return matches


@dataclass(frozen=True, slots=True, kw_only=True)
class ReferenceSet:
    """Several references; a CVM belongs to the set if it belongs to one of them. Equal sets hash alike."""

    cvm_ids: frozenset[str] = frozenset()
    apps: frozenset[str] = frozenset()
    patterns: frozenset[str] = frozenset()
    everything: bool = False

    @classmethod
    def of(cls, references: Iterable[Reference]) -> ReferenceSet:
        values: dict[Kind, set[str]] = {kind: set() for kind in Kind}
        for reference in references:
            values[reference.kind].add(reference.value)
        return cls(
            cvm_ids=frozenset(values[Kind.CVM]),
            apps=frozenset(values[Kind.APP]),
            patterns=frozenset(values[Kind.NAME]),
            everything=bool(values[Kind.EVERYTHING]),
        )

    @classmethod
    def parsed(cls, texts: Iterable[str]) -> ReferenceSet:
        """Raises ValueError as `parse`."""
        return cls.of(map(parse, texts))

    @property
    def is_fixed(self) -> bool:
        """Whether it has ids alone: no CVM comes or goes."""
        return not (self.apps or self.patterns or self.everything)

    @property
    def texts(self) -> frozenset[str]:
        """The references as they are stored."""
        return self.cvm_ids if self.is_fixed else frozenset(reference.text for reference in self)

    def __iter__(self) -> Iterator[Reference]:
        for cvm_id in self.cvm_ids:
            yield Reference(cvm_id, Kind.CVM, cvm_id)
        for app in self.apps:
            yield Reference(f"{APP_PREFIX}{app}", Kind.APP, app)
        for pattern in self.patterns:
            yield Reference(f"{NAME_PREFIX}{pattern}", Kind.NAME, pattern)
        if self.everything:
            yield Reference(EVERYTHING, Kind.EVERYTHING, EVERYTHING)

    def __or__(self, other: ReferenceSet) -> ReferenceSet:
        return ReferenceSet(
            cvm_ids=self.cvm_ids | other.cvm_ids,
            apps=self.apps | other.apps,
            patterns=self.patterns | other.patterns,
            everything=self.everything or other.everything,
        )

    def matches(self, cvm_id: str | None, app_id: str | None, name: str | None) -> bool:
        """As that of a reference. Look-ups, however many there are; the patterns are tried once for each name."""
        return (
            self.everything
            or cvm_id in self.cvm_ids
            or plain_app(app_id) in self.apps
            or (name is not None and bool(self.patterns) and _matches_any(self.patterns, name))
        )


def _matches_any(patterns: frozenset[str], name: str) -> bool:
    if len(name) > LONGEST_REMEMBERED:
        return any(_matcher(pattern)(name) for pattern in patterns)
    return _remembered_match(patterns, name)


@lru_cache(maxsize=MOST_REMEMBERED)
def _remembered_match(patterns: frozenset[str], name: str) -> bool:
    return any(_matcher(pattern)(name) for pattern in patterns)


class ReferenceIndex(Generic[V]):
    """A value for each of many references. Finds those of a CVM without a look at the others.

    Whether a pattern matches a name is found out once, however many look-ups follow and whichever patterns come and go.
    """

    def __init__(self) -> None:
        self._values: dict[Kind, dict[str, V]] = {kind: {} for kind in Kind}
        self._patterns: dict[str, None] = {}
        """Those of the values in the order in which they came, and some that are gone."""
        self._remembered: dict[str, tuple[tuple[str, ...], int]] = {}
        """By name: the patterns that match it, of the first so many."""
        self._matches = 0
        """Of all these names."""

    def __len__(self) -> int:
        return sum(map(len, self._values.values()))

    def get(self, reference: Reference) -> V | None:
        """None where the reference has no value."""
        return self._values[reference.kind].get(reference.value)

    def setdefault(self, reference: Reference, value: V) -> V:
        """The value that the reference has; else it gets this one."""
        if reference.kind is Kind.NAME:
            self._patterns.setdefault(reference.value)
            if "?" in reference.value:
                _matcher(reference.value)  # made now, and not when a name is tried with thousands of new ones
        return self._values[reference.kind].setdefault(reference.value, value)

    def discard(self, reference: Reference) -> None:
        """Removes the reference and its value, if it is there."""
        self._values[reference.kind].pop(reference.value, None)
        if len(self._patterns) > 2 * len(self._values[Kind.NAME]) + MOST_GONE:
            self._patterns = dict.fromkeys(self._values[Kind.NAME])
            self._forget()

    def matching(self, cvm_id: str | None, app_id: str | None, name: str | None) -> Iterator[V]:
        """The values of all references that the CVM belongs to. The index must not change meanwhile."""
        cvms, apps, patterns = (self._values[kind] for kind in (Kind.CVM, Kind.APP, Kind.NAME))
        yield from self._values[Kind.EVERYTHING].values()
        if cvm_id in cvms:
            yield cvms[cvm_id]
        if apps and (app := plain_app(app_id)) in apps:
            yield apps[app]
        for pattern in self._patterns_of(name) if patterns else ():
            if pattern in patterns:
                yield patterns[pattern]

    def _patterns_of(self, name: str | None) -> tuple[str, ...]:
        if name is None:
            return ()
        found, tried = self._remembered.get(name, ((), 0))
        if tried < len(self._patterns):
            new = islice(self._patterns, tried, None)
            known, found = len(found), (*found, *(pattern for pattern in new if _matcher(pattern)(name)))
            if len(name) <= LONGEST_REMEMBERED:
                self._matches += len(found) - known
                if len(self._remembered) >= MOST_REMEMBERED or self._matches > MOST_MATCHES:
                    self._forget()
                    self._matches = len(found)
                self._remembered[name] = found, len(self._patterns)
        return found

    def _forget(self) -> None:
        self._remembered.clear()
        self._matches = 0
