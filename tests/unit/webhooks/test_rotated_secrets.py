"""A rotation as a receiver sees it that takes its new secret late."""

from __future__ import annotations

import asyncio
import base64
from dataclasses import replace
from unittest.mock import patch

from phala_cloud import parse_webhook_event

from bridge.store.endpoint_record import SealedSecret
from bridge.store.endpoints import Endpoints
from bridge.webhooks.formats import render
from bridge.webhooks.signing import sign
from tests.lanes import Answer, FakePoster, Got, endpoint
from tests.unit.webhooks.stage import Stage, staged
from tests.virtual import run_virtual


def test_a_phala_receiver_is_reached_before_during_and_after_a_rotation() -> None:
    """The published SDK verifies with the one secret that the receiver has."""
    new, old = ("whsec_" + base64.b64encode(bytes([number]) * 24).decode() for number in (1, 2))
    has = [old]

    def answer(got: Got) -> Answer:
        try:
            with patch("time.time", lambda: int(got.headers["x-webhook-timestamp"])):
                parse_webhook_event(headers=dict(got.headers), body=got.body.decode(), secret=has[0])
        except ValueError:
            return Answer(401, "http_4xx: no")
        return Answer()

    async def delivers(stage: Stage, count: int) -> None:
        async def finished() -> bool:
            return sum(each.status != "pending" for each in await stage.deliveries()) == count

        await stage.writer.append()
        await stage.until(finished)

    async def scenario() -> None:
        async with staged() as stage:
            endpoints, poster = Endpoints(stage.backend), FakePoster(answer)
            first = SealedSecret(f"sealed:{old}")
            await endpoints.create(endpoint(format="phala", secrets_sealed=(first,)))
            stage.start(poster, retry=[5] * 3, sign=sign, render=render)
            await delivers(stage, 1)
            both = SealedSecret(f"sealed:{new}"), replace(first, expires_at_ms=int(stage.clock.time() + 60) * 1000)
            await endpoints.change("e", lambda known: replace(known, secrets_sealed=both))
            for count, receiver_has in ((2, old), (3, new)):
                has[0] = receiver_has
                await delivers(stage, count)
            await asyncio.sleep(60)
            has[0] = old
            await delivers(stage, 4)
            last, *before = await stage.deliveries()
            assert [each.status for each in before] == ["delivered"] * 3
            assert [len(each.attempts) for each in before] == [1, 2, 1]
            assert (last.status, len(last.attempts)) == ("given_up", 4)

    run_virtual(scenario())
