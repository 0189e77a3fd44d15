"""A copy of what Redis has in one moment, to bring it back there: as a promoted replica or a restart does."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from bridge.store.connection import Backend


@dataclass(frozen=True)
class Backup:
    """The log, its record and the state hash; leases, slots and watches are left as they are."""

    log: list[tuple[str, dict[str, str]]]
    hashes: dict[str, dict[str, str]]

    @classmethod
    async def of(cls, backend: Backend) -> Backup:
        client, keys = backend.client, backend.keys
        hashes = {key: await client.hgetall(key) for key in (keys.meta, keys.state)}
        return cls(await client.xrange(keys.log), hashes)

    async def restore(self, backend: Backend) -> None:
        client, keys = backend.client, backend.keys
        await client.delete(keys.log, *self.hashes)
        for entry_id, fields in self.log:
            await client.xadd(keys.log, dict[Any, Any](fields), id=entry_id)
        for key, fields in self.hashes.items():
            if fields:
                await client.hset(key, mapping=fields)
