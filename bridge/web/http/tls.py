"""TLS at the front end itself: its certificate, which may be renewed on disk, and the handshakes of its clients."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import ssl
from collections.abc import Callable, Sized
from typing import Any, cast

import uvicorn

from bridge.clock import Clock
from bridge.uvicorn_server import Server
from bridge.web import metrics
from bridge.web.http.waiting_connections import WaitingConnections

logger = logging.getLogger(__name__)

LOOK_EVERY = 2.0
"""Seconds between two looks at the files. A change counts at the second look, when both files have been written."""

SHUTDOWN_SECONDS = 1.0
"""Seconds that a client gets to take its last bytes and to close TLS; after that the connection is cut."""


class CertificateError(Exception):
    """the certificate or its key cannot be used; the text is one line"""


class Certificate:
    """BRIDGE_TLS_CERT and BRIDGE_TLS_KEY. `context` is for new connections. Raises CertificateError at first."""

    def __init__(self, certificate: str, key: str) -> None:
        self._files = {"BRIDGE_TLS_CERT": certificate, "BRIDGE_TLS_KEY": key}
        self._used = self._seen = self._versions()
        self.context = self._load()

    def look(self) -> None:
        """Takes files that have changed and have not changed since the last look. Unusable ones are an error line."""
        before, self._seen = self._seen, self._versions()
        if self._seen == self._used or self._seen != before:
            return
        self._used = self._seen
        try:
            self.context = self._load()
        except CertificateError as error:
            logger.error("the new certificate cannot be used, the old one stays", extra={"error": str(error)})
            metrics.CERTIFICATE_BROKEN.set(1)
        else:
            metrics.CERTIFICATE_BROKEN.set(0)
            logger.info("new connections get the new certificate")

    async def run(self, clock: Clock) -> None:
        """Looks now and then. Never returns."""
        while True:
            await clock.sleep(LOOK_EVERY)
            self.look()

    def _versions(self) -> list[tuple[int, int, int] | None]:
        """What changes with each file, or with the link that leads to it."""
        found: list[tuple[int, int, int] | None] = []
        for path in self._files.values():
            with contextlib.suppress(OSError):
                status = os.stat(path)
                found.append((status.st_ino, status.st_size, status.st_mtime_ns))
                continue
            found.append(None)
        return found

    def _load(self) -> ssl.SSLContext:
        for name, path in self._files.items():
            try:
                with open(path, "rb"):
                    pass
            except OSError as error:
                raise CertificateError(f"{name}: {path} cannot be read ({error.strerror})") from None
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.set_alpn_protocols(["http/1.1"])
        try:
            context.load_cert_chain(self._files["BRIDGE_TLS_CERT"], self._files["BRIDGE_TLS_KEY"], _no_password)
        except (ssl.SSLError, ValueError) as error:
            raise CertificateError(_fault(error)) from None
        return context


def _no_password() -> str:
    """OpenSSL would ask the terminal."""
    raise ValueError("encrypted")


def _fault(error: Exception) -> str:
    if isinstance(error, ssl.SSLError) and error.reason == "KEY_VALUES_MISMATCH":
        return "BRIDGE_TLS_KEY is not the key of BRIDGE_TLS_CERT"
    if not isinstance(error, ssl.SSLError):
        return "BRIDGE_TLS_KEY must be without a password"
    return "BRIDGE_TLS_CERT and BRIDGE_TLS_KEY must be PEM files: a certificate with its chain, and its key"


class TlsListener:
    """An `asyncio.Server` for one listening socket, as far as uvicorn needs one.

    A handshake counts as waiting for its client: it has the same time limit, and gives way when files run short.
    """

    def __init__(
        self,
        listener: socket.socket,
        certificate: Certificate,
        waiting: WaitingConnections,
        connections: Sized,
        make: Callable[[], asyncio.Protocol],
    ) -> None:
        """`connections`: those whose handshake is over. It listens from now on."""
        self._listener = listener
        self._certificate = certificate
        self._waiting = waiting
        self._connections = connections
        self._make = make
        self._handshakes: dict[asyncio.Task[None], Handshake] = {}
        self._accepting = asyncio.get_running_loop().create_task(self._accept(), name="TLS listener")

    def close(self) -> None:
        """Accepts no more, and ends the handshakes."""
        self._accepting.cancel()
        for handshake in self._handshakes.values():
            handshake.give_way()

    async def wait_closed(self) -> None:
        await asyncio.wait({self._accepting, *self._handshakes})

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                accepted, _ = await loop.sock_accept(self._listener)
            except OSError as error:
                logger.warning("a connection could not be accepted", extra={"error": str(error)})
                await asyncio.sleep(1.0)
                continue
            handshake = Handshake(accepted)
            task = loop.create_task(self._shake(handshake), name="TLS handshake")
            self._handshakes[task] = handshake
            task.add_done_callback(self._handshakes.pop)
            self._waiting.enter(handshake, len(self._connections) + len(self._handshakes))
            await asyncio.sleep(0)  # the loop is not left while connections are there to accept

    async def _shake(self, handshake: Handshake) -> None:
        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                self._make, handshake.socket, ssl=self._certificate.context, ssl_shutdown_timeout=SHUTDOWN_SECONDS
            )
        except (OSError, EOFError) as error:
            logger.debug("a TLS handshake failed", extra={"error": str(error)})
            handshake.socket.close()
        finally:
            self._waiting.end(handshake)


class Handshake:
    """A connection until TLS stands."""

    def __init__(self, accepted: socket.socket) -> None:
        self.socket = accepted

    def time_out(self) -> None:
        self.give_way()

    def give_way(self) -> None:
        with contextlib.suppress(OSError):  # it has ended already
            self.socket.shutdown(socket.SHUT_RDWR)


class TlsServer(Server):
    """A server whose sockets speak TLS."""

    def __init__(self, config: uvicorn.Config, certificate: Certificate, waiting: WaitingConnections) -> None:
        super().__init__(config)
        self._certificate = certificate
        self._waiting = waiting

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """In place of uvicorn's, which has no bounds for handshakes."""
        connections, make = self.server_state.connections, self._protocol
        self.servers: Any = [
            TlsListener(each, self._certificate, self._waiting, connections, make) for each in sockets or []
        ]
        self.started = True
        self.started_up.set()

    def _protocol(self) -> asyncio.Protocol:
        made: asyncio.Protocol = cast(Any, self.config.http_protocol_class)(
            config=self.config, server_state=self.server_state, app_state={}
        )
        return made
