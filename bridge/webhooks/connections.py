"""HTTP/1.1 connections to receivers: opened to checked addresses, used by one attempt at a time, kept for a moment.

What a receiver sends counts from the first byte, and nothing that it sends unasked is ever taken for an answer.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import cast

from aiohappyeyeballs import AddrInfoType, start_connection

from bridge.webhooks.http_answer import HttpAnswer

KEEP_ALIVE = 1.5
"""Seconds an idle connection is kept: shorter than receivers keep theirs (2 and more), since a request into one that is
just being closed has to be sent again."""

RECEIVE_BUFFER = 64 * 1024
"""Bytes for one connection in the kernel, which would grow to megabytes for a receiver that floods it."""

SECOND_ADDRESS = 0.25
"""Seconds after which the next address of a name is tried beside the first (RFC 8305)."""

MOST_ADDRESSES = 8
"""Addresses of a name that are tried."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Where connections lead, and whether they are encrypted. `literal`: the host is an address."""

    host: str
    port: int
    tls: bool
    literal: bool = False


class UnansweredError(ConnectionError):
    """the connection was closed before an answer"""

    def __init__(self, cause: OSError | None = None) -> None:
        super().__init__(self.__doc__)
        self.errno = cause.errno if cause else None


class TlsError(Exception):
    """no verified TLS connection could be made"""

    def __init__(self, cause: Exception) -> None:
        super().__init__(self.__doc__)
        self.cause = cause


class Connection(asyncio.Protocol):
    """One exchange at a time. It closes itself when the receiver does, and at bytes that belong to no exchange."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._transport: asyncio.Transport | None = None
        self._answer: HttpAnswer | None = None
        self._ended: asyncio.Future[None] | None = None
        self._error: OSError | None = None

    async def exchange(self, request: bytes, answer: HttpAnswer) -> None:
        """Sends the request and feeds `answer` until it has ended. Raises UnansweredError if not even a status came."""
        if self._transport is None:
            raise UnansweredError(self._error)
        self._answer = answer
        self._ended = asyncio.get_running_loop().create_future()
        try:
            self._transport.write(request)
            await self._ended
        finally:
            self._answer = self._ended = None
        if answer.status is None and answer.fault is None:
            raise UnansweredError(self._error)

    def is_quiet(self) -> bool:
        """Whether nothing has come or ended since the last answer, the kernel's buffer included."""
        if self._transport is None or self._transport.is_closing() or self._transport.get_write_buffer_size():
            return False
        try:
            self._socket.recv(1, socket.MSG_PEEK)
        except (BlockingIOError, InterruptedError):
            return True
        except OSError:
            return False
        return False  # a byte that nobody asked for, or the end

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()
            self._transport = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is one without inheriting it

    def data_received(self, data: bytes) -> None:
        if self._answer is None:
            self.abort()
        elif self._answer.feed(data):
            if not self._answer.reusable:
                self.abort()  # a flood ends here, not when the attempt has its turn
            self._wake()

    def eof_received(self) -> None:
        if self._answer is not None:
            self._answer.end_of_stream()
            self._wake()

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        self._error = error if isinstance(error, OSError) else None
        self.eof_received()

    def _wake(self) -> None:
        if self._ended is not None and not self._ended.done():
            self._ended.set_result(None)


async def connect(origin: Origin, addresses: Sequence[str], tls: ssl.SSLContext) -> Connection:
    """A connection to one of these addresses, whatever the host's name leads to by now. Raises OSError, TlsError."""
    loop = asyncio.get_running_loop()
    sock = await _connected_socket([_info(address, origin.port) for address in addresses[:MOST_ADDRESSES]])
    try:
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
        name = origin.host.rstrip(".") if origin.tls else None
        context = tls if origin.tls else None
        _, connection = await loop.create_connection(
            lambda: Connection(sock), sock=sock, ssl=context, server_hostname=name
        )
    except OSError as error:  # all that can fail on a connected socket is the handshake
        sock.close()
        raise TlsError(error) from None
    except BaseException:
        sock.close()
        raise
    return connection


async def _connected_socket(infos: Sequence[AddrInfoType]) -> socket.socket:
    failures: list[OSError] = []

    def make(info: AddrInfoType) -> socket.socket:
        try:
            return socket.socket(*info[:3])
        except OSError as error:
            failures.append(error)
            raise

    try:
        return await start_connection(infos, happy_eyeballs_delay=SECOND_ADDRESS, socket_factory=make)
    except OSError as error:
        # What keeps this machine from trying an address tells more than how another one failed.
        raise (failures[0] if failures else error) from None


def _info(address: str, port: int) -> AddrInfoType:
    if ":" in address:
        return socket.AF_INET6, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (address, port, 0, 0)
    return socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (address, port)


class IdleConnections:
    """Connections between two attempts, at most `most` of them together with those in use.

    The attempts call it and it calls nothing; who takes a connection owns it.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self._in_use = 0
        self._idle: OrderedDict[Connection, tuple[Origin, float]] = OrderedDict()  # the longest idle first
        self._of: dict[Origin, dict[Connection, None]] = {}
        self._sweep: asyncio.TimerHandle | None = None

    def take(self, origin: Origin) -> Connection | None:
        """The one that was used last; None: open another."""
        while known := self._of.get(origin):
            connection = next(reversed(known))
            self._remove(connection)
            if connection.is_quiet():
                return connection
            connection.abort()
        return None

    @contextlib.contextmanager
    def using(self) -> Iterator[None]:
        """Counts a connection in use, which an idle one makes room for if there are too many."""
        self._in_use += 1
        try:
            while self._idle and self._in_use + len(self._idle) > self.most:
                self._drop_oldest()
            yield
        finally:
            self._in_use -= 1

    def give(self, origin: Origin, connection: Connection) -> None:
        now = asyncio.get_running_loop().time()
        self._idle[connection] = origin, now
        self._of.setdefault(origin, {})[connection] = None
        if self._in_use + len(self._idle) > self.most:
            self._drop_oldest()
        if self._sweep is None:
            self._sweep = asyncio.get_running_loop().call_later(KEEP_ALIVE, self._close_old)

    def close(self) -> None:
        while self._idle:
            self._drop_oldest()
        if self._sweep is not None:
            self._sweep.cancel()

    def _remove(self, connection: Connection) -> None:
        origin, _ = self._idle.pop(connection)
        known = self._of[origin]
        del known[connection]
        if not known:
            del self._of[origin]

    def _drop_oldest(self) -> None:
        connection = next(iter(self._idle))
        self._remove(connection)
        connection.abort()

    def _close_old(self) -> None:
        loop = asyncio.get_running_loop()
        while self._idle:
            _, since = next(iter(self._idle.values()))
            if loop.time() - since < KEEP_ALIVE:
                self._sweep = loop.call_at(since + KEEP_ALIVE, self._close_old)
                return
            self._drop_oldest()
        self._sweep = None
