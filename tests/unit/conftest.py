"""Unit tests open no sockets: a test that needs one belongs in tests/real."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import pytest
import urllib3  # noqa: F401 - its import binds a socket, which else happens in the first test that needs schemathesis


@pytest.fixture(autouse=True)
def _no_sockets(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Fails a test that binds or connects a socket, even where the code under test catches the error.

    An event loop keeps its socket pair: it is neither bound nor connected.
    """
    opened: list[str] = []

    def forbid(name: str) -> None:
        def forbidden(sock: socket.socket, *_: object) -> NoReturn:
            opened.append(name)
            raise AssertionError(f"a unit test called {name}() on a socket: it belongs in tests/real")

        monkeypatch.setattr(socket.socket, name, forbidden)

    for name in ("bind", "connect", "connect_ex"):
        forbid(name)
    yield
    assert not opened, f"a unit test called {opened} on sockets: it belongs in tests/real"


@pytest.fixture
def env(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    """An environment without settings, in a directory without `.env`."""
    monkeypatch.chdir(tmp_path)
    return monkeypatch
