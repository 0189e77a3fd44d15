"""Watches: the CVMs to follow, because they are pinned or subscribed to."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from bridge import reference_sets
from bridge.events import dumps
from bridge.store.connection import Backend, load_script
from bridge.store.foreign import is_name, json_object, names, whole_number

logger = logging.getLogger(__name__)

LONGEST_ANNOUNCEMENT = 600_000
"""Milliseconds; those of the bridge last some seconds. A time that is further ahead is none."""

MOST_SUBSCRIBERS = 1_000_000_000
"""Of one CVM at one front end; a larger number is none."""

LOOKUP_SECONDS = 60.0
"""A reference that was asked for longer ago is left alone: a caller that waits asks again (`ask_lookup.lua`)."""

WATCH_CHANGED = "watch"
"""The message on the wake channel of a change that the leader must see at once."""

CLOCK_STEP = 60_000
"""Milliseconds: a watch that is wanted further ahead has no time that can be read, or the server's clock stepped."""


@dataclass(frozen=True, slots=True)
class Watch:
    """One watched CVM; `subscribers` over all front ends."""

    cvm_id: str
    pinned: bool
    pinned_by_config: bool
    subscribers: int


@dataclass(frozen=True, slots=True)
class Survey:
    """All that front ends ask of the leader, read at once. `watches` maps to the time last wanted, ms.

    `demand`: subscribers by the canonical id that they name; `sets`: by the text of a reference to a set.
    """

    now_ms: int
    watches: dict[str, int] = field(default_factory=dict)
    pins: frozenset[str] = frozenset()
    config_pins: frozenset[str] = frozenset()
    demand: dict[str, int] = field(default_factory=dict)
    sets: dict[str, int] = field(default_factory=dict)
    lookups: tuple[str, ...] = ()
    hints: tuple[str, ...] = ()
    revision: str | None = None
    """Another one after each change of the rest; None where Redis has none."""


class Watches:
    """The watch list. A watch is wanted by a pin, by demand, or until its linger time after the last of these."""

    _touch = load_script("touch_watches")

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._announced: dict[str, dict[str, int]] = {}
        """As this process announced it last, by front end: one, or in tests a few."""
        self._reported: set[str] = set()
        """Keys with members that are no names; of no more than there are kinds of keys."""

    async def survey(self, known: Survey | None = None) -> Survey:
        """All that the leader needs; expired announcements of front ends are left out.

        `known`: an earlier survey. Where its revision is still the present one, only look-ups and hints are read anew.
        """
        keys = self._backend.keys
        now = await self._backend.now_ms()
        if known is not None and known.revision is not None:

            def again(pipe: Any) -> None:
                pipe.get(keys.watches_revision)
                self._ask(pipe, now)

            revision, lookups, hints = await self._backend.read_together(again)
            if revision == known.revision:
                asked = self._names(keys.lookups, lookups), self._names(keys.hints, hints)
                return replace(known, now_ms=now, lookups=asked[0], hints=asked[1])

        def everything(pipe: Any) -> None:
            pipe.get(keys.watches_revision)
            pipe.zrange(keys.watches, 0, -1, withscores=True)
            pipe.execute_command("SMEMBERS", keys.pins)
            pipe.execute_command("SMEMBERS", keys.config_pins)
            pipe.execute_command("HGETALL", keys.demand)
            self._ask(pipe, now)

        found = await self._backend.read_together(everything)
        revision, watches, pins, config_pins, demand, lookups, hints = found
        scores = dict(watches)
        wanted = {cvm_id: _moment(scores[cvm_id], now) for cvm_id in self._names(keys.watches, scores)}
        if odd := {cvm_id: now for cvm_id, moment in wanted.items() if moment is None}:
            # Its linger time runs from now.
            await self._backend.call(self._backend.client.zadd(keys.watches, odd, xx=True))
        return Survey(
            now,
            {cvm_id: now if moment is None else moment for cvm_id, moment in wanted.items()},
            frozenset(self._names(keys.pins, pins)),
            frozenset(self._names(keys.config_pins, config_pins)),
            *_summed(demand, now),
            self._names(keys.lookups, lookups),
            self._names(keys.hints, hints),
            revision,
        )

    def _ask(self, pipe: Any, now: int) -> None:
        keys = self._backend.keys
        pipe.zrangebyscore(keys.lookups, now / 1000 - LOOKUP_SECONDS, now / 1000 + LOOKUP_SECONDS, 0, 100)
        pipe.execute_command("SMEMBERS", keys.hints)

    def _names(self, key: str, members: Iterable[str]) -> tuple[str, ...]:
        """Without members that name no CVM; their key is logged once."""
        found = tuple(members)
        kept = names(found)
        if len(kept) < len(found) and key not in self._reported:
            self._reported.add(key)
            extra = {"key": key, "members": len(found) - len(kept)}
            logger.warning("members of a key in Redis are no names of CVMs and are ignored", extra=extra)
        return kept

    async def list(self, after: str = "", limit: int = 100) -> list[Watch]:
        """Watches by ascending canonical id, those above `after`."""
        survey = await self.survey()
        pins = survey.pins | survey.config_pins
        ids = sorted(cvm_id for cvm_id in survey.watches if cvm_id > after)[:limit]
        return [Watch(each, each in pins, each in survey.config_pins, survey.demand.get(each, 0)) for each in ids]

    async def get(self, cvm_id: str) -> Watch | None:
        """None if it is not watched. Reads only this watch's records."""
        return next(iter(await self.some([cvm_id])), None)

    async def some(self, cvm_ids: Sequence[str]) -> Sequence[Watch]:
        """Those of the ids that are watched, in their order; as many calls for many as for one."""
        if not cvm_ids:
            return []
        keys, now = self._backend.keys, await self._backend.now_ms()

        def queue(pipe: Any) -> None:
            pipe.execute_command("ZMSCORE", keys.watches, *cvm_ids)
            pipe.execute_command("SMISMEMBER", keys.pins, *cvm_ids)
            pipe.execute_command("SMISMEMBER", keys.config_pins, *cvm_ids)
            pipe.execute_command("HGETALL", keys.demand)

        *found, demand = await self._backend.read_together(queue)
        counts, _ = _summed(demand, now)
        return [
            Watch(cvm_id, bool(pinned or by_config), bool(by_config), counts.get(cvm_id, 0))
            for cvm_id, wanted, pinned, by_config in zip(cvm_ids, *found, strict=True)
            if wanted is not None
        ]

    async def existing(self, cvm_ids: Sequence[str]) -> set[str]:
        """Those of the ids that are watched, in one round trip."""
        if not cvm_ids:
            return set()
        scores = await self._backend.call(self._backend.client.zmscore(self._backend.keys.watches, list(cvm_ids)))
        return {cvm_id for cvm_id, score in zip(cvm_ids, scores, strict=True) if score is not None}

    async def want(self, cvm_id: str) -> bool:
        """Makes the watch or renews it. True when it is new."""
        return await self.renew([cvm_id]) > 0

    async def renew(self, cvm_ids: Iterable[str]) -> int:
        """Marks the watches as wanted now, making those that are missing. Returns how many are new."""
        now = await self._backend.now_ms()
        scores = dict.fromkeys(cvm_ids, now)
        if not scores:
            return 0
        added = int(await self._backend.call(self._backend.client.zadd(self._backend.keys.watches, scores)))
        if added:
            await self.wake(WATCH_CHANGED)
        return added

    async def pin(self, cvm_id: str) -> bool:
        """Pins by the API; True when it was not pinned so before."""
        added = await self._backend.call(self._backend.client.sadd(self._backend.keys.pins, cvm_id))
        if not await self.want(cvm_id) and added:
            await self.wake(WATCH_CHANGED)
        return bool(added)

    async def unpin(self, cvm_id: str) -> bool:
        """Drops the API's pin and the linger time with it; True when there was a pin or a watch."""
        keys = self._backend.keys
        async with self._backend.transaction() as pipe:  # at once: without its pin alone its linger time would begin
            pipe.srem(keys.pins, cvm_id)
            pipe.zscore(keys.watches, cvm_id)
            pipe.zadd(keys.watches, {cvm_id: 0}, xx=True)
            removed, score, _ = await self._backend.call(pipe.execute())
        known = score is not None
        if removed or known:
            await self.wake(WATCH_CHANGED)
        return bool(removed) or known

    async def config_pins(self) -> set[str]:
        """The leader's own pins (`BRIDGE_CVMS`)."""
        return set(await self._backend.call(self._backend.client.smembers(self._backend.keys.config_pins)))

    async def change_config_pins(self, added: Iterable[str], removed: Iterable[str] = ()) -> None:
        """Adds and removes some of them. Those that are added are watched from now on."""
        keys, now = self._backend.keys, await self._backend.now_ms()
        new, old = list(added), list(removed)
        async with self._backend.transaction() as pipe:
            if old:
                pipe.srem(keys.config_pins, *old)
            if new:
                pipe.sadd(keys.config_pins, *new)
                pipe.zadd(keys.watches, dict.fromkeys(new, now))
            if new or old:
                await self._backend.call(pipe.execute())
        await self.wake("")

    async def announce(self, front: str, demand: Mapping[str, int], ttl: float) -> None:
        """A front end's subscribers per canonical id and per reference to a set; forgotten after `ttl` seconds unless
        announced again."""
        now, counts = await self._backend.now_ms(), dict(demand)
        # Apart, because leaders of earlier versions take every key of `cvms` for a CVM.
        sets = {reference: count for reference, count in counts.items() if _is_set(reference)}
        cvms = {cvm_id: count for cvm_id, count in counts.items() if cvm_id not in sets}
        text = dumps({"until": now + int(ttl * 1000), "cvms": cvms} | ({"sets": sets} if sets else {}))
        new = await self._backend.call(self._backend.client.hset(self._backend.keys.demand, front, text))
        if new or counts != self._announced.get(front):
            await self.wake("")
        self._announced[front] = counts

    async def retire(self, front: str) -> None:
        """The front end ends: its demand ends now."""
        await self._backend.call(self._backend.client.hdel(self._backend.keys.demand, front))
        await self.wake("")

    async def sweep(self) -> None:
        """Removes expired announcements of front ends that vanished."""
        now = await self._backend.now_ms()
        raw = await self._backend.call(self._backend.client.hgetall(self._backend.keys.demand))
        gone = [front for front, text in raw.items() if _announced(text, now) is None]
        if gone:
            await self._backend.call(self._backend.client.hdel(self._backend.keys.demand, *gone))
            await self.wake("")

    async def wake(self, why: str) -> None:
        """Tells the leader that watches, pins or demand changed: it looks within a second, at once for `WATCH_CHANGED`.

        Where this does not come to pass after the change, the leader sees the change some seconds later.
        """
        keys = self._backend.keys
        await self._backend.run(self._touch, [keys.watches_revision], [keys.wake_channel, why])


def _moment(score: float, now: int) -> int | None:
    return whole_number(score, now + CLOCK_STEP)


def _announced(text: str, now: int) -> tuple[dict[str, int], dict[str, int]] | None:
    """Subscribers per CVM and per set; None once the announcement has expired, and where it cannot be read."""
    fields = json_object(text)
    until, cvms = whole_number(fields.get("until"), now + LONGEST_ANNOUNCEMENT), fields.get("cvms")
    if until is None or until <= now or not isinstance(cvms, dict):
        return None
    sets = fields.get("sets")
    return _counts(cvms, is_name), _counts(sets if isinstance(sets, dict) else {}, _is_set)


def _counts(subscribers: Mapping[str, object], readable: Callable[[str], bool]) -> dict[str, int]:
    counts = {key: whole_number(count, MOST_SUBSCRIBERS) for key, count in subscribers.items() if readable(key)}
    return {key: count for key, count in counts.items() if count}


def _is_set(reference: str) -> bool:
    try:
        return reference_sets.parse(reference).is_set
    except ValueError:
        return False


def _summed(raw: Mapping[str, str], now: int) -> tuple[dict[str, int], dict[str, int]]:
    """Over all front ends: per CVM, and per set."""
    cvms, sets = Counter[str](), Counter[str]()
    for text in raw.values():
        if announced := _announced(text, now):
            cvms.update(announced[0])
            sets.update(announced[1])
    return dict(cvms), dict(sets)
