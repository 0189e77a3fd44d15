"""A receiver that is hostile in every way of which webhooks must be safe: a different one at each request."""

from __future__ import annotations

import asyncio
import gzip
import json
import random
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from tests.posting import Answer, Conversation, fixed, hang_up, never, raw, reset

LARGE = 64 * 1024

KEPT = b"HTTP/1.1 204 No Content\r\n\r\n"


def _head(status: str, *fields: str) -> bytes:
    return "".join(f"{line}\r\n" for line in (f"HTTP/1.1 {status}", *fields, "")).encode()


def _endless(start: bytes, part: bytes) -> Answer:
    """The part again and again, as fast as it is taken."""

    async def answer(request: Conversation) -> None:
        await request.send(start)
        while True:
            await request.send(part * (LARGE // len(part)))

    return answer


def _slowly(*parts: bytes, pause: float) -> Answer:
    async def answer(request: Conversation) -> None:
        for part in parts:
            await request.send(part)
            await asyncio.sleep(pause)

    return answer


def _then(first: bytes, last: Answer) -> Answer:
    async def answer(request: Conversation) -> None:
        await request.send(first)
        await last(request)

    return answer


def _kept_open(data: bytes) -> Answer:
    async def answer(request: Conversation) -> None:
        await request.send(data)

    return answer


def ways(elsewhere: str) -> Mapping[str, Answer]:
    """Each by its name; `elsewhere` is the URL to which one redirects."""
    chunked = "Transfer-Encoding: chunked"
    bomb = gzip.compress(bytes(8 << 20), 1)
    return {
        "100 Continue for ever": _endless(b"", _head("100 Continue")),
        "empty lines for ever": _endless(b"", b"\r\n"),
        "a chunk extension for ever": _endless(_head("500 No", chunked) + b"5;x=", b"x"),
        "chunks of a byte for ever": _endless(_head("503 No", chunked), b"1\r\nx\r\n"),
        "a head for ever": _endless(_head("500 No")[:-2], b"x-fill: x\r\n"),
        "a 2xx with a head of 60 kB": raw(_head("200 OK", f"CSP: {'x' * 60_000}", "Content-Length: 0")),
        "a 2xx that drips": _slowly(_head("200 OK", "Content-Length: 1000"), *[b"x"] * 999, pause=0.2),
        "a head that drips": _slowly(*(bytes([each]) for each in _head("500 No")), pause=0.2),
        "a 2xx, then a reset": _then(_head("200 OK", "Content-Length: 9"), reset),
        "no answer": never,
        "a reset": reset,
        "closed at the request": hang_up,
        "a kept connection that closes": _then(KEPT, hang_up),
        "half a status line": raw(b"HTTP/1.1 5"),
        "no HTTP": raw(b"SSH-2.0-OpenSSH_9.9\r\n"),
        "4 KiB of \\xff": fixed("500 No", b"\xff" * 4096),
        "a gzip bomb": fixed("500 No", bomb, "Content-Encoding: gzip"),
        "Retry-After of a century": fixed("503 No", b"", "Retry-After: 3153600000"),
        "Retry-After of a second": fixed("429 No", b"", "Retry-After: 1"),
        "a redirect": fixed("307 Elsewhere", b"", f"Location: {elsewhere}"),
        "another protocol": fixed("101 Switching Protocols"),
        "410": fixed("410 Gone"),
        "a second 2xx at once": _kept_open(2 * KEPT),
        "a second 2xx later": _slowly(KEPT, KEPT, pause=0.02),
    }


@dataclass(frozen=True)
class Read:
    """One request that came as a whole: the path, the event's CVM and its `to`."""

    path: str
    id: str
    cvm_id: str
    number: str


@dataclass
class Hostile:
    """Answers a request for each path by every way in turn, in an order of its own, until it is healed."""

    ways: Mapping[str, Answer]
    rng: random.Random
    healed: bool = False
    read: list[Read] = field(default_factory=list)
    used: Counter[str] = field(default_factory=Counter)
    _left: dict[str, list[str]] = field(default_factory=dict)

    async def answer(self, request: Conversation) -> None:
        path = request.head.split(b" ", 2)[1].decode()
        data = json.loads(request.body)["data"]
        self.read.append(Read(path, request.headers["webhook-id"], data["cvm_id"], data["to"]))
        if self.healed:
            await request.send(KEPT)
            return
        left = self._left.setdefault(path, [])
        if not left:
            left.extend(self.rng.sample(sorted(self.ways), len(self.ways)))
        way = left.pop()
        self.used[way] += 1
        await self.ways[way](request)
