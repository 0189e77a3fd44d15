"""A copy of what Redis has in one moment, to bring it back there: as a promoted replica or a restart does."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from bridge.store.connection import Backend


@dataclass(frozen=True)
class Backup:
    """The log, its record, the state hash and notices; leases, slots and watches are left as they are."""

    streams: dict[str, list[tuple[str, dict[str, str]]]]
    hashes: dict[str, dict[str, str]]

    @classmethod
    async def of(cls, backend: Backend) -> Backup:
        client, keys = backend.client, backend.keys
        hashes = {key: await client.hgetall(key) for key in (keys.meta, keys.state)}
        return cls({key: await client.xrange(key) for key in (keys.log, keys.notices)}, hashes)

    async def restore(self, backend: Backend) -> None:
        client = backend.client
        await client.delete(*self.streams, *self.hashes)
        for key, entries in self.streams.items():
            for entry_id, fields in entries:
                await client.xadd(key, dict[Any, Any](fields), id=entry_id)
        for key, fields in self.hashes.items():
            if fields:
                await client.hset(key, mapping=fields)
