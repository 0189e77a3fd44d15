"""The load client's other end: `load.c` opens the connections and takes the times, here it is told what to do."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.fanout.machine import MissingError, started

Answer = dict[str, Any]

ANSWER_BYTES = 16 << 20
"""The longest answer: 101 quantiles for each event of a window, some 1 kB an event."""

ENDED = "the load client ended before its time"


class LoadClient:
    """One client process. Groups are numbered 0 to 7; each command's answer is a JSON object (see `load.c`)."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._stdin, self._stdout = process.stdin, process.stdout
        self._waiting: dict[tuple[str, int], asyncio.Future[Answer]] = {}
        self._ended = False

    def open(
        self, group: int, count: int, port: int, path: str, headers: Sequence[str], in_flight: int
    ) -> Awaitable[Answer]:
        """Answers once every connection has its 200; the time counts from the first SYN."""
        return self._command("opened", group, "open", count, port, in_flight, path, *headers)

    async def watch(self, group: int, first: int, events: int, seconds: float, *, replay: bool = False) -> None:
        """Returns once the window stands: what is published from now on is counted. `report` has the outcome."""
        self._expect("window", group)
        await self._command("watching", group, "replay" if replay else "window", first, events, int(seconds * 1000))

    async def report(self, group: int) -> Answer:
        return await self._waiting["window", group]

    async def end(self, group: int) -> Answer:
        """The window's outcome as of now."""
        self._say("end", group)
        return await self.report(group)

    async def close(self, group: int) -> None:
        await self._command("closed", group, "close")

    def _expect(self, kind: str, group: int) -> asyncio.Future[Answer]:
        if self._ended:
            raise MissingError(ENDED)
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting[kind, group] = future
        return future

    def _command(self, kind: str, group: int, name: str, *fields: object) -> Awaitable[Answer]:
        future = self._expect(kind, group)
        self._say(name, group, *fields)
        return future

    def _say(self, *fields: object) -> None:
        self._stdin.write(("\t".join(map(str, fields)) + "\n").encode())

    async def listen(self) -> None:
        """Hands out the answers until the client ends, which it never does by itself: all who wait get MissingError."""
        while line := await self._stdout.readline():
            answer = json.loads(line)
            kind = next(iter(answer))
            self._waiting[kind, answer[kind]].set_result(answer)
        self._ended = True
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(MissingError(ENDED))


@contextlib.asynccontextmanager
async def load_client(program: Path, core: int) -> AsyncIterator[LoadClient]:
    async with started([program], core, answers=ANSWER_BYTES) as process:
        client = LoadClient(process)
        listening = asyncio.create_task(client.listen(), name="load client")
        try:
            yield client
        finally:
            listening.cancel()
