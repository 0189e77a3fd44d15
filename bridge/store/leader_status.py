"""What the leader tells operators of itself: its budget of streams and why a CVM is polled."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from bridge.events import dumps
from bridge.store.connection import Backend

NOTES_SECONDS = 60
"""Notes of a leader that vanished are not shown for longer than this."""


class LeaderStatus:
    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    async def write(self, notes: Mapping[str, Any]) -> None:
        await self._backend.call(
            self._backend.client.set(self._backend.keys.notes, dumps(dict(notes)), ex=NOTES_SECONDS)
        )

    async def read(self) -> dict[str, Any]:
        """{} when no leader has written any lately."""
        text = await self._backend.call(self._backend.client.get(self._backend.keys.notes))
        notes = json.loads(text) if text else {}
        return notes if isinstance(notes, dict) else {}
