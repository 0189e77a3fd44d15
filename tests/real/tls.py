"""Redis behind TLS: servers that speak it where one is found, and on every machine a proxy before plain ones."""

from __future__ import annotations

import asyncio
import contextlib
import re
import shutil
import socket
import ssl
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import trustme

from tests.servers import RealServer, Sentinel, cluster, eventually, free_port, server_binary

USER = ("bridge", "p@ss:w/rd% ?#ü")


class Certificates:
    """An authority with a certificate for 127.0.0.1 and one for the bridge, as files."""

    def __init__(self, folder: Path) -> None:
        authority = trustme.CA()
        self.authority = folder / "authority.pem"
        authority.cert_pem.write_to_path(str(self.authority))
        self.server, self.client = folder / "server.pem", folder / "client.pem"
        for path, name in ((self.server, "127.0.0.1"), (self.client, "bridge.test")):
            authority.issue_cert(name).private_key_and_cert_chain_pem.write_to_path(str(path))

    @property
    def query(self) -> str:
        """The bridge's options: whom it trusts and what it shows."""
        return f"ssl_ca_certs={self.authority}&ssl_certfile={self.client}&ssl_keyfile={self.client}"

    def context(self) -> ssl.SSLContext:
        """For a server that asks its clients for a certificate."""
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(self.authority))
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_cert_chain(self.server)
        return context

    def options(self, port: int) -> dict[str, str]:
        """The same for a Redis server."""
        files = {"cert-file": self.server, "key-file": self.server, "ca-cert-file": self.authority}
        named = {f"tls-{name}": str(path) for name, path in files.items()}
        return {"tls-port": str(port), "tls-replication": "yes", "tls-cluster": "yes", **named}


class OfFront:
    """A front end's certificate for 127.0.0.1 and its key in two files, and an authority to trust."""

    def __init__(self, folder: Path) -> None:
        self._authority = trustme.CA()
        self.authority, self.certificate, self.key = folder / "ca.pem", folder / "cert.pem", folder / "key.pem"
        self._authority.cert_pem.write_to_path(str(self.authority))
        self.renew()

    def renew(self, *, key: bool = True) -> None:
        """Writes a new certificate, and its key unless the two shall not match."""
        issued = self._authority.issue_cert("127.0.0.1", "localhost")
        issued.cert_chain_pems[0].write_to_path(str(self.certificate))
        if key:
            issued.private_key_pem.write_to_path(str(self.key))

    @property
    def trusting(self) -> ssl.SSLContext:
        """For a client."""
        return ssl.create_default_context(cafile=str(self.authority))

    @property
    def settings(self) -> dict[str, str]:
        return {"BRIDGE_TLS_CERT": str(self.certificate), "BRIDGE_TLS_KEY": str(self.key)}


def tls_binary() -> Path | None:
    """A server that was built with TLS."""
    on_path = [Path(found) for name in ("redis-server", "valkey-server") if (found := shutil.which(name))]
    return next((each for each in (server_binary(), *on_path) if b"SSL_CTX_new" in each.read_bytes()), None)


@contextlib.contextmanager
def servers(form: str, made: Certificates) -> Iterator[tuple[RealServer, int]]:
    """Servers that speak TLS: the one that has the data, and the port for clients."""
    binary, port = tls_binary(), free_port()
    assert binary is not None
    clustered = {"cluster-enabled": "yes", "cluster-config-file": "nodes.conf", "cluster-announce-ip": "127.0.0.1"}
    options = {**made.options(port), **(clustered if form == "cluster" else {})}
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(RealServer(binary, options=options))
        if form == "cluster":
            server.call("CLUSTER", "ADDSLOTS", *range(16_384))
            eventually(lambda: "cluster_state:ok" in server.call("CLUSTER", "INFO"), "the cluster's state ok")
        if form == "sentinel":
            monitored, port = port, free_port()
            stack.enter_context(Sentinel(server, port=monitored, options=made.options(port)))
        yield server, port


@contextlib.asynccontextmanager
async def proxies(form: str, made: Certificates, names: int = 0) -> AsyncIterator[tuple[RealServer, int]]:
    """The same with plain servers, which are hidden behind TLS and name the proxies' ports (or `names`) to clients."""
    async with contextlib.AsyncExitStack() as stack:
        server = stack.enter_context(cluster() if form == "cluster" else RealServer(tcp=True))
        renamed = server.port if form == "cluster" else 0
        port = await stack.enter_async_context(proxy(server.port, made.context(), renamed, names))
        if form == "sentinel":
            sentinel = stack.enter_context(Sentinel(server))
            naming = proxy(sentinel.port, made.context(), server.port, names or port)
            port = await stack.enter_async_context(naming)
        yield server, port


@contextlib.asynccontextmanager
async def proxy(target: int, context: ssl.SSLContext, renamed: int = 0, name: int = 0) -> AsyncIterator[int]:
    """Takes TLS off for the server at `target`; answers that name the port `renamed` name `name` or the proxy's own."""
    listener = socket.create_server(("127.0.0.1", 0))
    own = int(listener.getsockname()[1])
    named = re.compile(rb"(:|\r\n)%d(?=\r\n)" % renamed)

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, back: bool) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65_536):
                writer.write(named.sub(rb"\g<1>%d" % (name or own), data) if back and renamed else data)
                await writer.drain()
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", target)
        await asyncio.gather(carry(reader, inner_writer, back=False), carry(inner_reader, writer, back=True))

    async with await asyncio.start_server(serve, sock=listener, ssl=context):
        yield own
