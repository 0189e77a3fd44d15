"""The state route's SSE answer: its events, their schedule, and faults of its connection."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from typing import Literal

from starlette.responses import JSONResponse
from starlette.types import Receive, Scope, Send

from bridge.clock import set_within
from bridge.simulator import bodies
from bridge.simulator.faults import Fault
from bridge.simulator.simulator import Simulator
from bridge.simulator.stream_quota import Cut, OpenStream
from bridge.simulator.world import Cvm, dumps

#: The ASGI extension that cuts the connection: a callable that gets `"reset"` or `"close"`.
EXTENSION = "bridge.simulator.connection"

HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
]

LINE_ENDS = {"LF": b"\n", "CRLF": b"\r\n", "CR": b"\r"}

Frame = tuple[str, bytes]


@dataclass
class Schedule:
    """When a stream reads its CVM: at once, then every `interval`, until `timeout`. Simulated seconds."""

    started: float
    interval: float
    timeout: float
    due: float = 0.0

    def __post_init__(self) -> None:
        self.due = self.started

    @property
    def deadline(self) -> float:
        return self.started + self.timeout

    def is_due(self, now: float) -> bool:
        """Whether a read is due. If so, the next one is due an interval later; missed ones are left out."""
        if now < self.due:
            return False
        self.due += self.interval * ((now - self.due) // self.interval + 1)
        if self.due <= now:
            self.due += self.interval  # the quotient was rounded down at an exact multiple
        return True

    @property
    def next(self) -> float:
        return min(self.due, self.deadline)


def frames(cvm: Cvm, target: str, schedule: Schedule, now: float, *, push: bool) -> tuple[list[Frame], bool]:
    """The events to send now, and whether the stream ends after them."""
    elapsed = round(now - schedule.started, 1)
    if now >= schedule.deadline:
        error = f"Timeout waiting for status '{target}'"
        return [("timeout", dumps({"error": error, "elapsed": elapsed, "target": target}))], True
    if not (schedule.is_due(now) or push):
        return [], False
    if cvm.deleted:
        message = "The CVM has been deleted"
        return [("error", dumps({"error": "CVM not found", "elapsed": elapsed, "message": message}))], True
    state = ("state", cvm.body(now))
    if cvm.status == target:
        return [state, ("complete", dumps({"status": target, "elapsed": elapsed, "target": target}))], True
    return [state], False


async def disconnected(receive: Receive) -> None:
    """Returns once the client is gone."""
    while (await receive())["type"] != "http.disconnect":
        pass


@dataclass
class StreamResponse:
    """An ASGI answer. The stream counts against the limit until its client goes away, it ends, or it times out.

    `pace`: interval and timeout, in simulated seconds.
    """

    simulator: Simulator
    cvm: Cvm
    user: str
    target: str
    pace: tuple[int, int]
    fault: Fault | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        quota = self.simulator.quota
        lasts = self.pace[1] * self.simulator.settings.time_scale
        opened = quota.open(self.cvm.vm_uuid, self.user, self.target, *self.pace, lasts)
        if opened is None:
            await JSONResponse(bodies.TOO_MANY, 429)(scope, receive, send)
            return
        try:
            async with asyncio.TaskGroup() as group:
                listener = group.create_task(self._listen(opened, receive), name=f"simulator-listener-{opened.id}")
                await self._run(opened, scope, send)
                listener.cancel()
        finally:
            quota.release(opened)

    async def _listen(self, stream: OpenStream, receive: Receive) -> None:
        await disconnected(receive)
        if stream in self.simulator.quota.streams():
            stream.gone = True
            self.simulator.quota.release(stream)
            stream.awake.set()

    async def _run(self, stream: OpenStream, scope: Scope, send: Send) -> None:
        if self.fault is not None and not await self._obstruct(stream, self.fault, scope):
            self.simulator.quota.release(stream)
            return
        await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
        action = self.fault.action if self.fault else None
        if action != "end":
            stream.silent = action == "silent"
            end = await self._send_events(stream, send, mute=action == "mute")
            if end != "end":
                await self._break(stream, end, scope)
                return
        # Released first: a client that got the end of the body may open its next stream at once.
        self.simulator.quota.release(stream)
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _obstruct(self, stream: OpenStream, fault: Fault, scope: Scope) -> bool:
        """Waits as the fault demands; False if no answer follows."""
        await self._pause(stream, None if fault.action == "hang" else fault.delay)
        if fault.action == "reset" or stream.cut:
            await self._break(stream, "reset", scope)
            return False
        return not stream.gone

    async def _pause(self, stream: OpenStream, seconds: float | None) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while not (stream.gone or stream.cut or self.simulator.closing.is_set()):
                    await stream.awake.wait()
                    stream.awake.clear()

    async def _send_events(self, stream: OpenStream, send: Send, *, mute: bool) -> Cut:
        """Sends until the stream's end; returns how the connection ends."""
        schedule = Schedule(self.simulator.now(), *self.pace)
        while not (stream.gone or self.simulator.closing.is_set()):
            if stream.cut:
                return stream.cut
            if await self._send_due(stream, schedule, send):
                return "end"
            stream.silent = stream.silent or mute
            mute = False
            await self._rest(stream, schedule)
        return "close" if stream.gone else "end"

    async def _send_due(self, stream: OpenStream, schedule: Schedule, send: Send) -> bool:
        while stream.pieces:
            await self._write(stream.pieces.popleft(), send)
        self.simulator.advance()
        now, push = self.simulator.now(), stream.push
        stream.push = False
        if stream.silent:
            if now >= schedule.deadline:
                self.simulator.quota.lapse(stream)
            return False
        events, ended = frames(self.cvm, self.target, schedule, now, push=push)
        # All at once, so that a client gets `complete` together with the last `state`.
        line_end = LINE_ENDS[self.simulator.settings.line_end]
        await self._write(b"".join(bodies.frame(event, data, line_end) for event, data in events), send)
        return ended

    async def _write(self, data: bytes, send: Send) -> None:
        size = 1 if self.simulator.settings.one_byte else max(len(data), 1)
        for start in range(0, len(data), size):
            await send({"type": "http.response.body", "body": data[start : start + size], "more_body": True})
            if size == 1:
                await asyncio.sleep(0)

    async def _rest(self, stream: OpenStream, schedule: Schedule) -> None:
        """Waits for the next read or a poke; a silent stream reads only at its end."""
        until = schedule.next if not stream.silent else schedule.deadline
        seconds = (until - self.simulator.now()) * self.simulator.settings.time_scale
        await set_within(stream.awake, max(seconds, 0) if stream.counted else None)
        stream.awake.clear()

    async def _break(self, stream: OpenStream, how: Literal["reset", "close"], scope: Scope) -> None:
        """Cuts the connection and waits until it is cut."""
        if not stream.gone:
            scope["extensions"][EXTENSION](how)
            stream.cut = None
            await self._pause(stream, None)
