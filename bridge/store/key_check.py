"""Whether this process's keys open what is sealed in Redis (`docs/contract.md#webhooks`).

Redis has a check value for each key that has sealed, made before the first value that it seals. The endpoints
themselves decide: where check values are missing or do not open, all that is sealed in the endpoints is tried, and
where that opens, the check values are made anew. So neither a flushed Redis nor odd check values stop a process whose
keys are right.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bridge.clock import Clock
from bridge.sealing import Sealer
from bridge.store.connection import Backend, Script, load_script
from bridge.store.endpoints import Endpoints, EndpointSet
from bridge.store.errors import StoreError, UnopenedError
from bridge.store.lane_repair import run_lane_script
from bridge.store.limits import LaneLimits
from bridge.store.sealing_key import openers

logger = logging.getLogger(__name__)

LOOK_EVERY = 2.0
"""Seconds between two looks: a key that became wrong is told within that time."""

TRIED_AT_ONCE = 100
"""Endpoints; a sealed text costs some 30 µs, and other tasks must get their turns."""

TEXT = "BRIDGE_SECRET_KEY"
"""What a check value seals."""


@dataclass(frozen=True, slots=True)
class Fit:
    """How many endpoints can be read, and of how many these keys do not open something."""

    endpoints: int = 0
    closed: int = 0

    @property
    def wrong(self) -> bool:
        """These keys open nothing."""
        return 0 < self.endpoints == self.closed

    @property
    def trouble(self) -> str:
        """One line; "" if these keys open everything."""
        return self.told("BRIDGE_SECRET_KEY")

    def told(self, keys: str) -> str:
        """The same for keys of this name."""
        what = f"{self.closed} of {self.endpoints} webhook endpoints in Redis"
        return f"{keys} does not open what is sealed in {what}" if self.closed else ""


@dataclass(frozen=True, slots=True)
class Seen:
    """The number of endpoints, their revision, and the check values by the ids of their keys."""

    endpoints: int
    revision: int
    checks: Mapping[str, str]


_read = load_script("lane_rules", "read_keys")
_replace = load_script("lane_rules", "replace_keys")


async def read_seen(backend: Backend) -> Seen:
    """Raises StoreError."""
    endpoints, revision, flat = await _run(backend, _read)
    return Seen(int(endpoints), int(revision), dict(zip(flat[::2], flat[1::2], strict=True)))


async def _run(backend: Backend, script: Script, *arguments: object) -> Any:
    return await run_lane_script(backend, script, [LaneLimits().to_json(), *arguments])


class KeyCheck:
    """One process's keys; the first is its `SealingKey`. All but `follow` raise StoreError."""

    def __init__(self, backend: Backend, sealer: Sealer) -> None:
        self._backend = backend
        self._sealer = sealer
        self._tried: tuple[Seen, Fit] | None = None
        self.fit = Fit()
        """As `follow` found it last."""

    @property
    def id(self) -> str:
        return self._sealer.first

    def renewed(self, sealed: str) -> str:
        return self._sealer.renewed(sealed)

    async def follow(self, clock: Clock) -> None:
        """Never returns. Keeps `fit` up to date, and logs each change of it."""
        while True:
            try:
                fit = await self.look()
            except StoreError:
                fit = self.fit  # the roles themselves tell it
            if fit.closed and fit.trouble != self.fit.trouble:
                logger.error("webhooks that are sealed with another key get nothing", extra={"error": fit.trouble})
            elif self.fit.closed and not fit.closed:
                logger.info("BRIDGE_SECRET_KEY opens every webhook endpoint again")
            self.fit = fit
            await clock.sleep(LOOK_EVERY)

    async def look(self) -> Fit:
        """Two small commands, unless check values are missing or do not open."""
        seen = await read_seen(self._backend)
        if not seen.endpoints or (seen.checks and all(map(self._opens, seen.checks.values()))):
            return Fit(seen.endpoints)
        if self._tried is None or self._tried[0] != seen:
            self._tried = seen, await self._try(seen)
        return self._tried[1]

    async def register(self) -> None:
        """Makes the check value of the first key. Raises UnopenedError if these keys do not open what is sealed."""
        while True:
            seen = await read_seen(self._backend)
            if seen.endpoints and (await self.look()).closed:
                raise UnopenedError
            if self.id in seen.checks:
                return
            # Without endpoints nothing is sealed: check values that are left over do not count.
            known = seen.checks if seen.endpoints else {}
            if await self._replaced(seen, {**known, self.id: self._check_value(self.id)}):
                return

    async def retire(self, revision: int) -> bool:
        """Leaves the check value of the first key alone. False if an endpoint has changed since `revision`."""
        seen = await read_seen(self._backend)
        return seen.revision == revision and await self._replaced(seen, {self.id: self._check_value(self.id)})

    async def _try(self, seen: Seen) -> Fit:
        """Opens what is sealed in the endpoints, and makes the check values anew if it does."""
        fit, used = await self.tried(await Endpoints(self._backend).all())
        if fit.closed and not seen.checks and not fit.wrong:
            # Made by a version without check values, perhaps after a key was removed too early. The rest goes on.
            logger.error("webhooks that are sealed with another key get nothing", extra={"error": fit.trouble})
            fit = Fit(fit.endpoints)
        if used and not fit.closed:
            await self._replaced(seen, {key_id: self._check_value(key_id) for key_id in used})
        return fit

    async def tried(self, known: EndpointSet) -> tuple[Fit, set[str]]:
        """The fit with these endpoints, and the ids of the keys that opened something."""
        closed, used = 0, set[str]()
        for number, endpoint in enumerate(known.endpoints.values()):
            if number % TRIED_AT_ONCE == 0:
                await asyncio.sleep(0)
            found = openers(endpoint, self._sealer)
            closed += None in found
            used.update(key_id for key_id in found if key_id is not None)
        return Fit(len(known.endpoints), closed), used

    async def _replaced(self, seen: Seen, checks: Mapping[str, str]) -> bool:
        flat = [[each for pair in some.items() for each in pair] for some in (seen.checks, checks)]
        return bool(int(await _run(self._backend, _replace, seen.revision, len(seen.checks), *flat[0], *flat[1])))

    def _check_value(self, key_id: str) -> str:
        return self._sealer.seal(TEXT, key_id)

    def _opens(self, check: str) -> bool:
        return self._sealer.opener(check) is not None
