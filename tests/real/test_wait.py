"""Waiting on a whole bridge: the command and the route side by side, and a bridge that is killed in the middle."""

from __future__ import annotations

import asyncio
import json
import signal
from pathlib import Path
from typing import Any

import httpx

from bridge.commands.wait import Code, Order, Verdict, wait
from bridge.store.watches import Watches
from bridge.waiting import Goal
from tests.bridges import Whole, whole
from tests.commands import Command
from tests.real.fronts import front
from tests.servers import free_port


async def command(url: str, reference: str, to: str = "ready", **given: Any) -> Verdict:
    order = Order(url=url, references=(reference,), goal=Goal.parse(to), **{"timeout": 40.0, **given})
    return await wait(order, lambda member: None, lambda line: None)


class Both:
    """The command and the route, which must tell the same."""

    def __init__(self, bridge: Whole) -> None:
        self._bridge = bridge

    async def wait(self, reference: str, to: str = "ready", **given: Any) -> tuple[Code, int]:
        """Exit status and status of the answer. `given`: `timeout`, `after`, `any_of`."""
        query = {"to": to, "timeout": "40", **{name: str(value) for name, value in given.items()}}
        if query.pop("any_of", ""):
            query["any"] = "true"
        url = f"{self._bridge.url}/v1/cvms/{reference}/wait"
        found, answer = await asyncio.gather(
            command(self._bridge.url, reference, to, **given), self._bridge.http.get(url, params=query, timeout=50)
        )
        return found.code, answer.status_code

    async def begun(self, *arguments: Any, **given: Any) -> asyncio.Task[tuple[Code, int]]:
        """A wait that both have begun: the stream of the one, and the other."""
        before = await self._streams()
        task = asyncio.create_task(self.wait(*arguments, **given))

        async def open_streams() -> bool:
            return await self._streams() == before + 2

        await self._bridge.until(open_streams, "both wait")
        return task

    async def _streams(self) -> float:
        text = (await self._bridge.http.get(f"{self._bridge.url}/metrics")).text
        return float(next(line for line in text.splitlines() if line.startswith("bridge_subscribers ")).split()[1])

    async def cursor(self, reference: str) -> str:
        answer = await self._bridge.http.get(f"{self._bridge.url}/v1/cvms/{reference}/wait?timeout=0")
        return str(answer.json()["cursor"])


REACHED, FAILED, TIMEOUT = (Code.REACHED, 200), (Code.FAILED, 409), (Code.TIMEOUT, 408)


async def test_the_outcomes_of_a_redeploy_of_a_replica_and_of_failures(redis_url: str) -> None:
    async with whole(redis_url, cvms=2, operations=True) as bridge:
        await bridge.until_seen(2)
        both, (first, second) = Both(bridge), bridge.ids

        async def ready(is_ready: bool) -> None:
            async def holds() -> bool:
                return (await bridge.cvm(first))["ready"] is is_ready

            await bridge.until(holds, f"ready is {is_ready}")

        await bridge.patch(first, status="running")
        await ready(True)
        app_id = (await bridge.cvm(first))["app_id"].removeprefix("app_")
        assert await both.wait(first) == REACHED
        cursor = await both.cursor(first)
        assert await both.wait(first, after=cursor, timeout=0) == TIMEOUT

        deployed = await both.begun(first, after=cursor)
        await bridge.control("PUT", f"/cvms/{first}/operation", json={})
        await ready(False)
        await bridge.control("DELETE", f"/cvms/{first}/operation")
        assert await deployed == REACHED

        await bridge.patch(first, status="starting")
        app = await both.begun(f"app_{app_id}", "running")
        one = await both.begun(f"app_{app_id}", "running", any_of=True)
        replica = {"name": "replica", "app_id": app_id, "status": "starting", "set": {"app_id": app_id}}
        await bridge.control("POST", "/cvms", json=replica)  # its state tells the app, so that no list is needed
        await bridge.http.put(f"{bridge.url}/v1/cvms/replica")
        await bridge.until_seen(3)
        await bridge.patch(first, status="running")
        assert await one == REACHED
        assert not app.done()
        await bridge.patch("replica", status="running")
        assert await app == REACHED

        failing = await both.begun(second, "exited")
        await bridge.patch(second, status="error")
        assert await failing == FAILED
        gone = await both.begun(second, "deleted")
        await bridge.control("DELETE", f"/cvms/{second}", params={"push": "1"})
        assert await gone == REACHED
        assert (await command(bridge.url, "no-such-cvm")).code is Code.FAILED


async def test_a_bridge_that_is_killed_in_the_middle_is_found_again(redis_url: str) -> None:
    async with front(redis_url) as web:
        await web.lead()
        await Watches(web.backend).renew(["cvm-1"])
        waiting = asyncio.create_task(command(web.url, "cvm-1", "running"))
        await web.until_present(1)
    assert not waiting.done()
    async with front(redis_url, port=web.port) as again:
        await again.lead()
        event_id = await again.append()
        found = await waiting
    assert (found.code, found.cursor) == (Code.REACHED, event_id)


async def test_a_client_that_goes_away_leaves_no_wait_behind_and_a_stop_answers_those_that_stay(redis_url: str) -> None:
    async with front(redis_url) as web:
        await web.lead()
        await Watches(web.backend).renew(["cvm-1"])
        async with httpx.AsyncClient() as http:
            waiting = asyncio.create_task(
                http.get(f"{web.url}/v1/cvms/cvm-1/wait", params={"timeout": 600}, timeout=60)
            )
            await web.until_present(1)
            waiting.cancel()
            await asyncio.wait([waiting])
            await web.until_present(0)
            staying = asyncio.create_task(http.get(f"{web.url}/v1/cvms/cvm-1/wait", timeout=60))
            await web.until_present(1)
            web.stop.set()
            answer = await staying
    assert (answer.status_code, answer.json()["type"]) == (503, "urn:bridge:problem:overloaded")
    assert int(answer.headers["retry-after"]) >= 1


def test_a_signal_is_no_success_and_still_prints_one_line(tmp_path: Path) -> None:
    made = Command(tmp_path, "wait", "web-1", "--url", f"http://127.0.0.1:{free_port()}")
    made.shows("cannot be reached")
    assert made.ends(signal.SIGINT) == 4
    assert json.loads(made.output)["outcome"] == "cannot_tell"
    assert made.errors.count("\n") == 1
