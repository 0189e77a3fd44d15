"""`HOST=unix:/path`: a socket in the file system in place of an address."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
import stat
from collections.abc import Iterator

from bridge.addresses import is_loopback
from bridge.uvicorn_server import unix_path

MODE = 0o660
"""The socket's owner and its group may connect."""


def is_local(host: str) -> bool:
    """Whether only this machine reaches a server that listens there."""
    return unix_path(host) is not None or is_loopback(host)


@contextlib.contextmanager
def unix_socket(path: str, backlog: int) -> Iterator[socket.socket]:
    """Listens at the path, and removes the file at the end. A file that nobody listens to any more is replaced.

    Raises OSError: EADDRINUSE if somebody listens, EEXIST if the file is no socket.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as bound:
        with _locked(os.path.dirname(path)):
            _remove_stale(path)
            bound.bind(path)
            os.chmod(path, MODE)
            bound.listen(backlog)
            made = os.stat(path)
        try:
            yield bound
        finally:
            with contextlib.suppress(OSError):
                if os.path.samestat(made, os.stat(path)):  # else another one has replaced it
                    os.unlink(path)


@contextlib.contextmanager
def _locked(directory: str) -> Iterator[None]:
    """Two that start at the same moment must not take each other's file for a stale one."""
    lock = os.open(directory, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def _remove_stale(path: str) -> None:
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(found.st_mode):
        raise OSError(errno.EEXIST, "the file is no socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)  # a full queue of connections is in use too
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
            return
        except BlockingIOError:
            pass
    raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
