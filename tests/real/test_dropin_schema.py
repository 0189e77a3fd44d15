"""schemathesis over the route, with the schema that FastAPI makes of the reference's signature."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.bridges import whole
from tests.unit.web.streaming.reference import reference

PATH = "/api/v1/cvms/{cvm_id}/state"

EXAMPLES = 100


def operation() -> Any:
    """Adds what FastAPI does not document by itself: a CVM may be missing."""
    document = reference().openapi()
    document["paths"][PATH]["get"]["responses"]["404"] = {"description": "No such CVM"}
    return schemathesis.openapi.from_dict(document)[PATH]["GET"]


def explore(url: str, cvm_id: str) -> Counter[int]:
    """Calls with valid and invalid values, half of them with a CVM that exists; returns the statuses."""
    route, statuses = operation(), Counter[int]()
    modes = schemathesis.GenerationMode
    cases = st.one_of([route.as_strategy(generation_mode=mode) for mode in (modes.POSITIVE, modes.NEGATIVE)])

    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=cases, known=st.booleans())
    def each(case: Any, known: bool) -> None:
        if known:
            case.path_parameters["cvm_id"] = cvm_id
        called = case.as_transport_kwargs(base_url=url)
        with requests.request(**called, stream=True, timeout=20) as answer:
            statuses[answer.status_code] += 1
            if answer.headers.get("content-type", "").startswith("text/event-stream"):
                assert next(answer.iter_lines()) == b"event: state"
                return
            case.validate_response(answer)

    each()
    return statuses


async def test_schemathesis_finds_no_violation(redis_url: str) -> None:
    async with whole(redis_url, cvms=1) as bridge:
        await bridge.until_seen(1)
        statuses = await asyncio.to_thread(explore, bridge.url, bridge.ids[0])
        assert set(statuses) <= {200, 404, 405, 422}
        assert min(statuses[200], statuses[404], statuses[422]) > 5, statuses
