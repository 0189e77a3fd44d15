"""Pages of CVMs: what one costs Redis."""

from __future__ import annotations

import httpx
import pytest
from pydantic import SecretStr

from bridge.config import Settings, Token
from bridge.store.watches import Watches
from bridge.web.app import FrontEnd
from tests.fakes import CountedCalls
from tests.virtual import VirtualClock, run_virtual

CVMS = [f"00000000-0000-0000-0000-0000000000{number:02}" for number in range(40)]


async def listed(cvms: list[str], query: str) -> tuple[list[str], int]:
    """The ids that a token with these CVMs gets, all of which are watched, and the round trips to Redis."""
    backend = CountedCalls()
    front = FrontEnd(
        Settings(tokens=(Token("one", SecretStr("secret"), "read", frozenset(cvms)),)), backend, VirtualClock()
    )
    await Watches(backend).renew(CVMS)
    backend.calls = 0
    transport = httpx.ASGITransport(front.app)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as http:
        answer = await http.get(f"/v1/cvms{query}", headers={"Authorization": "Bearer secret"})
    await backend.close()
    return [each["cvm_id"] for each in answer.json()["items"]], backend.calls


@pytest.mark.parametrize("query", ["", "?ready=true"])
def test_a_limited_token_with_many_cvms_costs_redis_no_more_calls_than_with_one(query: str) -> None:
    one, calls = run_virtual(listed(CVMS[:1], query))
    many, calls_of_many = run_virtual(listed(CVMS, query))
    assert (one, many) == (([], []) if query else (CVMS[:1], CVMS))
    assert calls_of_many == calls
