"""Reads the answer to one POST from the bytes of a connection (RFC 9112). Does no I/O and trusts nothing.

The final status decides about an attempt, and it counts as soon as it is there. So everything behind it is read with
patience: wrong lengths, lone line feeds, missing reasons and broken chunks end the answer, they do not spoil it.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from bridge.webhooks.bodies import KeptBody

MOST_WIRE = 256 * 1024
"""Bytes of one answer, head and framing included (`docs/contract.md#webhooks`). Real ones have some hundred."""

MOST_INTERIM = 8
"""Interim answers (1xx). Servers send one or two, `100 Continue` and `103 Early Hints`."""

MOST_CHUNKS = 512
"""Chunks of a body. In MOST_WIRE fit forty thousand of one byte, which would take our time and not the receiver's."""

MOST_FIELDS = 64
"""Occurrences of the header fields that are used, of each of which LONGEST_VALUE characters count."""

LONGEST_VALUE = 256

LONGEST_START = 64
"""Bytes in which version and status must come."""

_STATUS = re.compile(rb"HTTP/(\d+(?:\.\d+)?)[ \t]+(\d{3})(?=[ \t\r\n])", re.I)
_CUT_STATUS = re.compile(rb"HTTP/(\d+(?:\.\d+)?)[ \t]+(\d{3})", re.I)
_HEAD_END = re.compile(rb"\n\r?\n")
_FIELD = re.compile(
    rb"^(connection|content-encoding|content-length|retry-after|transfer-encoding)[ \t]*:[ \t]*([^\r\n]{0,%d})"
    % LONGEST_VALUE,
    re.I | re.M,
)
_CHUNK_SIZE = re.compile(rb"[ \t]*([0-9a-f]{1,8})[ \t]*(?:;[^\n]*)?\r?\n", re.I)

SWITCHING_PROTOCOLS = 101
BODILESS = (SWITCHING_PROTOCOLS, 204, 304)

NOT_HTTP = "the receiver's answer is not HTTP"
TOO_LONG = f"the receiver sent {MOST_WIRE // 1024} KiB or {MOST_INTERIM} interim answers without a final status"


@dataclass(eq=False)
class HttpAnswer:
    """Is fed with what arrives until `ended`. `wire` counts its bytes."""

    status: int | None = None
    """The final one; 101 counts as final too, since nobody asked for another protocol."""

    body: KeptBody = field(default_factory=KeptBody)
    retry_after: str | None = None
    wire: int = 0
    ended: bool = False
    fault: str | None = None
    """Why there is no status, unless the connection simply ended."""

    reusable: bool = False
    """The connection stands exactly behind this answer, and the receiver keeps it open."""

    _buffer: bytearray = field(default_factory=bytearray)
    _searched: int = 0
    _interim: int = 0
    _chunks: int = 0
    _left: int = 0
    _keeps: bool = False

    def __post_init__(self) -> None:
        # Not bound: a cycle would keep the body until the next garbage collection, which is rare here.
        self._step: Callable[[HttpAnswer], bool] = HttpAnswer._head

    def feed(self, data: bytes) -> bool:
        """Takes the next bytes. True: it wants no more."""
        room = MOST_WIRE - self.wire
        self.wire += len(data)
        if self.ended:  # nobody asked for more
            self.reusable = False
            return True
        self._buffer += data if len(data) <= room else data[:room]
        while self._step(self):
            pass
        if self.wire >= MOST_WIRE:
            self._end(TOO_LONG)
        return self.ended

    def end_of_stream(self) -> None:
        """The receiver closed the connection. Nothing changes if the answer has not begun."""
        if not self.wire:
            return
        if self.status is None and not self.ended:
            cut = _CUT_STATUS.fullmatch(self._buffer)
            self.status = _final(int(cut[2])) if cut else None
        self._end()
        self.reusable = False

    def _end(self, fault: str | None = None, *, clean: bool = False) -> bool:
        """False, as every step returns that leaves nothing to do."""
        if not self.ended:
            self.ended = True
            self.fault = fault if self.status is None else None
            self.reusable = clean and self._keeps and not self._buffer
            self._buffer = bytearray()
        return False

    def _head(self) -> bool:
        start = _STATUS.match(self._buffer)
        if start is None:
            self._skip_empty_lines()
            start = _STATUS.match(self._buffer)
        if start is None:
            begun = bytes(self._buffer[:5]).upper()
            if len(self._buffer) >= LONGEST_START or b"\n" in self._buffer or not b"HTTP/".startswith(begun):
                return self._end(NOT_HTTP)
            return False
        self.status = _final(int(start[2]))
        end = _HEAD_END.search(self._buffer, max(self._searched - 2, 0))
        if end is None:
            self._searched = len(self._buffer)
            return False
        version, head = start[1], bytes(self._buffer[: end.start() + 1])
        del self._buffer[: end.end()]
        self._searched = 0
        if self.status is not None:
            self._begin_body(version, head)
            return not self.ended
        self._interim += 1
        return self._interim < MOST_INTERIM or self._end(TOO_LONG)

    def _skip_empty_lines(self) -> None:
        if self._buffer.startswith((b"\r", b"\n")):
            self._buffer = self._buffer.lstrip(b"\r\n")

    def _begin_body(self, version: bytes, head: bytes) -> None:
        fields = _fields(head)
        self.retry_after = fields.get("retry-after")
        self.body.begin(fields.get("content-encoding", ""))
        connection = fields.get("connection", "").lower()
        self._keeps = "keep-alive" in connection if version in (b"1.0", b"0.9") else "close" not in connection
        coding, length = fields.get("transfer-encoding"), _length(fields.get("content-length"))
        if self.status in BODILESS:
            self._end(clean=self.status != SWITCHING_PROTOCOLS)
        elif coding is not None and "chunked" in coding.lower():
            self._keeps = self._keeps and "content-length" not in fields
            self._step = HttpAnswer._chunk_size
        elif coding is None and length is not None:
            self._left = length
            self._step = HttpAnswer._sized
        else:
            self._keeps = False
            self._step = HttpAnswer._unsized

    def _take(self, most: int) -> int:
        """Moves up to `most` bytes into the body; ends the answer once the body is long enough to keep."""
        part = bytes(self._buffer[:most])
        del self._buffer[:most]
        if part and not self.body.add(part):
            self._keeps = False
            self._end()
        return len(part)

    def _sized(self) -> bool:
        self._left -= self._take(self._left)
        return self._end(clean=True) if self._left == 0 else False

    def _unsized(self) -> bool:
        self._take(len(self._buffer))
        return False

    def _chunk_size(self) -> bool:
        if self._buffer.find(b"\n", self._searched) < 0:
            self._searched = len(self._buffer)
            return False
        self._searched = 0
        line = _CHUNK_SIZE.match(self._buffer)
        self._chunks += 1
        if line is None or self._chunks > MOST_CHUNKS:
            return self._end()
        self._left = int(line[1], 16)
        del self._buffer[: line.end()]
        self._step = HttpAnswer._chunk if self._left else HttpAnswer._trailers
        return True

    def _chunk(self) -> bool:
        self._left -= self._take(self._left)
        self._step = HttpAnswer._chunk if self._left else HttpAnswer._chunk_end
        return self._left == 0 and not self.ended

    def _chunk_end(self) -> bool:
        if self._buffer[:1] == b"\r" and len(self._buffer) == 1:
            return False
        for end in (b"\r\n", b"\n"):
            if self._buffer.startswith(end):
                del self._buffer[: len(end)]
                self._step = HttpAnswer._chunk_size
                return True
        return self._end() if self._buffer else False

    def _trailers(self) -> bool:
        for end in (b"\r\n", b"\n"):
            if self._buffer.startswith(end):
                del self._buffer[: len(end)]
                return self._end(clean=True)
        found = _HEAD_END.search(self._buffer, max(self._searched - 2, 0))
        self._searched = len(self._buffer)
        if found is None:
            return False
        del self._buffer[: found.end()]
        return self._end(clean=True)


def _final(status: int) -> int | None:
    return None if 100 <= status <= 199 and status != SWITCHING_PROTOCOLS else status


def _fields(head: bytes) -> Mapping[str, str]:
    """The fields that are used, by their names in lower case; repeated ones are joined by commas."""
    found: dict[str, str] = {}
    for match in itertools.islice(_FIELD.finditer(head), MOST_FIELDS):
        name, value = match[1].decode().lower(), match[2].decode("latin-1").strip()
        found[name] = f"{found[name]}, {value}" if name in found else value
    return found


def _length(text: str | None) -> int | None:
    """Of a `Content-Length`, which may be repeated; None for any that is not one number."""
    numbers = {each.strip() for each in text.split(",")} if text is not None else set()
    number = numbers.pop() if len(numbers) == 1 else ""
    return int(number) if re.fullmatch(r"\d{1,15}", number, re.ASCII) else None
