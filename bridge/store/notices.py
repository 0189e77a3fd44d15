"""Notices: what becomes an event although no CVM's state has changed. Any process leaves one, the leader writes it.

These are Phala Cloud's own webhooks, and what the health of the bridge's webhook endpoints tells
(`endpoint_notices.py`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from bridge import tracing
from bridge.clock import rfc3339
from bridge.events import UnparsableStateError, entry_key, parse_object, phala_type, usable_id
from bridge.store.connection import Backend, load_script
from bridge.store.endpoint_notices import EndpointNotice
from bridge.store.errors import StoreError, StoreUnavailableError, TooManyNoticesError
from bridge.store.foreign import decimal
from bridge.tracing import Trace

T = TypeVar("T")

MOST_NOTICES = 1000
"""Notices that wait for a leader, each of at most 64 KiB: Phala Cloud sends what is refused again for an hour."""

KNOWN_SECONDS = 30 * 86_400
"""How long a name is known: a notice that comes again under it is no second event."""

MOST_KNOWN = 50_000
"""Names that are known; the oldest are forgotten first. One a minute for a month."""

READ_AT_ONCE = 50

MOST_AHEAD = 86_400_000
"""Milliseconds by which an id may be ahead of the server's clock, which may have stepped back."""

NOTICE_LEFT = "notice"
"""The message on the wake channel."""


@dataclass(frozen=True, slots=True)
class PhalaNotice:
    """One webhook. `id` is that of its entry in Redis, `envelope` its JSON as it came, `fields` the same parsed.

    `time`: when it was left, by Redis's clock: RFC 3339.
    """

    id: str
    time: str
    name: str
    """The `evt_…` id."""
    type: str
    reference: str | None
    """The CVM as Phala Cloud names it."""
    envelope: str
    fields: Mapping[str, Any]
    trace: Trace | None = None
    """That of the call which brought it, if the caller named one."""

    @classmethod
    def of(cls, text: str, entry_id: str = "", time: str = "", trace: Trace | None = None) -> PhalaNotice | None:
        """None for a text that cannot be an event."""
        try:
            envelope, fields = parse_object(text)
        except UnparsableStateError:
            return None
        name, type = usable_id(fields.get("id")), phala_type(fields.get("event"))
        if name is None or type is None:
            return None
        data = fields.get("data")
        reference = usable_id(data.get("cvm_id")) if isinstance(data, dict) else None
        return cls(entry_id, time, name, type, reference, envelope, fields, trace)


class Notices:
    """`leave`: any process; the rest: the leader. `LogWriter.append_notice` takes one away, with its event."""

    _leave = load_script("leave_notice")
    _read = load_script("read_notices")

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    async def leave(self, notice: PhalaNotice) -> bool:
        """When it returns, Redis has the notice. False: it had one of this name, written or not.

        Raises TooManyNoticesError, StoreUnavailableError: then it may be left again.
        """
        keys = self._backend.keys
        arguments = [
            notice.name,
            notice.envelope,
            MOST_NOTICES,
            KNOWN_SECONDS,
            MOST_KNOWN,
            keys.wake_channel,
            NOTICE_LEFT,
        ]
        arguments += [notice.trace.traceparent, notice.trace.state] if notice.trace else ["", ""]
        left = await self._backend.run(self._leave, [keys.notices, keys.known_notices], arguments)
        if left < 0:
            raise TooManyNoticesError
        return bool(left)

    async def waiting(self) -> list[PhalaNotice | EndpointNotice]:
        """The first ones, in order. What no bridge left there is removed."""
        client, key = self._backend.client, self._backend.keys.notices
        while True:
            now, entries = await self._backend.run(self._read, [key], [READ_AT_ONCE, MOST_AHEAD])
            found = {each: _notice(each, fields, int(now)) for each, fields in _pairs(entries)}
            if not (foreign := [entry_id for entry_id, notice in found.items() if notice is None]):
                return [notice for notice in found.values() if notice]
            await self._backend.call(client.xdel(key, *foreign))

    async def take_untold(self) -> int:
        """How many did not fit since the last call, and are told to nobody."""
        client, key = self._backend.client, self._backend.keys.webhooks
        try:
            if await self._backend.call(client.hget(key, "untold")) is None:
                return 0
            # In one step: what a dispatcher counts between the two would be forgotten.
            async with self._backend.transaction() as pipe:
                pipe.execute_command("HGET", key, "untold")
                pipe.hdel(key, "untold")
                untold, _ = await self._backend.call(pipe.execute())
            return decimal(untold, 15) or 0
        except StoreUnavailableError:
            raise
        except StoreError:
            return 0  # the key has another type, which the dispatchers mend


def _notice(entry_id: str, flat: Sequence[str], now_ms: int) -> PhalaNotice | EndpointNotice | None:
    """Behind an entry that the bridge did not write, ids may be far ahead."""
    fields, time = dict(_pairs(flat)), rfc3339(min(entry_key(entry_id)[0], now_ms) / 1000)
    if "envelope" in fields:
        trace = tracing.read(fields.get("traceparent"), fields.get("tracestate"))
        return PhalaNotice.of(fields["envelope"], entry_id, time, trace)
    return EndpointNotice.of(entry_id, fields, time)


def _pairs(flat: Sequence[T]) -> Iterator[tuple[T, T]]:
    return zip(flat[::2], flat[1::2], strict=True)
