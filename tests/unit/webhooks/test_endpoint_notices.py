"""What an endpoint's health tells others: what is left for the leader, whatever dispatchers and callers do."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

from bridge.events import DELIVERY_GIVEN_UP, ENDPOINT_DISABLED, ENDPOINT_FAILING, ENDPOINT_RECOVERED, Event
from bridge.store.endpoint_notices import EndpointNotice, about_endpoint, given_up_detail
from bridge.store.lanes import Claim, Result, Verdict
from bridge.store.limits import LaneLimits
from bridge.store.notices import Notices
from tests.fakes import HandClock, fake_backend, redis_time
from tests.lanes import ATTEMPT, Bench, bench, endpoint

HOUR = 3_600.0
ABOUT = about_endpoint("https://host.test:8443/services/SECRET?key=SECRET", "x" * 200)


async def left(made: Bench) -> list[EndpointNotice]:
    entries = await made.backend.client.xlen(made.backend.keys.notices)
    found = [each for each in await Notices(made.backend).waiting() if isinstance(each, EndpointNotice)]
    assert len(found) == entries
    return found


async def told(made: Bench) -> list[str]:
    return [each.type for each in await left(made)]


class Case:
    """One endpoint, whose attempts come to what the test says at the time it says."""

    def __init__(self, made: Bench, clock: HandClock) -> None:
        self.made, self.clock, self.tokens = made, clock, 0

    async def claim(self, lane: str = "a") -> Claim:
        self.tokens += 1
        client = self.made.backend.client
        if not await client.exists(f"{{bridge}}:webhooks:lane:e:{lane}"):
            await self.made.writer.append(lane)
            await self.made.fill()
        found = await self.made.claim(token=f"t{self.tokens}", lease=1)
        return next(claim for claim in found.claims if claim.lane == lane)

    async def settle(self, claim: Claim, verdict: Verdict, wait: float = 0) -> str:
        about = "" if verdict == "delivered" else ABOUT
        detail = given_up_detail(claim.event, claim.delivery_id, "http_5xx: the receiver answered 503", 10)
        given_up = detail if verdict == "given_up" else ""
        result = Result(claim, verdict, wait, 0.5, ATTEMPT, about=about, given_up=given_up)
        (code,) = await self.made.lanes.settle([result])
        return code

    async def attempt(self, verdict: Verdict, lane: str = "a", wait: float = 0) -> str:
        self.clock.now += 2  # an open breaker's probe is due then
        return await self.settle(await self.claim(lane), verdict, wait)

    async def sweep(self) -> None:
        await self.made.lanes.sweep(["e"])

    async def fail_for(self, seconds: float) -> None:
        await self.attempt("failed")
        self.clock.now += seconds
        await self.sweep()


@pytest.fixture
async def case() -> AsyncIterator[Case]:
    clock, backend = HandClock(), fake_backend()
    with redis_time(clock):
        made = await bench(backend, failures=1_000)
        await made.endpoints.create(endpoint())
        yield Case(made, clock)
    await backend.close()


async def test_an_endpoint_that_fails_for_an_hour_is_told_once_and_once_that_it_recovered(case: Case) -> None:
    await case.fail_for(HOUR - 3)
    assert await told(case.made) == []
    case.clock.now += 3
    for _ in range(3):
        await case.sweep()
        await case.attempt("failed")
    assert await told(case.made) == [ENDPOINT_FAILING]
    for _ in range(2):
        await case.attempt("delivered")
    assert await told(case.made) == [ENDPOINT_FAILING, ENDPOINT_RECOVERED]
    await case.fail_for(HOUR)
    assert (await told(case.made))[2:] == [ENDPOINT_FAILING]


async def test_failures_of_less_than_an_hour_are_told_to_nobody(case: Case) -> None:
    for _ in range(3):
        await case.fail_for(HOUR / 2)
        await case.attempt("delivered")
        await case.sweep()
    assert await told(case.made) == []


async def test_an_endpoint_for_which_nothing_waits_is_not_told(case: Case) -> None:
    await case.attempt("given_up")
    case.clock.now += 2 * HOUR
    await case.sweep()
    assert await told(case.made) == [DELIVERY_GIVEN_UP]


async def test_a_disabled_endpoint_is_told_once_and_recovers_with_its_next_success(case: Case) -> None:
    first, late = [await case.claim(lane) for lane in "ab"]
    assert await case.settle(first, "gone") == "disabled"
    await case.made.endpoints.disable("e", "again")
    assert await case.settle(late, "delivered") == "done"
    assert await told(case.made) == [ENDPOINT_DISABLED]
    await case.made.endpoints.enable("e")
    assert await told(case.made) == [ENDPOINT_DISABLED]
    await case.attempt("delivered")
    assert await told(case.made) == [ENDPOINT_DISABLED, ENDPOINT_RECOVERED]


async def test_after_enable_an_hour_of_failures_is_told_again_before_one_recovery(case: Case) -> None:
    await case.fail_for(HOUR)
    await case.made.endpoints.disable("e", about=ABOUT)
    await case.made.endpoints.enable("e")
    await case.fail_for(HOUR)
    await case.attempt("delivered")
    expected = [ENDPOINT_FAILING, ENDPOINT_DISABLED, ENDPOINT_FAILING, ENDPOINT_RECOVERED]
    assert await told(case.made) == expected


async def test_a_result_that_comes_too_late_tells_nothing(case: Case) -> None:
    slow = await case.claim()
    case.clock.now += 2
    other = await case.claim()
    assert await case.settle(slow, "gone") == "lost"
    assert await told(case.made) == []
    await case.settle(other, "delivered")


async def test_deliveries_given_up_within_an_hour_are_one_notice_and_a_number_in_the_next(case: Case) -> None:
    for _ in range(4):
        await case.attempt("given_up")
    case.clock.now += HOUR
    await case.attempt("given_up")
    await case.attempt("given_up")
    await case.attempt("gone")
    found = [(each.type, each.data["given_up"]) for each in await left(case.made)]
    assert found == [(DELIVERY_GIVEN_UP, 1), (DELIVERY_GIVEN_UP, 4), (ENDPOINT_DISABLED, 1)]


async def test_a_notice_has_what_a_person_needs_and_no_secret(case: Case) -> None:
    await case.attempt("given_up")
    await case.fail_for(HOUR)
    await case.attempt("gone")
    await case.made.endpoints.enable("e")
    await case.attempt("delivered")
    shown: list[dict[str, Any]] = []
    for notice in await left(case.made):
        event = Event.from_log("1-0", notice.draft.envelope("/bridge/x", 1))
        assert "SECRET" not in event.json
        shown.append(json.loads(event.json))
    given_up, failing, disabled, recovered = shown
    for each in shown:
        assert each["subject"] == each["data"]["endpoint_id"] == "e"
        assert each["data"]["url"] == "https://host.test:8443/…"
        assert each["data"]["description"] == "x" * 100
        assert each["data"]["since"] <= each["time"]
    assert (failing["data"]["pending"], disabled["data"]["reason"]) == (1, "the receiver answered 410 Gone")
    assert recovered["data"]["since"] == failing["data"]["since"] == disabled["data"]["since"]
    assert given_up["data"]["event"]["type"] == "cvm.transition"
    assert given_up["data"]["delivery_id"] == f"e-{given_up['data']['event']['id']}"
    assert given_up["data"]["attempts"] == 10


async def test_what_does_not_fit_is_told_later_or_counted(case: Case) -> None:
    full = Case(replace(case.made, limits=LaneLimits(failures=1_000, notices=0)), case.clock)
    await full.fail_for(HOUR)
    await full.attempt("given_up")
    await full.made.endpoints.disable("e", "why")
    await full.made.endpoints.enable("e")
    await full.attempt("delivered")
    assert await told(case.made) == []
    assert await case.made.backend.client.hget("{bridge}:webhooks", "untold") == "1"
    await case.attempt("delivered")
    found = [(each.type, each.data["given_up"]) for each in await left(case.made)]
    assert found == [(ENDPOINT_RECOVERED, 1)]


async def test_damaged_keys_stop_no_delivery_and_no_disabling(case: Case) -> None:
    client = case.made.backend.client
    claims = [await case.claim(lane) for lane in "abcd"]
    await client.set(case.made.backend.keys.notices, "text")
    verdicts: tuple[Verdict, ...] = ("failed", "given_up", "delivered", "gone")
    results = [await case.settle(claim, verdict) for claim, verdict in zip(claims, verdicts, strict=True)]
    assert results == ["done", "done", "done", "disabled"]
    await case.sweep()
    await case.made.endpoints.enable("e")
    await client.delete("{bridge}:webhooks:health:e")
    await client.set("{bridge}:webhooks:health:e", "text")
    await case.made.endpoints.disable("e")
    assert await client.hget("{bridge}:webhooks:disabled", "e") == ""


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"type": "cvm.transition", "endpoint": "e", "pending": "1", "given_up": "0"},
        {"type": ENDPOINT_FAILING, "endpoint": "e/..", "pending": "1", "given_up": "0"},
        {"type": ENDPOINT_FAILING, "endpoint": "e", "pending": "-1", "given_up": "0"},
        {"type": ENDPOINT_FAILING, "endpoint": "e", "pending": "1"},
    ],
)
def test_what_no_bridge_left_is_no_notice(fields: dict[str, str]) -> None:
    assert EndpointNotice.of("1-0", fields, "") is None
