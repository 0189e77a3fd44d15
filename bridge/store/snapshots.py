"""The last known state of each watched CVM, in the hash that Redis consumers read (`docs/contract.md#redis`).

What is stored changes with events, and else rarely: when a state was confirmed since then is in `confirmations.py`, and
a snapshot that is read here has the later time.

Beside it, each CVM's last confirmed batch digest, so that a new leader need not read every state again at once: one
text per CVM, the event that made its state and the digest of the batch answer that belongs to that state. Writes of
these are not fenced: a digest counts only together with its event, whichever process wrote it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from bridge.events import dumps, entry_key
from bridge.readiness import Operation, Readiness, read_operation
from bridge.store.confirmations import confirmed_times
from bridge.store.connection import Backend, load_script
from bridge.store.foreign import flag, is_name

HEADS_AT_ONCE = 500
"""CVMs per script: some 2 ms, during which the server answers no other client."""

_STATE_HEAD = '{"state":'
# `name` and what follows stay together at the end, where `read_names.lua` looks for them.
_IN_HEAD = (
    "app_id",
    "ready",
    "operation",
    "status",
    "name",
    "since",
    "observed_at",
    "fresh",
    "stale_reason",
    "ever_ran",
)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The last known state of one CVM; times are RFC 3339, None before the CVM is first seen.

    `raw_state` is upstream's JSON, None once deleted. `stale_reason` is None while `fresh`. `ever_ran` is whether the
    CVM was ever seen running, which distinguishes its first start from later ones in the `phala` webhook format.
    `ready` is None where upstream has told nothing of operations, also in snapshots of earlier versions.
    """

    cvm_id: str
    raw_state: str | None
    status: str | None
    name: str | None
    since: str | None
    observed_at: str | None
    event_id: str = ""
    fresh: bool = True
    stale_reason: str | None = None
    ever_ran: bool = False
    app_id: str | None = None
    ready: bool | None = None
    operation: Operation | None = None

    @property
    def readiness(self) -> Readiness:
        return Readiness(self.ready, self.operation)

    def with_readiness(self, readiness: Readiness) -> Snapshot:
        return replace(self, ready=readiness.ready, operation=readiness.operation)

    def head(self) -> str:
        """The JSON without `event_id` and closing brace: the append script adds both with the id it assigned."""
        rest = {name: getattr(self, name) for name in _IN_HEAD} | {"operation": self.readiness.operation_fields()}
        return f"{_STATE_HEAD}{self.raw_state or 'null'},{dumps(rest)[1:-1]}"

    def to_json(self) -> str:
        return f'{self.head()},"event_id":"{self.event_id}"}}'

    def confirmed(self, at: str | None) -> Snapshot:
        """Confirmed at this RFC 3339 time, if that is later; not before the CVM was first seen."""
        later = at is not None and self.observed_at is not None and at > self.observed_at
        return replace(self, observed_at=at) if later else self

    @classmethod
    def from_json(cls, cvm_id: str, text: str) -> Snapshot:
        """Raises ValueError for a field that the bridge did not write."""
        if not text.startswith(_STATE_HEAD) or not is_name(cvm_id):
            raise ValueError("not a snapshot of the bridge")
        try:
            state, end = json.JSONDecoder(parse_int=str).raw_decode(text, len(_STATE_HEAD))
            fields = json.loads(f"{{{text[end + 1 :]}")
        except RecursionError as error:
            raise ValueError("not a snapshot of the bridge") from error
        event_id = _text(fields, "event_id") or ""
        if event_id:
            entry_key(event_id)
        return cls(
            cvm_id,
            None if state is None else _one_line(text[len(_STATE_HEAD) : end]),
            _text(fields, "status"),
            _text(fields, "name"),
            _text(fields, "since"),
            _text(fields, "observed_at"),
            event_id,
            bool(fields.get("fresh")),
            _text(fields, "stale_reason"),
            bool(fields.get("ever_ran")),
            _text(fields, "app_id"),
            flag(fields.get("ready")),
            read_operation(fields.get("operation")),
        )


@dataclass(frozen=True, slots=True)
class SnapshotHead:
    """What filters compare of a snapshot."""

    cvm_id: str
    app_id: str | None
    name: str | None
    status: str | None
    ready: bool | None


def _head(cvm_id: str, fields: Mapping[str, object]) -> SnapshotHead:
    """Raises ValueError if these are no fields of a snapshot."""
    if "event_id" not in fields or not is_name(cvm_id):
        raise ValueError("not a snapshot of the bridge")
    app_id, name, status = (_text(fields, each) for each in ("app_id", "name", "status"))
    return SnapshotHead(cvm_id, app_id, name, status, flag(fields.get("ready")))


def _text(fields: Mapping[str, object], name: str) -> str | None:
    value = fields.get(name)
    if value is not None and not isinstance(value, str):
        raise ValueError("not a snapshot of the bridge")
    return value


def _one_line(raw: str) -> str:
    """Raises ValueError for a text that would be more than one line of an SSE stream."""
    if len(raw.splitlines()) > 1:
        raise ValueError("not a state as the bridge writes it")
    return raw


def _parse_all(
    states: Mapping[str, str], confirmed: Mapping[str, str], rounds: Mapping[str, str]
) -> dict[str, Snapshot]:
    """The three hashes as snapshots, without fields that the bridge did not write."""
    found, times = {}, confirmed_times(confirmed, rounds)
    for cvm_id, text in states.items():
        with suppress(ValueError):
            found[cvm_id] = Snapshot.from_json(cvm_id, text).confirmed(times.get(cvm_id))
    return found


async def read_all(backend: Backend, *command: str) -> tuple[Any, dict[str, Snapshot]]:
    """The answer of `command` and all snapshots, as of one moment."""
    keys = backend.keys

    def queue(pipe: Any) -> None:
        pipe.execute_command(*command)
        for key in (keys.state, keys.confirmed, keys.rounds):
            pipe.execute_command("HGETALL", key)

    answer, states, *times = await backend.read_together(queue, needed=2)
    # Times are private: where Redis holds something else in their place, there are none.
    return answer, _parse_all(states, *({} if isinstance(each, Exception) else each for each in times))


class Snapshots:
    """Reads snapshots with the time of their last confirmation. Only the leader writes them (`log_writer.py`)."""

    _read = load_script("read_snapshots")
    _read_names = load_script("read_names")
    _read_heads = load_script("read_heads")

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    async def get(self, cvm_ids: Sequence[str]) -> dict[str, Snapshot]:
        """The snapshots of those of `cvm_ids` that have one."""
        if not cvm_ids:
            return {}
        keys = self._backend.keys
        found = await self._backend.run(self._read, [keys.state, keys.confirmed, keys.rounds], cvm_ids)
        return _parse_all(*(dict(zip(fields[::2], fields[1::2], strict=True)) for fields in found))

    async def names(self) -> dict[str, str]:
        """The names of all CVMs that have one, by canonical id. Of large states, only these leave Redis."""
        flat = await self._backend.run(self._read_names, [self._backend.keys.state], [])
        found = {}
        for cvm_id, text in zip(flat[::2], flat[1::2], strict=True):
            with suppress(ValueError):
                if is_name(cvm_id) and isinstance(name := json.loads(text), str):
                    found[cvm_id] = name
        return found

    async def heads(self, cvm_ids: Sequence[str]) -> dict[str, SnapshotHead]:
        """Those of the CVMs that have been seen. Of large states, only these leave Redis."""
        found, whole = {}, []
        for start in range(0, len(cvm_ids), HEADS_AT_ONCE):
            some = cvm_ids[start : start + HEADS_AT_ONCE]
            flat = await self._backend.run(self._read_heads, [self._backend.keys.state], some)
            for cvm_id, text in zip(flat[::2], flat[1::2], strict=True):
                try:
                    found[cvm_id] = _head(cvm_id, json.loads(f"{{{text}"))
                except (ValueError, RecursionError):
                    whole.append(cvm_id)  # of an earlier version, with a very long name, or not the bridge's
        for cvm_id, each in (await self.get(whole)).items():
            found[cvm_id] = SnapshotHead(cvm_id, each.app_id, each.name, each.status, each.ready)
        return {cvm_id: head for cvm_id, head in found.items() if head.status is not None}

    async def all(self) -> dict[str, Snapshot]:
        return (await read_all(self._backend, "EXISTS", self._backend.keys.state))[1]


async def read_batch_digests(backend: Backend, events: Mapping[str, str]) -> dict[str, str]:
    """The digests of the CVMs whose last event is the one given here; those of CVMs not given are deleted."""
    key = backend.keys.batch_digests
    stored: dict[str, str] = await backend.call(backend.client.hgetall(key))
    if gone := stored.keys() - events.keys():
        await backend.call(backend.client.hdel(key, *gone))
    parts = {cvm_id: text.partition(" ") for cvm_id, text in stored.items()}
    return {cvm_id: digest for cvm_id, (event, _, digest) in parts.items() if event == events.get(cvm_id)}


async def write_batch_digests(
    backend: Backend, batch_digests: Mapping[str, tuple[str, str]], gone: Iterable[str] = ()
) -> None:
    """Event and digest of each; those of CVMs that are `gone` are deleted."""
    key = backend.keys.batch_digests
    if batch_digests:
        texts = {cvm_id: f"{event} {digest}" for cvm_id, (event, digest) in batch_digests.items()}
        await backend.call(backend.client.hset(key, mapping=texts))
    if names := list(gone):
        await backend.call(backend.client.hdel(key, *names))
