"""`bridge upstream`."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from bridge.clock import Clock, SystemClock
from bridge.config import Settings
from bridge.config_values import masked_url
from bridge.process.errors import RefusalError
from bridge.process.redis_connection import connected, needed_redis, report_redis
from bridge.process.serving import serve_role_probe
from bridge.process.signals import run_role
from bridge.upstream.client import PhalaClient
from bridge.upstream.leader import Upstream


async def run_upstream(settings: Settings, stop: asyncio.Event) -> None:
    """One replica, leading or standing by. An absent Redis is waited for."""
    url, clock = needed_redis(settings), SystemClock()
    if settings.api_key is None:
        raise RefusalError("PHALA_CLOUD_API_KEY is not set: `bridge upstream` needs it (`bridge up` can simulate)")
    async with (
        connected(url, settings.namespace) as backend,
        phala_client(settings, clock) as client,
        asyncio.TaskGroup() as group,
    ):
        upstream = Upstream(settings, backend, client, clock)
        report_redis(group, backend, clock, stop, masked_url(url))
        if settings.probe_port is not None:
            probe = serve_role_probe(
                settings.probe_port, backend, lambda: "leader" if upstream.leading else "standby", stop
            )
            group.create_task(run_role("probe", probe, stop), name="probe")
        group.create_task(run_role("upstream", upstream.run(stop), stop), name="upstream")


@contextlib.asynccontextmanager
async def phala_client(settings: Settings, clock: Clock) -> AsyncIterator[PhalaClient]:
    assert settings.api_key is not None
    client = PhalaClient(settings.api_prefix, settings.api_key.get_secret_value(), clock=clock)
    try:
        yield client
    finally:
        await client.aclose()
