"""Consumer groups on the log: queues of others, for which trimming waits (docs/contract.md#queues)."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from bridge.clock import Clock
from bridge.config import Settings
from bridge.events import entry_key
from bridge.store.connection import Backend, load_script
from bridge.store.errors import StoreUnavailableError
from bridge.store.foreign import TIME_DIGITS, decimal

logger = logging.getLogger(__name__)

GROUP_IDLE = Settings().group_idle
"""Seconds; the default of BRIDGE_GROUP_IDLE."""

LOOK_EVERY = 5.0
"""Seconds between two looks at the groups: no append pays for one, and a position that is older is only smaller."""

WELCOME = 600.0
"""Seconds for which a new leader sets no group aside: after an outage, consumers come back together with it."""

MOST_GROUPS = 1000
"""Groups that are looked at. Redis lists all at once, some microseconds each, in which it answers no other client."""


@dataclass(frozen=True, slots=True)
class Group:
    """`name`: as printable ASCII; of more than 100 bytes their beginning, length and hash."""

    name: str
    delivered: str
    """The id of the last entry that it was given."""


@dataclass(frozen=True, slots=True)
class Seen:
    """A group that had something to read: since when, by Redis's clock in ms, it was not given anything."""

    delivered: str
    since_ms: int

    @classmethod
    def parse(cls, text: str) -> Seen | None:
        delivered, _, since = text.partition(" ")
        since_ms = decimal(since, TIME_DIGITS)
        return None if since_ms is None else cls(delivered, since_ms)

    def __str__(self) -> str:
        return f"{self.delivered} {self.since_ms}"


@dataclass(frozen=True, slots=True)
class Judgement:
    """What one look shows."""

    position: str = ""
    """Up to here every group has read that is not idle; empty where there is none."""
    idle: tuple[Group, ...] = ()
    """Those for which trimming does not wait."""
    seen: Mapping[str, Seen] = field(default_factory=dict)
    """Those that have something to read, for the next look."""


def judge(groups: Iterable[Group], seen: Mapping[str, Seen], end: str, now_ms: int, idle_ms: float) -> Judgement:
    """A group is idle that could have read for so long and was given nothing. One that has read all is not, however
    quiet the log is. `end`: the id of the log's last entry.
    """
    waiting, idle, position = dict[str, Seen](), list[Group](), ""
    for group in groups:
        if entry_key(group.delivered) < entry_key(end):
            before = seen.get(group.name)
            is_same = before is not None and before.delivered == group.delivered
            since_ms = min(before.since_ms, now_ms) if before and is_same else now_ms
            waiting[group.name] = Seen(group.delivered, since_ms)
            if now_ms - since_ms >= idle_ms:
                idle.append(group)
                continue
        position = min(position or group.delivered, group.delivered, key=entry_key)
    return Judgement(position, tuple(idle), waiting)


@dataclass(frozen=True, slots=True)
class Look:
    """What Redis tells of the groups at one moment. `remembered`: what earlier looks left, as it is stored."""

    now_ms: int
    end: str
    is_bounded: bool
    """False: there are more than MOST_GROUPS, and `groups` is empty."""
    groups: Sequence[Group]
    remembered: Mapping[str, str]

    def judge(self, idle: float) -> Judgement:
        """`idle`: seconds. As if a group had read nothing where there are too many."""
        if not self.is_bounded:
            return Judgement("0-0")
        seen = {name: each for name, text in self.remembered.items() if (each := Seen.parse(text))}
        return judge(self.groups, seen, self.end, self.now_ms, idle * 1000)


_read = load_script("group_rules", "read_groups")


async def look(backend: Backend) -> Look:
    """Raises StoreError."""
    names = [backend.keys.log, backend.keys.seen_groups]
    now_ms, end, too_many, listed, known = await backend.run(_read, names, [MOST_GROUPS])
    groups = [Group(name, delivered) for name, delivered in listed]
    return Look(int(now_ms), end, not too_many, groups, dict(zip(*[iter(known)] * 2, strict=True)))


class ConsumerGroups:
    """The groups as of the last look. What it remembers of them stands in Redis: the next leader goes on with it."""

    def __init__(self, backend: Backend, idle: float, clock: Clock) -> None:
        """`idle`: seconds."""
        self._backend = backend
        self._clock = clock
        self._idle_after = idle
        self._idle_from = clock.monotonic() + min(idle, WELCOME)
        self._look_at = -math.inf
        self._position = ""
        self._idle: frozenset[str] = frozenset()
        self._was_bounded = True

    async def position(self) -> str:
        """The id up to which every group has read, at most LOOK_EVERY seconds ago; empty if none counts. Raises
        StoreError.
        """
        now = self._clock.monotonic()
        if now >= self._look_at:
            found = await look(self._backend)
            judgement = found.judge(self._idle_after if now >= self._idle_from else math.inf)
            if found.is_bounded:
                await self._remember(found.remembered, {name: str(each) for name, each in judgement.seen.items()})
            self._tell(found, judgement)
            self._position, self._look_at = judgement.position, now + LOOK_EVERY
        return self._position

    def is_idle(self, name: str) -> bool:
        return name in self._idle

    async def _remember(self, before: Mapping[str, str], after: Mapping[str, str]) -> None:
        client, key = self._backend.client, self._backend.keys.seen_groups
        if gone := before.keys() - after.keys():
            await self._backend.call(client.hdel(key, *gone))
        if changed := dict(after.items() - before.items()):
            with suppress(StoreUnavailableError):  # a full Redis takes it later, once the log could be trimmed
                await self._backend.call(client.hset(key, mapping=changed))

    def _tell(self, found: Look, judgement: Judgement) -> None:
        """Once for each group, as long as it is idle, and once while there are too many."""
        idle = frozenset(group.name for group in judgement.idle)
        for name in idle - self._idle:
            logger.warning("a consumer group reads nothing: the log waits for it no more", extra={"group": name})
        if self._was_bounded and not found.is_bounded:
            told = {"most": MOST_GROUPS}
            logger.error("too many consumer groups: the log is kept as if one had read nothing", extra=told)
        self._idle, self._was_bounded = idle, found.is_bounded
