"""`bridge tail`: events in the terminal, without a gap or a repetition across broken connections."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from bridge.client import Client, Interruption, RefusedError
from bridge.client_events import Position
from bridge.commands.terminal import bridge_client, refused, trouble_line

Write = Callable[[str], None]


@dataclass(frozen=True)
class Request:
    """Which events to follow, and at which bridge. `token` goes into a header only."""

    url: str
    cvms: tuple[str, ...] = ()
    token: str | None = field(default=None, repr=False)
    since: str | None = None
    types: tuple[str, ...] = ()


async def follow(request: Request, write: Write, complain: Write, *, client: Client | None = None) -> None:
    """Passes every event's JSON to `write`, until cancelled. `complain` gets one line per interruption.

    Raises CommandError if the bridge refuses and another try would not help.
    """

    def tell(interruption: Interruption) -> None:
        if interruption.tries == 1:
            complain(f"{trouble_line(interruption.error, request.url)}; trying again")

    async with client or bridge_client("tail", request.url, request.token) as bridge:
        try:
            async with bridge.events(
                *request.cvms, since=request.since, types=request.types, on_interruption=tell
            ) as events:
                async for event in events:
                    if not isinstance(event, Position):
                        write(event.json)
        except RefusedError as error:
            raise refused(error, request.url) from None
