"""For how long what a reference means is known without another question to upstream."""

from __future__ import annotations

import pytest

from bridge.store.connection import Backend
from bridge.store.reference_lookups import Answer, ReferenceLookups
from bridge.store.watches import Watches

ANSWERS = [(Answer("web", "cvm-1"), 60), (Answer("web", None, 404, "{}"), 5), (Answer("web", None, 500), 5)]


@pytest.mark.parametrize(("answer", "seconds"), ANSWERS)
async def test_nobody_asks_upstream_again_while_an_answer_counts(
    backend: Backend, answer: Answer, seconds: int
) -> None:
    lookups = ReferenceLookups(backend)
    await lookups.answer(answer)
    assert await lookups.ask("web") == answer
    assert (await Watches(backend).survey()).lookups == ()
    # The server lets it expire; its clock is not the test's.
    assert seconds - 1 <= await backend.client.ttl(backend.keys.answer("web")) <= seconds
