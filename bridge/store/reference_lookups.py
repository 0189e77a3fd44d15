"""References: front ends ask, the leader answers, both in Redis, so that the API key stays with the leader."""

from __future__ import annotations

import json
from dataclasses import dataclass

from bridge.events import dumps
from bridge.store.connection import Backend, load_script
from bridge.store.errors import TooManyLookupsError

MOST_WISHES = 1000
"""Unknown references waiting at once; a scan of random names must not grow Redis."""

FOUND_SECONDS = 60
"""Names move: a resolution is believed for a minute."""

REFUSED_SECONDS = 5
"""An error is believed briefly: many who ask at once cost one request, and a new CVM is found soon."""


@dataclass(frozen=True, slots=True)
class Answer:
    """The leader's answer: `cvm_id` where the reference names one CVM, else upstream's error as it came."""

    reference: str
    cvm_id: str | None
    status: int = 200
    body: str = ""
    content_type: str = "application/json"


class ReferenceLookups:
    """The question side (`ask`, any process) and the answering side (`answer`, the leader)."""

    _wish = load_script("ask_lookup")

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    async def ask(self, reference: str) -> Answer | None:
        """The answer when there is a recent one; else the wish is written and None returned.

        Raises TooManyWishesError.
        """
        keys = self._backend.keys
        arguments = [reference, MOST_WISHES, keys.wake_channel]
        text = await self._backend.run(self._wish, [keys.answer(reference), keys.lookups], arguments)
        if text == "full":
            raise TooManyLookupsError
        if not text:
            return None
        fields = json.loads(text)
        return Answer(
            reference,
            fields["cvm_id"],
            int(fields["status"]),
            str(fields["body"]),
            str(fields["content_type"]),
        )

    async def answer(self, answer: Answer) -> None:
        """Writes an answer, ends the wish and wakes who waits."""
        keys = self._backend.keys
        text = dumps(
            {
                "cvm_id": answer.cvm_id,
                "status": answer.status,
                "body": answer.body,
                "content_type": answer.content_type,
            }
        )
        lifetime = FOUND_SECONDS if answer.cvm_id is not None else REFUSED_SECONDS
        async with self._backend.transaction() as pipe:
            pipe.set(keys.answer(answer.reference), text, ex=lifetime)
            pipe.zrem(keys.lookups, answer.reference)
            await self._backend.call(pipe.execute())
        await self._backend.call(self._backend.client.publish(keys.answer_channel, answer.reference))

    async def forget(self, reference: str) -> None:
        """What was answered is outdated: who asks next gets a new answer."""
        await self._backend.call(self._backend.client.delete(self._backend.keys.answer(reference)))

    async def hint(self, reference: str) -> None:
        """Somebody says that this CVM changed: the leader reads it now."""
        await self._backend.call(self._backend.client.sadd(self._backend.keys.hints, reference))
        await self._backend.call(self._backend.client.publish(self._backend.keys.wake_channel, "hint"))

    async def forget_hints(self, references: tuple[str, ...]) -> None:
        if references:
            await self._backend.call(self._backend.client.srem(self._backend.keys.hints, *references))
