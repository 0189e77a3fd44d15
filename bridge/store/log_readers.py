"""How far those have read for whom the log waits before it is trimmed."""

from __future__ import annotations

from bridge.events import entry_key
from bridge.store.connection import Backend
from bridge.store.consumer_groups import look
from bridge.store.errors import StoreError, StoreUnavailableError
from bridge.store.log import Log, Position

NOTHING = "0-0"


async def count_unread(backend: Backend, position: Position, group_idle: float) -> int:
    """Events of this log that webhooks, or a consumer group that is not idle, have not read. Raises
    StoreUnavailableError.

    `group_idle`: BRIDGE_GROUP_IDLE, seconds.
    """
    found = await _read_by_webhooks(backend, position.log_id), await _read_by_groups(backend, group_idle)
    return await count_after(backend, min(filter(None, found), key=entry_key, default=position.id), position)


async def count_after(backend: Backend, read: str, position: Position) -> int:
    """Events of the log above this id."""
    first = await Log(backend).read_some(read, 1) if entry_key(read) < entry_key(position.id) else []
    return max(position.sequence - first[0].sequence + 1, 0) if first else 0


async def _read_by_webhooks(backend: Backend, log_id: str) -> str:
    """The id of the last entry that they have read; empty without endpoints."""
    try:
        if not await backend.call(backend.client.exists(backend.keys.webhook_endpoints)):
            return ""
        read, of_log = await backend.call(backend.client.hmget(backend.keys.webhooks, ["position", "birth"]))
        return read if of_log == log_id and entry_key(read or "") else NOTHING
    except StoreUnavailableError:
        raise
    except (StoreError, ValueError):
        return NOTHING  # the bridge did not write it


async def _read_by_groups(backend: Backend, idle: float) -> str:
    """The same of the slowest group; empty without groups."""
    try:
        return (await look(backend)).judge(idle).position
    except StoreUnavailableError:
        raise
    except StoreError:
        return NOTHING
