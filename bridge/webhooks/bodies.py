"""Reads and records the beginning of a response's body, without trusting its size or its content."""

from __future__ import annotations

import bisect
import zlib
from collections.abc import Callable, Mapping

from bridge.events import dumps
from bridge.webhooks.private_texts import private_texts

READ_BYTES = 64 * 1024
"""Read after decompression; then the connection is cut. Real answers to webhooks have a few bytes."""

KEPT_BYTES = 4 * 1024
"""Kept for the delivery's history, as JSON: there a byte that is no text becomes six."""

SPARE_BYTES = 8 * 1024
"""Kept beyond that until private texts are removed: one at the cut must be complete (a header may have 4 KiB)."""

HIDDEN = "***"


class KeptBody:
    """The beginning of a body as it comes, so that an attempt that is cancelled leaves it there."""

    def __init__(self) -> None:
        self.kept = bytearray()
        self._plain = self._raw = 0
        self._inflate: Callable[[bytes], bytes] | None = None

    def begin(self, encoding: str) -> None:
        """Before the first part; `encoding` is the `Content-Encoding`."""
        self._inflate = _inflater(encoding)

    def add(self, raw: bytes) -> bool:
        """False once READ_BYTES have come: the rest is not read."""
        plain = self._inflate(raw) if self._inflate else raw
        self._plain, self._raw = self._plain + len(plain), self._raw + len(raw)
        self.kept += plain[: KEPT_BYTES + SPARE_BYTES - len(self.kept)]
        return max(self._plain, self._raw) < READ_BYTES


def _inflater(encoding: str) -> Callable[[bytes], bytes] | None:
    """None for a body that is not compressed or in an unknown way, which is kept as it came.

    It returns at most READ_BYTES per chunk, because a few compressed bytes may expand to gigabytes.
    """
    window = {"gzip": 31, "x-gzip": 31, "deflate": 15}.get(encoding.strip().lower())
    if window is None:
        return None
    stream = zlib.decompressobj(window)

    def inflate(raw: bytes) -> bytes:
        try:
            return stream.decompress(raw, READ_BYTES)
        except zlib.error:
            return b""

    return inflate


def shown(body: bytes, url: str, headers: Mapping[str, str]) -> str:
    """The beginning of a body for the delivery's history, with `***` for the request's private texts."""
    private = private_texts(url, headers) if body else []
    whole = len(body) < KEPT_BYTES + SPARE_BYTES
    for text in private:
        body = body.replace(text, HIDDEN.encode())
    if private and not whole:  # the end may hold a part of one
        body = body[: -len(private[0])]
    return _fitting(body[:KEPT_BYTES].decode("utf-8", "replace"))


def _fitting(text: str) -> str:
    """As much of its beginning as is KEPT_BYTES in JSON."""

    def size(letters: int) -> int:
        return len(dumps(text[:letters])) - 2

    if size(len(text)) <= KEPT_BYTES:
        return text
    return text[: bisect.bisect_right(range(len(text) + 1), KEPT_BYTES, key=size) - 1]
