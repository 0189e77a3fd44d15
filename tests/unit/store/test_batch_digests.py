from __future__ import annotations

from bridge.store.snapshots import read_batch_digests, write_batch_digests
from tests.fakes import fake_backend


async def test_a_batch_digest_counts_only_with_its_event_and_is_deleted_with_its_cvm() -> None:
    backend = fake_backend()
    await write_batch_digests(backend, {"a": ("1-0", "x"), "b": ("2-0", "y"), "c": ("3-0", "z")})
    assert await read_batch_digests(backend, {"a": "1-0", "b": "9-0"}) == {"a": "x"}
    assert await read_batch_digests(backend, {"a": "1-0", "b": "2-0", "c": "3-0"}) == {"a": "x", "b": "y"}
    await write_batch_digests(backend, {})
    await backend.close()


async def test_a_batch_digest_is_deleted_with_its_watch() -> None:
    backend = fake_backend()
    await write_batch_digests(backend, {"a": ("1-0", "x"), "b": ("2-0", "y")})
    await write_batch_digests(backend, {"b": ("2-0", "z")}, {"a", "never"})
    assert await backend.client.hgetall(backend.keys.batch_digests) == {"b": "2-0 z"}
    await backend.close()
