"""`bridge upstream`."""

from __future__ import annotations

import asyncio
import contextlib

from bridge.clock import Clock, SystemClock
from bridge.config import Settings
from bridge.config_values import masked_url
from bridge.process.probe import create_app, start_probe
from bridge.process.redis_connection import attend_redis, connected, required_redis
from bridge.process.signals import CommandError, run_role
from bridge.store.server_clock import ServerClock
from bridge.upstream.client import PhalaClient
from bridge.upstream.leader import Upstream


async def run_upstream(settings: Settings, stop: asyncio.Event) -> None:
    """One replica, which leads or stands by. It waits for a Redis that is not there yet. Raises CommandError."""
    url, clock = required_redis(settings), SystemClock()
    if settings.api_key is None:
        raise CommandError("PHALA_CLOUD_API_KEY is not set: `bridge upstream` needs it (`bridge up` can simulate)")
    async with (
        connected(url, settings.namespace) as backend,
        phala_client(settings, clock) as client,
        asyncio.TaskGroup() as group,
    ):
        upstream = Upstream(settings, backend, client, clock)
        attend_redis(group, "upstream", backend, ServerClock(clock), stop, masked_url(url))
        app = create_app(
            backend,
            upstream.role,
            lambda: upstream.trouble or upstream.fault,
            lambda: upstream.degraded,
            lambda: upstream.note,
        )
        start_probe(group, settings, app, stop)
        group.create_task(run_role("upstream", upstream.run(stop), stop), name="upstream")


def phala_client(settings: Settings, clock: Clock) -> contextlib.aclosing[PhalaClient]:
    """A client that is closed at the end. The settings must have an API key."""
    assert settings.api_key is not None
    return contextlib.aclosing(PhalaClient(settings.api_prefix, settings.api_key.get_secret_value(), clock=clock))
