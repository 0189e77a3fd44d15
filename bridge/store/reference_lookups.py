"""References: front ends ask and the leader answers, both through Redis, so that the API key stays with the leader."""

from __future__ import annotations

from dataclasses import dataclass

from prometheus_client import Counter

from bridge.events import dumps
from bridge.store.connection import Backend, load_script
from bridge.store.errors import StoreError, StoreUnavailableError, TooManyLookupsError
from bridge.store.foreign import is_name, json_object, whole_number
from bridge.store.watches import LOOKUP_SECONDS

MOST_LOOKUPS = 1000
"""Unknown references waiting at once; a scan of random names must not grow Redis."""

MOST_HINTS = 1000
"""Hints waiting at once. The leader acts on those of CVMs that it watches within a second."""

DROPPED_HINTS = Counter("bridge_hints_dropped", "Hints that were dropped because too many waited for the leader")

FOUND_SECONDS = 60
"""Names move between CVMs: an answer is used for a minute."""

LAST_SECONDS = 86_400
"""What a reference meant last stands in for so long while upstream cannot be asked."""

REFUSED_SECONDS = 5
"""An error is used briefly: many callers at once cost one request, and a new CVM is found soon."""


@dataclass(frozen=True, slots=True)
class Answer:
    """The leader's answer: `cvm_id` where the reference names one CVM, else upstream's error as it came.

    `by_name`: the reference was that CVM's name.
    """

    reference: str
    cvm_id: str | None
    status: int = 200
    body: str = ""
    content_type: str = "application/json"
    by_name: bool = False

    @property
    def is_about_reference(self) -> bool:
        """Whether it tells what the reference means: the CVM, or that it is none."""
        return self.cvm_id is not None or self.is_final

    @property
    def is_final(self) -> bool:
        """Whether upstream refused this reference itself, so that another try would not help."""
        return self.cvm_id is None and self.status in (400, 404, 409, 422)


class ReferenceLookups:
    """The question side (`ask`, any process) and the answering side (`answer`, the leader)."""

    _ask = load_script("ask_lookup")
    _hint = load_script("hint")

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    async def find(self, reference: str) -> Answer | None:
        """The answer if there is a recent one. Raises StoreUnavailableError."""
        return await self._read(reference, self._backend.keys.answer(reference))

    async def last(self, reference: str) -> Answer | None:
        """The last one that named a CVM or several, at most a day old. Raises StoreUnavailableError."""
        return await self._read(reference, self._backend.keys.last_answer(reference))

    async def _read(self, reference: str, key: str) -> Answer | None:
        try:
            text = await self._backend.call(self._backend.client.get(key))
        except StoreUnavailableError:
            raise
        except StoreError:
            return None  # a key of another type: the next answer replaces it
        return _answer(reference, text) if text else None

    async def ask(self, reference: str) -> Answer | None:
        """The answer if there is a recent one; else None, and the leader is asked.

        Raises TooManyLookupsError, StoreUnavailableError.
        """
        keys = self._backend.keys
        arguments = [reference, MOST_LOOKUPS, keys.wake_channel, LOOKUP_SECONDS]
        for _ in range(2):
            text = await self._backend.run(self._ask, [keys.answer(reference), keys.lookups], arguments)
            if text == "full":
                raise TooManyLookupsError
            if not text:
                return None
            if answer := _answer(reference, text):
                return answer
            await self.forget(reference)  # no leader wrote this: it is asked now
        return None

    async def answer(self, answer: Answer) -> None:
        """Writes an answer, ends the lookup and wakes the front ends that wait for it."""
        keys = self._backend.keys
        fields = ("cvm_id", "status", "body", "content_type", "by_name")
        text = dumps({name: getattr(answer, name) for name in fields})
        lifetime = FOUND_SECONDS if answer.cvm_id is not None else REFUSED_SECONDS
        async with self._backend.transaction() as pipe:
            pipe.set(keys.answer(answer.reference), text, ex=lifetime)
            # A name of several CVMs lasts as well; of names that there are not, there is no end.
            if answer.cvm_id is not None or answer.status == 409:
                pipe.set(keys.last_answer(answer.reference), text, ex=LAST_SECONDS)
            elif answer.is_final:
                pipe.delete(keys.last_answer(answer.reference))
            pipe.zrem(keys.lookups, answer.reference)
            await self._backend.call(pipe.execute())
        await self._backend.call(self._backend.client.publish(keys.answer_channel, answer.reference))

    async def forget(self, reference: str) -> None:
        """Removes an outdated answer: the next `ask` gets a new one."""
        await self._backend.call(self._backend.client.delete(self._backend.keys.answer(reference)))

    async def hint(self, reference: str) -> None:
        """Makes the leader read this CVM now, because it may have changed; dropped where too many wait."""
        keys = self._backend.keys
        if not await self._backend.run(self._hint, [keys.hints], [reference, MOST_HINTS, keys.wake_channel]):
            DROPPED_HINTS.inc()

    async def forget_hints(self, references: tuple[str, ...]) -> None:
        if references:
            await self._backend.call(self._backend.client.srem(self._backend.keys.hints, *references))


def _answer(reference: str, text: str) -> Answer | None:
    """None for a text that no leader wrote."""
    fields = json_object(text)
    cvm_id, body, content_type = (fields.get(name) for name in ("cvm_id", "body", "content_type"))
    status = 200 if is_name(cvm_id) else whole_number(fields.get("status"), 599)
    if status is None or (status < 400 and cvm_id is None) or not (cvm_id is None or is_name(cvm_id)):
        return None
    if not isinstance(body, str) or not isinstance(content_type, str):
        return None
    readable = content_type.isascii() and content_type.isprintable()
    by_name = fields.get("by_name") is True
    return Answer(reference, cvm_id, status, body, content_type, by_name) if readable else None
