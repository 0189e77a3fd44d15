"""A connection to a receiver, fed by hand."""

from __future__ import annotations

import asyncio
import socket
from typing import cast

from bridge.webhooks.connections import Connection
from bridge.webhooks.http_answer import HttpAnswer


class Wire(asyncio.Transport):
    """Takes everything, and notes its end."""

    aborts = 0

    def write(self, data: object) -> None:
        pass

    def abort(self) -> None:
        self.aborts += 1


async def test_a_flood_is_cut_when_its_bytes_come_and_not_when_the_attempt_has_its_turn() -> None:
    """Else the loop reads on for as long as other tasks keep the attempt from its turn."""
    connection, wire, answer = Connection(cast(socket.socket, None)), Wire(), HttpAnswer()
    connection.connection_made(wire)
    attempt = asyncio.create_task(connection.exchange(b"", answer))
    await asyncio.sleep(0)
    connection.data_received(b"HTTP/1.1 500 x\r\nX: ")
    assert wire.aborts == 0
    connection.data_received(b"x" * (256 * 1024))
    assert wire.aborts == 1
    assert not attempt.done()
    await attempt
    assert answer.status == 500
