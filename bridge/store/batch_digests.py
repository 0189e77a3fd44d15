"""Each CVM's last confirmed batch digest, so that a new leader need not read every state again at once.

One text per CVM: the event that made its state, and the digest of the batch answer that belongs to that state. Writes
are not fenced: a digest counts only together with its event, whichever process wrote it.
"""

from __future__ import annotations

from collections.abc import Mapping

from bridge.store.connection import Backend


async def read_batch_digests(backend: Backend, events: Mapping[str, str]) -> dict[str, str]:
    """The digests of the CVMs whose last event is the one given here; those of CVMs not given are deleted."""
    key = backend.keys.batch_digests
    stored: dict[str, str] = await backend.call(backend.client.hgetall(key))
    if gone := stored.keys() - events.keys():
        await backend.call(backend.client.hdel(key, *gone))
    parts = {cvm_id: text.partition(" ") for cvm_id, text in stored.items()}
    return {cvm_id: digest for cvm_id, (event, _, digest) in parts.items() if event == events.get(cvm_id)}


async def write_batch_digests(backend: Backend, batch_digests: Mapping[str, tuple[str, str]]) -> None:
    """Event and digest of each."""
    if batch_digests:
        texts = {cvm_id: f"{event} {digest}" for cvm_id, (event, digest) in batch_digests.items()}
        await backend.call(backend.client.hset(backend.keys.batch_digests, mapping=texts))
