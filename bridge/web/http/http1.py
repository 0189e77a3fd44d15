"""uvicorn's HTTP/1 with what it leaves out: bounds on request heads, on pipelines and on the time that a client takes;
no ambiguous heads, no trailers, no upgrades, and HTTP/1.0 without chunks.
"""

from __future__ import annotations

import http
import logging
from functools import partial
from typing import Any

import httptools
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from bridge.web.http.request_head import ambiguity, authority
from bridge.web.http.waiting_connections import WaitingConnections

logger = logging.getLogger(__name__)

MOST_HEAD = 64 * 1024
"""Bytes of a request's line and fields; trailers and the framing of a body have the same limit."""

MOST_FIELDS = 100

MOST_PARAMETERS = 2000
"""Of a query: twice as many as a route takes. To parse 30 000 of them takes 25 ms, before any token is looked at."""

MOST_PIPELINED = 64
"""Requests that wait behind the one that is served: uvicorn reads on after each answer, and keeps 3 kB for each."""

MOST_STANDSTILLS = 6
"""Looks in a row, CLIENT_SECONDS apart, at which the client has taken nothing more of its answer."""

LINGER = 1.0
"""Seconds for which a refused client may still send: a reset would destroy the answer before the client has read it."""


class OverlongError(Exception):
    """the request's head has too many bytes or fields"""

    def __init__(self, status: int = 431) -> None:
        super().__init__()
        self.status = status


class BoundedProtocol(HttpToolsProtocol):
    """Relies on uvicorn's internals; the tests watch those."""

    cycle: Any
    scope: Any
    flow: Any
    parser: Any

    def __init__(self, *args: Any, waiting: WaitingConnections, **options: Any) -> None:
        super().__init__(*args, **options)
        self._waiting = waiting
        self._in_head = False
        self._upgrading = False
        self._refused = False
        self._parsed = 0
        """Bytes of the present head, or of the trailers."""
        self._unparsed = 0
        """Bytes since the last head, piece of a body or end of a request: a head, or framing."""
        self._unsent = 0
        """Bytes of answers that the client had not taken at the last look; 0 if nobody looks."""
        self._standstills = 0

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._waiting.enter(self, len(self.connections))

    def connection_lost(self, exc: Exception | None) -> None:
        self._waiting.end(self)
        super().connection_lost(exc)
        # The scope refers to this object, by its extensions: freed now, not by the garbage collector.
        self.scope = self.cycle = None
        self.headers = []

    def time_out(self) -> None:
        if self._unsent:
            self._look()
        elif not self._is_idle() and (self.cycle.response_started or self.flow.read_paused):
            self._waiting.begin(self)  # it is the server that takes its time
        elif self._in_head or self._unparsed or not self._is_idle():
            self._refuse(408)
        else:
            self.transport.close()

    def give_way(self) -> None:
        self.transport.abort()

    # A client that does not take its answers

    def pause_writing(self) -> None:
        super().pause_writing()
        self._begin_to_look()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if not self.pipeline:
            self._rest()

    def _rest(self) -> None:
        if unsent(self.transport):
            self._begin_to_look()
        elif self.cycle.more_body:
            self._waiting.begin(self)
        else:
            self._waiting.rest(self)

    def _begin_to_look(self) -> None:
        self._unsent, self._standstills = unsent(self.transport), 0
        self._waiting.begin(self)

    def _look(self) -> None:
        left = unsent(self.transport)
        self._standstills = 0 if left < self._unsent else self._standstills + 1
        self._unsent = left
        if self._standstills == MOST_STANDSTILLS:
            logger.info("a client did not take its answer", extra={"bytes": left})
            self.transport.abort()
        elif left:
            self._waiting.begin(self)
        elif self._is_idle():
            self._rest()

    # What the client sends

    def data_received(self, data: bytes) -> None:
        if self._refused:
            return
        self._unset_keepalive_if_required()
        self._unparsed += len(data)
        try:
            self._feed(data)
        except OverlongError as error:
            self._refuse(error.status)
        except httptools.HttpParserError as error:
            self._refuse(_status_of(error))
        else:
            if self._is_idle() or self.cycle.more_body:
                self._waiting.begin(self)

    def _is_idle(self) -> bool:
        """Whether no request is being served."""
        return self.cycle is None or bool(self.cycle.response_complete)

    def _feed(self, data: bytes) -> None:
        rest: bytes | memoryview = data
        while True:
            try:
                self.parser.feed_data(rest)
                break
            except httptools.HttpParserUpgrade as upgrade:
                rest = memoryview(rest)[upgrade.args[0] :]
                self._ignore_upgrade()
        if self._unparsed > MOST_HEAD:
            raise OverlongError

    def _ignore_upgrade(self) -> None:
        """Parses the head anew without the offer, which a server may ignore (RFC 9110, section 7.8): the parser takes
        what follows for another protocol's.
        """
        method = self.parser.get_method()
        if method == b"CONNECT":
            raise httptools.HttpParserError("CONNECT")
        fields = [(name, value) for name, value in self.headers if name not in (b"upgrade", b"http2-settings")]
        lines = [
            b"%s: %s\r\n" % (name, _without_upgrade(value) if name == b"connection" else value)
            for name, value in fields
        ]
        version = self.parser.get_http_version().encode()
        self.parser = httptools.HttpRequestParser(self)
        self._upgrading = False
        self.parser.feed_data(b"%s %s HTTP/%s\r\n%s\r\n" % (method, self.url, version, b"".join(lines)))

    def _heard(self) -> None:
        """The client sent something; that does not prolong its time for taking answers."""
        if not self.flow.write_paused:
            self._unsent = 0
            self._waiting.end(self)

    # The parser's calls

    def on_message_begin(self) -> None:
        self._heard()
        super().on_message_begin()
        self._in_head = True
        self._parsed = 0

    def on_url(self, url: bytes) -> None:
        self._parsed += len(url)
        if self._parsed > MOST_HEAD:
            raise OverlongError(414)
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._parsed += len(name) + len(value) + 4
        if self._parsed > MOST_HEAD or len(self.headers) == MOST_FIELDS:
            raise OverlongError
        if self._in_head:  # else it is a trailer, which must not pass for a header
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._require_clarity()
        if self.parser.should_upgrade():
            self._upgrading = True
            return
        self._in_head = False
        self._parsed = self._unparsed = 0
        if len(self.pipeline) == MOST_PIPELINED:
            raise httptools.HttpParserError("too many requests are waiting")
        super().on_headers_complete()
        if self.scope["http_version"] == "1.0":
            self.cycle.send = partial(_send_unframed, self.cycle, self.cycle.send)

    def _require_clarity(self) -> None:
        """Raises HttpParserError for a head that others could read differently, OverlongError for a long query."""
        if self.url.count(b"&") >= MOST_PARAMETERS:
            raise OverlongError(414)
        if fault := ambiguity(self.parser.get_http_version(), self.url, self.headers):
            raise httptools.HttpParserError(fault)
        named = authority(self.url)
        if named and all(name != b"host" for name, _ in self.headers):
            self.headers.append((b"host", named))  # the target counts before the field (RFC 9112, section 3.2.2)

    def on_body(self, body: bytes) -> None:
        self._unparsed = 0
        if not self._is_idle():  # else the body is dropped, and prolongs nothing
            self._heard()
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._unparsed = 0
        self._heard()
        if not self._upgrading:
            super().on_message_complete()

    # Refusals

    def shutdown(self) -> None:
        """Called when the server ends: an upload gets a last second instead of being cancelled with a 500."""
        super().shutdown()
        if not self._is_idle() and self.cycle.more_body:
            self.loop.call_later(LINGER, self._end_upload)

    def _end_upload(self) -> None:
        if not self._is_idle() and self.cycle.more_body:
            self.transport.close()

    def _refuse(self, status: int) -> None:
        """Answers, and ends the connection; after the response that is being sent, if there is one."""
        self._refused = True
        logger.info("a request was refused", extra={"status": status})
        if not self._is_idle():
            self.cycle.keep_alive = False
            if not self.cycle.more_body:
                return
            # The rest of the body cannot come any more.
            self.cycle.disconnected = True
            self.cycle.message_event.set()
            if self.cycle.response_started or self.pipeline:
                self.transport.close()
                return
        text = http.HTTPStatus(status).phrase.encode()
        fields = b"content-type: text/plain\r\ncontent-length: %d\r\nconnection: close\r\n" % len(text)
        self.transport.write(b"%s%s\r\n%s" % (STATUS_LINE[status], fields, text))
        if self.transport.can_write_eof():
            self.transport.write_eof()
            self.loop.call_later(LINGER, self.transport.abort)
        else:
            self.transport.close()


def _status_of(error: httptools.HttpParserError) -> int:
    """A function of its own: a variable of the caller would keep it, and all that was received, until the garbage
    collector comes.
    """
    cause = error.__context__
    return cause.status if isinstance(cause, OverlongError) else 400


def unsent(transport: Any) -> int:
    """Bytes that wait in the transport. asyncio's TLS transports fail here once they are closed twice."""
    try:
        return int(transport.get_write_buffer_size())
    except AttributeError:
        return 0


def _without_upgrade(connection: bytes) -> bytes:
    tokens = [token.strip() for token in connection.split(b",")]
    return b", ".join(token for token in tokens if token.lower() not in (b"upgrade", b"http2-settings"))


async def _send_unframed(cycle: Any, send: Any, message: Any) -> None:
    """HTTP/1.0 has no chunks: the end of the connection ends the body."""
    if message["type"] == "http.response.start":
        cycle.chunked_encoding = False
    else:
        cycle.expected_content_length = len(message.get("body", b""))
    await send(message)
