"""How much of its memory Redis has left: a full one refuses writes."""

from __future__ import annotations

from typing import Any

from redis.asyncio.cluster import RedisCluster

from bridge.store.connection import Backend
from bridge.store.errors import StoreError, StoreUnavailableError

LEAST_MEMORY = 0.1
"""Of `maxmemory`: with less, nothing is queued for webhooks, so that what is left is for the log and for results of
attempts."""


async def read_memory_left(backend: Backend) -> float | None:
    """The share of `maxmemory` that is free, 0 to 1. Raises StoreUnavailableError.

    None where Redis has no limit, evicts keys to keep it, or does not tell (that needs the right `info`).
    """
    try:
        await backend.call(backend.client.initialize())
        client = backend.client
        node: Any = client.get_node_from_key(backend.keys.webhooks) if isinstance(client, RedisCluster) else client
        told = await backend.call(node.execute_command("INFO", "memory"))
    except StoreUnavailableError:
        raise
    except StoreError:
        return None
    return _left(told)


def _left(told: object) -> float | None:
    if not isinstance(told, dict) or str(told.get("maxmemory_policy", "")).startswith("allkeys"):
        return None
    most, used = told.get("maxmemory"), told.get("used_memory")
    if not isinstance(most, int) or not isinstance(used, int) or most <= 0:
        return None
    # Redis itself leaves out what it holds for replicas and the append-only file.
    aside = told.get("mem_not_counted_for_evict")
    return max(most - used + (aside if isinstance(aside, int) else 0), 0) / most
