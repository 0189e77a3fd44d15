"""What the commands that ask a bridge share: lines for people, and what they ask of a bridge."""

from __future__ import annotations

import json
import sys
from typing import Any

from bridge import __version__
from bridge.client import BridgeError, Client, ForbiddenError, NotFoundError, UnauthorizedError, UnreachableError
from bridge.events import (
    DELIVERY_GIVEN_UP,
    ENDPOINT_RECOVERED,
    NOTICES,
    READINESS,
    RESET,
    SNAPSHOT,
    TRANSITION,
    is_phala,
)
from bridge.printable import printable
from bridge.process.signals import CommandError
from bridge.waiting import Member

_COLOURS = {"running": 32, "stopped": 33, "exited": 33, "error": 31, "deleted": 31}
"""Status → the number of its colour; any other status is cyan."""


def write_line(line: str) -> None:
    """Writes to stdout at once, also into a pipe. Raises BrokenPipeError once the pipe's reader is gone."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def painted(text: str, colour: int) -> str:
    return f"\x1b[{colour}m{text}\x1b[0m"


def status_colour(status: object) -> int:
    return _COLOURS.get(str(status), 36)


def bridge_client(command: str, url: str, token: str | None) -> Client:
    """What `bridge <command>` asks the bridge at `url` with. Raises CommandError."""
    try:
        return Client(url, token, name=f"bridge-{command}/{__version__}")
    except ValueError as error:
        raise CommandError(f"--{error}") from None


def refused(error: BridgeError, url: str, scope: str = "read") -> CommandError:
    """One line that tells why, and what helps. `scope`: what the command's token must allow."""
    if isinstance(error, UnreachableError):
        return CommandError(f"{url} cannot be reached ({error}): is `bridge up` running?")
    if isinstance(error, UnauthorizedError | ForbiddenError):
        return CommandError(f"{error}: pass --token or set BRIDGE_TOKEN to a token of scope {scope}")
    if isinstance(error, NotFoundError) and "details" in error.problem:  # upstream's own: no such CVM
        return CommandError(f"{error} (`bridge cvms` lists those that are watched)")
    return CommandError(str(error))


def trouble_line(error: BridgeError, url: str) -> str:
    """What went wrong, where another try may help."""
    return f"{url} cannot be reached ({error})" if isinstance(error, UnreachableError) else str(error)


def event_line(text: str) -> str:
    """An event's JSON as a coloured line for people: time, CVM, change."""
    try:
        envelope = json.loads(text)
    except ValueError:
        return printable(text)
    data = as_object(envelope.get("data"))
    time = str(envelope.get("time", ""))[11:19] or "--:--:--"
    named = data.get("name") or data.get("cvm_id") or data.get("description") or envelope.get("subject") or "the log"
    name = printable(str(named))
    return f"{painted(time, 2)}  {painted(f'{name:<20}', 1)} {_change(str(envelope.get('type')), data)}"


def progress_line(member: Member, now: str) -> str:
    """What is known of a CVM that is waited for, as a coloured line for people. `now`: an RFC 3339 time."""
    name = printable(member.name or member.cvm_id)
    ready = "" if member.ready is None else f", {painted(*(('ready', 32) if member.ready else ('not ready', 33)))}"
    told = member.boot_error or member.boot_progress
    since = f"  since {printable(member.since)[11:19]}" if member.since else ""
    stale = f"  {printable(member.stale)}" if member.stale else ""
    words = f"{f'  {printable(told)}' if told else ''}{since}"
    shown = f"{_status(member.status)}{ready}{painted(words, 2) if words else ''}{painted(stale, 35) if stale else ''}"
    return f"{painted(now[11:19], 2)}  {painted(f'{name:<20}', 1)} {shown}"


def as_object(value: object) -> dict[str, Any]:
    """The value if it is a JSON object, else an empty one."""
    return value if isinstance(value, dict) else {}


def _change(kind: str, data: dict[str, Any]) -> str:
    state = as_object(data.get("state"))
    if kind == TRANSITION:
        return f"{_status(data.get('from'))} → {_status(data.get('to'))}"
    if kind == READINESS:
        return _readiness(data)
    if kind == SNAPSHOT:
        ready = "" if data.get("ready") is None else f", {_readiness(data)}"
        return f"is {_status(data.get('status') or data.get('to') or state.get('status'))}{ready}"
    if kind == RESET:
        reason = printable(str(data.get("reason")))
        return painted(f"events are missing here ({reason}); the current states follow:", 31)
    if kind.startswith("watch."):
        reason = f" ({printable(str(data['reason']))})" if data.get("reason") else ""
        return painted(kind.removeprefix("watch.") + reason, 35)
    if is_phala(kind):
        return painted(printable(kind), 35)
    if kind in NOTICES:
        return _notice(kind, data)
    return f"{_status(data.get('to'))}{_progress(state)}"


def _notice(kind: str, data: dict[str, Any]) -> str:
    """What became of a webhook endpoint."""
    told = [words for key in ("url", "reason") if (words := printable(str(data.get(key) or "")))]
    about = f" ({', '.join(told)})" if told else ""
    what = "a delivery was given up" if kind == DELIVERY_GIVEN_UP else kind.removeprefix("endpoint.")
    return painted(f"webhook: {what}{about}", 32 if kind == ENDPOINT_RECOVERED else 31)


def _readiness(data: dict[str, Any]) -> str:
    """Whether it is ready, and what it waits for."""
    if data.get("ready"):
        return painted("ready", 32)
    words = as_object(data.get("operation")).get("type") or data.get("reason")
    return painted(f"not ready ({printable(str(words))})" if words else "not ready", 33)


def _progress(state: dict[str, Any]) -> str:
    """The field whose change most often causes a `cvm.state`."""
    parts = [state.get(name) for name in ("boot_error", "boot_progress", "shutdown_progress")]
    found = next((part for part in parts if isinstance(part, str) and part), None)
    return painted(f"  {printable(found)}", 2) if found else ""


def _status(status: object) -> str:
    text = "unseen" if status is None else printable(str(status))
    return painted(text, status_colour(text))
