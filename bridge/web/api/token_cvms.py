"""The CVMs of tokens that have them by name: looked up at the start and again and again, because names move."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping

from bridge.clock import set_within
from bridge.reference_sets import ReferenceSet
from bridge.store.errors import StoreError
from bridge.web.api.references import ReferenceRefusedError, References
from bridge.web.http.access import ANYBODY, Access
from bridge.web.http.problems import ProblemError

logger = logging.getLogger(__name__)

LOOK_UP_EVERY = 10.0
"""Seconds. An answer is kept for a minute, so that a name that has moved counts here within 90 s, waits included."""


class TokenCvms:
    """`limit` gets the CVMs of each such token after each round: a stream may have begun with what they were before."""

    def __init__(
        self, access: Access, references: References, limit: Callable[[Mapping[str, ReferenceSet]], None]
    ) -> None:
        self._access = access
        self._references = references
        self._limit = limit
        self._found: dict[str, str | None] = {}
        """By reference. None: upstream knows no such CVM, or several; absent: not known at the moment."""
        self.tokens_changed = asyncio.Event()
        """Set it to have names looked up without delay."""

    async def run(self) -> None:
        """Never returns; ends by cancellation."""
        while True:
            self.tokens_changed.clear()
            await self.look_up()
            await set_within(self.tokens_changed, LOOK_UP_EVERY)

    async def look_up(self) -> None:
        wanted = frozenset[str]().union(*self._access.named.values())
        await asyncio.gather(*map(self._look_up, sorted(wanted)))
        named, cvms = self._access.named, {}  # read again, because the tokens may have changed
        self._found = {each: found for each, found in self._found.items() if each in wanted}
        for name, references in named.items():
            found = [cvm_id for each in references if (cvm_id := self._found.get(each)) is not None]
            complete = all(each in self._found for each in references)
            cvms[name] = self._access.grant(name, found, complete=complete)
        if cvms:
            self._limit(cvms)

    async def _look_up(self, reference: str) -> None:
        before = self._found.get(reference, "")
        try:
            self._found[reference] = (await self._references.find([reference], ANYBODY)).cvm_ids[0]
        except StoreError:
            return  # without Redis there is nothing new to see either
        except ReferenceRefusedError as error:
            if error.answer.is_final:
                self._found[reference] = None
            else:
                self._found.pop(reference, None)
        except ProblemError:
            self._found.pop(reference, None)
        if self._found.get(reference, "") is None and before is not None:
            about = {"reference": reference}
            logger.warning(
                "a token is limited to a CVM that upstream does not know, or by a name of several", extra=about
            )
