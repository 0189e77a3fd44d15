"""Which CVMs somebody gets: those that they name, as far as they may see them. Both follow each event by itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from bridge.reference_sets import ReferenceSet, is_canonical


class Identified(Protocol):
    """What tells to which sets a CVM belongs; events, frames and snapshots have it."""

    @property
    def cvm_id(self) -> str: ...
    @property
    def app_id(self) -> str | None: ...
    @property
    def name(self) -> str | None: ...


@dataclass(frozen=True, slots=True)
class CvmIdentity:
    """The three alone."""

    cvm_id: str
    app_id: str | None = None
    name: str | None = None


def holds(references: ReferenceSet | None, cvm: Identified) -> bool:
    """Whether the CVM belongs to them; None: every CVM does."""
    return references is None or references.matches(cvm.cvm_id, cvm.app_id, cvm.name)


@dataclass(frozen=True, slots=True)
class CvmScope:
    """The CVMs that are in both sets. `named`: what a client asked for; `limit`: what its token may see; None: all."""

    named: ReferenceSet | None = None
    limit: ReferenceSet | None = None

    def has(self, cvm: Identified) -> bool:
        return holds(self.named, cvm) and holds(self.limit, cvm)

    @property
    def is_every(self) -> bool:
        return all(each is None or each.everything for each in (self.named, self.limit))

    @property
    def cvm_ids(self) -> frozenset[str] | None:
        """Its CVMs, where ids alone decide; None where each CVM's app or name does, or it has every CVM."""
        sets = [each for each in (self.named, self.limit) if each is not None and not each.everything]
        if not sets or not all(each.is_fixed for each in sets):
            return None
        return frozenset.intersection(*(each.cvm_ids for each in sets))

    @property
    def narrower(self) -> ReferenceSet | None:
        """The set by which to look for its CVMs; None where it has every CVM."""
        sets = (each for each in (self.named, self.limit) if each is not None and not each.everything)
        return next(sets, None)

    @property
    def patterns(self) -> frozenset[str]:
        """Those by which to look for its CVMs."""
        return self.narrower.patterns if self.narrower is not None else frozenset()

    @property
    def demands(self) -> ReferenceSet:
        """The references that must be watched because somebody named them.

        A set that is larger than what they may see, as far as the references tell, stands for all that they may see.
        """
        if self.named is None:
            return ReferenceSet()
        if self.named.is_fixed or self.limit is None:
            return self.named
        sets = frozenset(each for each in self.named if each.is_set)
        own = frozenset(each for each in self.limit if each.is_set or is_canonical(each.text))
        return ReferenceSet(cvm_ids=self.named.cvm_ids) | ReferenceSet.of(sets if sets <= own else own)


EVERY_CVM = CvmScope()
