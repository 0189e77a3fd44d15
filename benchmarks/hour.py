"""One leader with 1 000 watched CVMs for an hour of virtual time: is anything growing, and do polls come evenly?"""

from __future__ import annotations

import asyncio
import gc
import logging
import random
import time
from dataclasses import dataclass

from bridge.config import Settings
from tests.processes import resident_bytes
from tests.unit.upstream.leaders import one_leader
from tests.unit.upstream.model import Cloud, ModelClient
from tests.virtual import run_virtual

CVMS = 1_000
MINUTES = 60
SEGMENT = 10
"""Minutes between two looks."""

STATUSES = ("running", "stopping", "stopped", "starting")


@dataclass(frozen=True)
class Look:
    """What there was at one moment; requests and CPU are those of the time since the look before."""

    minute: int
    tasks: int
    objects: int
    """That the garbage collector knows, after a collection."""
    resident_mb: float
    cpu_seconds: float
    requests_a_second: float
    most_in_a_second: int
    streams: int


def live(cvms: int = CVMS, minutes: int = MINUTES, segment: int = SEGMENT) -> list[Look]:
    """Every second one CVM changes. The Redis is in the process too; its log is cut short, so that it stays small."""
    return run_virtual(_live(cvms, minutes, segment))


async def _live(cvms: int, minutes: int, segment: int) -> list[Look]:
    cloud, settings = Cloud([f"cvm-{number:05}" for number in range(cvms)]), Settings(cvms=("*",), log_length=200)
    async with one_leader(settings, cloud, ModelClient, rng=random.Random(1)):
        changing = asyncio.create_task(_change(cloud), name="changes")
        looks = [await _look(cloud, minute, segment) for minute in range(segment, minutes + 1, segment)]
        changing.cancel()
    return looks


async def _change(cloud: Cloud) -> None:
    rng = random.Random(2)
    while True:
        await asyncio.sleep(1)
        cloud.change(rng.choice(list(cloud.status)), rng.choice(STATUSES))


async def _look(cloud: Cloud, minute: int, segment: int) -> Look:
    """Sleeps through a segment, then counts."""
    cloud.requests.clear()
    began = time.process_time()
    await asyncio.sleep(segment * 60)
    cpu = time.process_time() - began
    gc.collect()
    return Look(
        minute,
        len(asyncio.all_tasks()),
        len(gc.get_objects()),
        resident_bytes() / 2**20,
        cpu,
        sum(cloud.requests.values()) / (segment * 60),
        max(cloud.requests.values()),
        len(cloud.streams),
    )


def run() -> None:
    print(f"hour: one leader, {CVMS} CVMs, a change a second, virtual time, Redis in the process")
    print("  minute  tasks  objects   MB  CPU s  requests/s  most in a second  streams")
    logging.disable(logging.WARNING)
    for look in live():
        print(
            f"  {look.minute:>6}  {look.tasks:>5}  {look.objects:>7}  {look.resident_mb:>3.0f}  {look.cpu_seconds:5.1f}"
            f"  {look.requests_a_second:>10.1f}  {look.most_in_a_second:>16}  {look.streams:>7}",
            flush=True,
        )
    logging.disable(logging.NOTSET)


if __name__ == "__main__":
    run()
