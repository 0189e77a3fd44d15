"""What a new leader tells operators: whom it follows, which slots wait, and how many are in which state."""

from __future__ import annotations

import asyncio
import logging

import pytest
from prometheus_client import REGISTRY

from bridge.clock import unix
from tests.fakes import redis_time
from tests.unit.upstream.model import Cloud
from tests.unit.upstream.replicas import SETTINGS, Replicas
from tests.virtual import run_virtual

LEASE = SETTINGS.lease_seconds
CVMS = 8


def slots() -> dict[str, float]:
    """By state, as `/metrics` shows them; without the states that no slot has."""
    states = ("free", "opening", "held", "settling", "quarantined")
    counted = {state: REGISTRY.get_sample_value("bridge_slots", {"state": state}) or 0 for state in states}
    return {state: count for state, count in counted.items() if count}


def test_a_takeover_tells_in_one_line_whom_it_follows_and_which_slots_wait_until_when(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    frozen_at, led_at = run_virtual(takeovers())
    first, second, third = [vars(record) for record in caplog.records if record.message == "leading"]
    assert (first["epoch"], first["slots_waiting"]) == (1, 0)
    assert not {"follows", "slots_wait_until"} & first.keys()
    assert (second["follows"], second["former_epoch"]) == (first["holder"], 1)
    assert (second["because"], second["slots_waiting"]) == ("its lease ran out", CVMS - 3)
    assert frozen_at < unix(second["slots_wait_until"]) <= frozen_at + SETTINGS.stream_timeout + 10
    assert led_at < unix(second["no_stream_before"]) <= led_at + LEASE
    assert (third["follows"], third["because"]) == (second["holder"], "it handed over")
    assert "no_stream_before" not in third


async def takeovers() -> tuple[float, float]:
    """When the first leader froze, and when another one led instead, by Redis's clock."""
    replicas = Replicas(Cloud([f"cvm-{number}" for number in range(CVMS)]))
    with redis_time(replicas.redis_clock):
        replicas.start(0)
        await asyncio.sleep(1)
        replicas.start(1)
        await asyncio.sleep(29)
        replicas.all[0].thawed.clear()
        frozen_at = replicas.redis_clock.time()
        while not replicas.all[1].upstream.leading:  # noqa: ASYNC110 - virtual time
            await asyncio.sleep(0.1)
        led_at = replicas.redis_clock.time()
        await asyncio.sleep(20)
        replicas.heal()
        await asyncio.sleep(1)
        await replicas.restart(1)
        await asyncio.sleep(1)
        await replicas.end()
    return frozen_at, led_at


def metric(name: str, **labels: str) -> float | None:
    return REGISTRY.get_sample_value(f"bridge_{name}", labels)


def test_metrics_count_the_slots_by_state_and_none_of_a_standby() -> None:
    async def scenario() -> None:
        cloud = Cloud([f"cvm-{number}" for number in range(CVMS)])
        replicas = Replicas(cloud)
        with redis_time(replicas.redis_clock):
            replicas.start(0)
            await asyncio.sleep(LEASE / 2)
            assert slots() == {"free": 5}
            await asyncio.sleep(LEASE)
            assert slots() == {"held": 5}
            await asyncio.sleep(2)
            assert metric("leader_epoch") == 1
            assert metric("lease_renewed_timestamp_seconds") == pytest.approx(replicas.redis_clock.time(), abs=LEASE)
            assert [metric("watches_followed", by=each) for each in ("stream", "poll")] == [5, CVMS - 5]
            assert 0 < (metric("oldest_confirmation_seconds") or 0) < 60
            assert metric("log_length_events") == metric("log_sequence") == CVMS
            assert metric("upstream_streams_held_back", reason="handover") is None
            cloud.cut, cloud.cut_unheard = 1, True
            await asyncio.sleep(2)
            assert slots() == {"quarantined": 5}
            await replicas.all[0].end()
            assert slots() == {}
            for name in ("upstream_stream_budget", "leader_epoch", "log_length_events", "oldest_confirmation_seconds"):
                assert metric(name) == 0
            assert metric("upstream_reachable") == 1
            await replicas.plain.close()

    run_virtual(scenario())
