"""What the leader tells operators about itself: written when it changes, and without a line for each CVM.

One key has the status as JSON, with the reason for which CVMs are polled; a hash has the CVMs with another reason. Both
expire, so that a leader that vanished is shown for STATUS_SECONDS at most.
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import dataclass, field
from typing import Any

from bridge.clock import rfc3339
from bridge.events import dumps
from bridge.store.connection import Backend, load_script
from bridge.store.errors import FencedError
from bridge.store.foreign import json_object, names
from bridge.store.leadership import Term

STATUS_SECONDS = 60
KEEP_EVERY = 20.0
"""Seconds between two prolongations of an unchanged status."""

MOST_UNMET = 10
"""References that are told; further ones are counted."""

_DEFAULT = "polled_because"

_TYPES: Mapping[str, type] = {
    "leader": str,
    "epoch": int,
    "at": str,
    "budget": int,
    "budget_reason": str,
    "blocked": bool,
    "unreachable": bool,
    "fault": str,
    "unmet": dict,
    "known": int,
    "found": int,
    "polling": dict,
    _DEFAULT: str,
}
"""Of what leaders write; a value of another type is left out. Earlier releases wrote `polling`: CVM → reason."""


@dataclass(frozen=True, slots=True)
class LeaderStatus:
    """`fields`: what `GET /v1/slots` and `bridge check` show. `polled_because`: why CVMs without a stream are polled,
    but for those in `exceptions`.
    """

    fields: Mapping[str, Any]
    polled_because: str
    exceptions: Mapping[str, str] = field(default_factory=dict)

    def text(self, wall: float) -> str:
        return dumps({**self.fields, _DEFAULT: self.polled_because, "at": rfc3339(wall)})


class LeaderStatusWriter:
    """The leader's side, for one term."""

    _write = load_script("leader_status")

    def __init__(self, backend: Backend, term: Term) -> None:
        self._backend = backend
        self._term = term
        self._written: LeaderStatus | None = None
        """None: what Redis has is not known."""
        self._kept_at = 0.0

    async def write(self, status: LeaderStatus, wall: float, monotonic: float) -> None:
        """`wall` and `monotonic`: now, by two clocks, in seconds. Raises FencedError, StoreUnavailableError."""
        before, self._written = self._written, None
        if before is not None and status == before and monotonic < self._kept_at + KEEP_EVERY:
            self._written = before
            return
        if before is None or not await self._send(before, status, wall):
            await self._send(None, status, wall)
        self._written, self._kept_at = status, monotonic

    async def _send(self, before: LeaderStatus | None, status: LeaderStatus, wall: float) -> bool:
        """False: Redis lost what was written before."""
        old = before.exceptions if before else {}
        same = before and (before.fields, before.polled_because) == (status.fields, status.polled_because)
        text = "" if same else status.text(wall)
        arguments: list[object] = [self._term.holder, self._term.epoch, STATUS_SECONDS, text]
        arguments += [-1 if before is None else len(old)]
        for cvm_id in {*old, *status.exceptions}:
            if old.get(cvm_id) != status.exceptions.get(cvm_id):
                arguments += [cvm_id, status.exceptions.get(cvm_id, "")]
        keys = self._backend.keys
        names = [keys.leader, keys.leader_status, keys.polling]
        answer = int(await self._backend.run(self._write, names, arguments))
        if answer == 0:
            raise FencedError
        return answer > 0


def unmet_lines(unmet: Mapping[str, object]) -> list[str]:
    """References of `BRIDGE_CVMS` that name no CVM, each with the reason; only the number of those beyond some."""
    shown = [f"{reference}: {why}" for reference, why in list(unmet.items())[:MOST_UNMET]]
    return [*shown, f"and {len(unmet) - len(shown)} more"] if len(unmet) > len(shown) else shown


def unmet_note(unmet: Mapping[str, object]) -> str:
    """The same on one line; empty where each names a CVM."""
    return f"BRIDGE_CVMS: {'; '.join(unmet_lines(unmet))}" if unmet else ""


async def read_leader_status(backend: Backend) -> dict[str, Any]:
    """{} when no leader has kept one within STATUS_SECONDS. Raises StoreError."""
    stored = json_object(await backend.call(backend.client.get(backend.keys.leader_status)))
    return {name: value for name, value in stored.items() if isinstance(value, _TYPES.get(name, object))}


async def read_polling(
    backend: Backend, status: Mapping[str, Any], streamed: Container[str | None]
) -> dict[str, str] | None:
    """Why each watched CVM that is not `streamed` is polled; None if `status` does not tell. Raises StoreError."""
    if "polling" in status:
        return {cvm_id: str(why) for cvm_id, why in status["polling"].items()}
    default, keys = status.get(_DEFAULT), backend.keys
    if default is None:
        return None

    def queue(pipe: Any) -> None:
        pipe.execute_command("ZRANGE", keys.watches, 0, -1)
        pipe.execute_command("HGETALL", keys.polling)

    watches, exceptions = await backend.read_together(queue)
    return {cvm_id: exceptions.get(cvm_id, default) for cvm_id in names(watches) if cvm_id not in streamed}
