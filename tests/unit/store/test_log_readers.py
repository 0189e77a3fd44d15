"""How many events readers have not read: what the log keeps for them, and what it only has not trimmed yet."""

from __future__ import annotations

from bridge.store.connection import Backend
from bridge.store.log import Log
from bridge.store.log_readers import count_unread
from tests.lanes import Bench, Writer, endpoint


async def unread(backend: Backend) -> int:
    position = await Log(backend).position()
    assert position is not None
    return await count_unread(backend, position, group_idle=60)


async def test_what_was_read_counts_no_longer_though_the_next_event_alone_trims_it(backend: Backend) -> None:
    made = Bench(backend, await Writer.lead(backend, log_length=10))
    for _ in range(12):
        await made.writer.append()
    assert await unread(backend) == 0, "nobody reads it"
    await made.endpoints.create(endpoint())
    await made.checkpoint()
    for _ in range(15):
        await made.writer.append()
    assert await unread(backend) == 15
    await made.fill()
    assert await unread(backend) == 0
    assert await backend.client.xlen(backend.keys.log) > 10, "and it is still there"
    last = await made.writer.append()
    assert await unread(backend) == 1
    await made.fill()
    await backend.client.xgroup_create(backend.keys.log, "queue", "0-0")
    assert await unread(backend) == await backend.client.xlen(backend.keys.log), "the slowest reader counts"
    await backend.client.xgroup_setid(backend.keys.log, "queue", last)
    assert await unread(backend) == 0


async def test_where_nobody_can_tell_what_was_read_all_is_unread(backend: Backend) -> None:
    made = Bench(backend, await Writer.lead(backend))
    await made.endpoints.create(endpoint())
    for _ in range(3):
        await made.writer.append()
    await made.fill()
    await backend.client.hset(backend.keys.webhooks, "position", "odd")
    assert await unread(backend) == 3
    await backend.client.set(backend.keys.webhooks, "odd")
    assert await unread(backend) == 3
