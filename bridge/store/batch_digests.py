"""What a CVM's state was last vouched for by, so that the next leader need not read every state again at once."""

from __future__ import annotations

from collections.abc import Mapping

from bridge.store.connection import Backend


class BatchDigests:
    """One text per CVM: the event that made its state, and the digest of the batch answer that belongs to that state.

    Nothing fences the writer: a voucher is good only together with its event, whoever wrote it.
    """

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    async def read(self, events: Mapping[str, str]) -> dict[str, str]:
        """The digests of the CVMs whose last event is the one given here; all others are forgotten."""
        key = self._backend.keys.batch_digests
        found: dict[str, str] = await self._backend.call(self._backend.client.hgetall(key))
        told = {cvm_id: text.partition(" ") for cvm_id, text in found.items()}
        good = {cvm_id: digest for cvm_id, (event, _, digest) in told.items() if event == events.get(cvm_id)}
        gone = [cvm_id for cvm_id in found if cvm_id not in events]
        if gone:
            await self._backend.call(self._backend.client.hdel(key, *gone))
        return good

    async def write(self, batch_digests: Mapping[str, tuple[str, str]]) -> None:
        """Event and digest of each."""
        if batch_digests:
            texts = {cvm_id: f"{event} {digest}" for cvm_id, (event, digest) in batch_digests.items()}
            await self._backend.call(self._backend.client.hset(self._backend.keys.batch_digests, mapping=texts))
