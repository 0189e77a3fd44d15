"""One worker of `bridge web --workers`: as a process of its parent, and what it answers its parent.

The worker's stdin is a socket from the parent, which writes single bytes: every second a question, at the end a request
to stop. The parent sends no signal, because systemd signals all processes at once, and a second signal would make a
worker exit at once. A worker whose event loop hangs does not answer, and is killed.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from bridge.process.signals import Stop

logger = logging.getLogger(__name__)

ASK_EVERY = 1.0
"""Seconds between two questions. Limits count questions, not seconds: no worker dies because all were suspended."""

HANGS_AFTER = 10
"""Questions in a row without an answer, after which a worker is replaced; much longer than any turn of its loop."""

STARTS_WITHIN = 300
"""The same before its first answer: it takes more than a second of CPU time, and 64 may start together on one core."""

ENDS_WITHIN = 3
"""The same once its drain should be over."""

KILL_SECONDS = 10.0
"""Beyond the drain; a worker that answers and still does not end is killed."""

Cause = Literal["crashed", "hung"]
"""Why a worker was replaced."""

_ASK, _ANSWER, _STOP, _STOP_AT_ONCE = b"?", b".", b"s", b"S"
_CAUSES: Mapping[int, Cause] = {ord("c"): "crashed", ord("h"): "hung"}


@dataclass
class Patience:
    """Decides when a worker hangs."""

    unanswered: int = 0
    limit: int = STARTS_WITHIN

    def ask(self) -> None:
        self.unanswered += 1

    def answer(self) -> None:
        self.unanswered, self.limit = 0, HANGS_AFTER

    def is_over(self, overdue: float | None) -> bool:
        """`overdue`: seconds since the worker should have drained, negative before; None unless it is to stop."""
        if overdue is None or overdue < 0:
            return overdue is None and self.unanswered >= self.limit
        return self.unanswered >= ENDS_WITHIN or overdue >= KILL_SECONDS


@dataclass(frozen=True, slots=True)
class End:
    """`status`: the exit status, negative after a signal. `hung`: the worker was killed because it did not answer."""

    status: int
    hung: bool


async def run_worker(
    environment: Mapping[str, str],
    stop: Stop,
    drain_seconds: float,
    replaces: Cause | None,
    on_end: Callable[[int], None],
    listener: int | None,
) -> End:
    """Runs one worker until it ends, or hangs, or `stop` is set and it has drained.

    `listener`: the file of a socket that the worker shall serve.
    `replaces`: why there is no other worker in its place any more. `on_end` gets the process's id once it is gone.
    """
    async with contextlib.AsyncExitStack() as stack:
        ours, theirs = socket.socketpair()
        stack.callback(ours.close)
        with theirs:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "bridge", "web", "--worker"),
                *([] if listener is None else ["--listener", str(listener)]),
                pass_fds=() if listener is None else (listener,),
                env=environment,
                stdin=theirs.fileno(),
                start_new_session=True,  # so that ctrl-C reaches the parent alone
            )
        stack.callback(_bury, process, on_end)
        reader, writer = await asyncio.open_unix_connection(sock=ours)
        stack.callback(writer.close)
        for code, cause in _CAUSES.items():
            if cause == replaces:
                writer.write(bytes([code]))
        patience = Patience()
        hearing = asyncio.create_task(_hear(reader, patience), name="worker's answers")
        stack.callback(hearing.cancel)
        return await _attend(process, writer, patience, stop, drain_seconds)


def _bury(process: asyncio.subprocess.Process, on_end: Callable[[int], None]) -> None:
    if process.returncode is None:
        process.kill()
    on_end(process.pid)


async def _hear(reader: asyncio.StreamReader, patience: Patience) -> None:
    with contextlib.suppress(OSError):
        while await reader.read(64):
            patience.answer()


async def _attend(
    process: asyncio.subprocess.Process,
    writer: asyncio.StreamWriter,
    patience: Patience,
    stop: Stop,
    drain_seconds: float,
) -> End:
    loop, drained_at = asyncio.get_running_loop(), None
    ending = asyncio.create_task(process.wait(), name="worker's end")
    stopping = asyncio.create_task(stop.wait(), name="stop")
    try:
        while not ending.done():
            if stop.is_set() and drained_at is None:
                writer.write(_STOP_AT_ONCE if stop.at_once else _STOP)
                drained_at = loop.time() + (0 if stop.at_once else drain_seconds)
            if patience.is_over(None if drained_at is None else loop.time() - drained_at):
                what = "does not answer and is replaced" if drained_at is None else "does not end and is killed"
                extra = {"pid": process.pid, "unanswered": patience.unanswered}
                logger.error("a worker %s", what, extra=extra)
                process.kill()
                return End(await ending, hung=True)
            writer.write(_ASK)
            patience.ask()
            awaited = {ending, stopping} if drained_at is None else {ending}
            await asyncio.wait(awaited, timeout=ASK_EVERY, return_when=asyncio.FIRST_COMPLETED)
        return End(ending.result(), hung=False)
    finally:
        stopping.cancel()
        ending.cancel()


@contextlib.contextmanager
def answering_parent(stop: Stop, on_replacing: Callable[[Cause], None]) -> Iterator[None]:
    """In a worker: answers the parent, and sets `stop` when the parent asks for it or is gone.

    Must be called inside the event loop. `on_replacing` is called if this worker replaces another one. A parent that is
    gone while this worker already stops was told to exit at once, so this worker exits at once, too.
    """
    parent = socket.socket(fileno=os.dup(sys.stdin.fileno()))
    parent.setblocking(False)
    loop = asyncio.get_running_loop()

    def readable() -> None:
        try:
            asked = parent.recv(64)
        except BlockingIOError:
            return
        except OSError:
            asked = b""  # the parent is gone, and has not read the last answers
        for each in asked:
            _obey(each, parent, stop, on_replacing)
        if not asked:
            loop.remove_reader(parent)
            if stop.is_set():
                os._exit(1)
            stop.set()

    loop.add_reader(parent, readable)
    try:
        yield
    finally:
        loop.remove_reader(parent)
        parent.close()


def _obey(asked: int, parent: socket.socket, stop: Stop, on_replacing: Callable[[Cause], None]) -> None:
    if asked in _ASK:
        with contextlib.suppress(OSError):
            parent.send(_ANSWER)
    elif asked in _STOP:
        stop.set()
    elif asked in _STOP_AT_ONCE:
        stop.set_at_once()
    elif asked in _CAUSES:
        on_replacing(_CAUSES[asked])
