"""What the leader publishes about itself for operators: its budget of streams and why a CVM is polled."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from bridge.events import dumps
from bridge.store.connection import Backend

STATUS_SECONDS = 60
"""The status of a leader that vanished is shown for at most this time."""


class LeaderStatus:
    """Written by the leader, read by any process. Both raise StoreError."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._key = backend.keys.leader_status

    async def write(self, status: Mapping[str, Any]) -> None:
        await self._backend.call(self._backend.client.set(self._key, dumps(dict(status)), ex=STATUS_SECONDS))

    async def read(self) -> dict[str, Any]:
        """{} when no leader has written one within STATUS_SECONDS."""
        text = await self._backend.call(self._backend.client.get(self._key))
        status = json.loads(text) if text else {}
        return status if isinstance(status, dict) else {}
