"""A leader that is cancelled at any moment ends, also while its term already does."""

from __future__ import annotations

import asyncio

import pytest

from tests.unit.upstream.model import Cloud
from tests.unit.upstream.replicas import SETTINGS, Replicas
from tests.virtual import run_virtual


async def _cancelled(seconds: float) -> None:
    """So many seconds after the lease ran out: the streams wait until Redis gives back their slots."""
    replicas = Replicas(Cloud(["a", "b", "c"]))
    replica = replicas.start(0)
    assert replica.task is not None
    await asyncio.sleep(60)
    assert replica.leads
    replica.link.mode = "hanging"
    await asyncio.sleep(SETTINGS.lease_seconds + seconds)
    replica.task.cancel()
    done, _ = await asyncio.wait([replica.task], timeout=60)
    assert done, "it campaigns on"
    assert replica.task.cancelled()
    await replica.backend.close()


@pytest.mark.parametrize("seconds", [-3.0, -1.0, 0.5, 1.0, 2.0, 3.0, 4.0, 6.0, 10.0])
def test_a_leader_that_is_cancelled_ends(seconds: float) -> None:
    run_virtual(_cancelled(seconds))
