"""What the leader publishes about itself for operators: its budget of streams and why a CVM is polled."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from bridge.events import dumps
from bridge.store.connection import Backend

STATUS_SECONDS = 60
"""The status of a leader that vanished is shown for at most this time."""


async def write_leader_status(backend: Backend, status: Mapping[str, Any]) -> None:
    """For the leader alone. Raises StoreError."""
    await backend.call(backend.client.set(backend.keys.leader_status, dumps(dict(status)), ex=STATUS_SECONDS))


async def read_leader_status(backend: Backend) -> dict[str, Any]:
    """{} when no leader has written one within STATUS_SECONDS. Raises StoreError."""
    text = await backend.call(backend.client.get(backend.keys.leader_status))
    status = json.loads(text) if text else {}
    return status if isinstance(status, dict) else {}
