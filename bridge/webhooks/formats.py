"""Renders one event in an endpoint's format (`docs/contract.md#webhooks`).

`data` is the event's own, character for character: a state is relayed as upstream wrote it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import assert_never

from bridge.events import NOTICES, READINESS, TRANSITION, Event, dumps, is_phala
from bridge.webhook_formats import FORMATS, Format
from bridge.webhooks.chat_formats import chat_message


@dataclass(frozen=True, slots=True)
class Rendered:
    """A body and the headers that belong to it (lower-case, `content-type` among them); the same at every attempt."""

    body: bytes
    headers: dict[str, str]


def render(format: Format, event: Event, *, ran: bool) -> Rendered:
    """`ran`: the CVM had been seen `running` before this event."""
    headers = {"content-type": FORMATS[format]}
    match format:
        case "cloudevents":
            return Rendered(event.json.encode(), headers)
        case "phala" if is_phala(event.type):
            return _as_it_came(event, headers)
        case "phala":
            return _phala(event, headers, ran=ran)
        case "standard":
            head = dumps({"type": event.type, "timestamp": json.loads(_head(event))["time"]})
            return Rendered(f'{head[:-1]},"data":{_data(event)}}}'.encode(), headers)
        case "slack" | "discord" | "teams" | "ntfy":
            body, more = chat_message(format, event)
            return Rendered(body, {**headers, **more})
        case _:
            assert_never(format)


# `data` is the envelope's last member, and within a JSON string no bare `"` can follow a comma: the first match is it.
_DATA = ',"data":'


def _data(event: Event) -> str:
    return event.json.partition(_DATA)[2][:-1]


def _head(event: Event) -> str:
    return event.json.partition(_DATA)[0] + "}"


def lifecycle(event_type: str, before: object, after: object, *, ran: bool) -> str:
    """Phala Cloud's name for a transition; other events keep their own type."""
    if event_type != TRANSITION:
        return event_type
    match after:
        case "running" if not ran:
            return "cvm.created"
        case "running":
            return "cvm.restarted" if before == "restarting" else "cvm.started"
        case "stopped" | "exited":
            return "cvm.stopped"
        case "error" if not ran:
            return "cvm.create_failed"
        case "deleted":
            return "cvm.deleted"
    return TRANSITION


def _as_it_came(event: Event, headers: Mapping[str, str]) -> Rendered:
    """Phala Cloud's own webhook."""
    notice = _members(_data(event))["notice"]
    named = json.loads(notice, parse_int=str)
    return Rendered(notice.encode(), {**headers, "x-webhook-id": named["id"], "x-webhook-event": named["event"]})


def _phala(event: Event, headers: Mapping[str, str], *, ran: bool) -> Rendered:
    """Phala Cloud's own envelope. The state route does not contain the workspace, so the namespace is used."""
    envelope, data = json.loads(_head(event)), _members(_data(event))
    before, after = (json.loads(data.get(key, "null"), parse_int=str) for key in ("from", "to"))
    name = lifecycle(event.type, before, after, ran=ran)
    event_id, namespace = f"evt_{event.id}", str(envelope["source"]).rpartition("/")[2]
    head = dumps(
        {
            "id": event_id,
            "event": name,
            "version": "1",
            "created_at": envelope["time"],
            "workspace": {"id": namespace, "name": namespace},
        }
    )
    told = _data(event) if event.type in NOTICES else _phala_data(event, name, data)
    body = f'{head[:-1]},"data":{told}}}'
    return Rendered(body.encode(), {**headers, "x-webhook-id": event_id, "x-webhook-event": name})


def _phala_data(event: Event, name: str, data: Mapping[str, str]) -> str:
    known = _members(data.get("state", "null"))
    found = {
        "cvm_id": dumps(event.cvm_id),
        "cvm_name": data.get("name", "null"),
        "app_id": known.get("app_id") or data.get("app_id", "null"),
        "status": data.get("to", "null"),
    }
    if name == "cvm.create_failed" and known.get("boot_error", "null") != "null":
        found["error"] = known["boot_error"]
    added = ("ready", "was_ready", "reason") if event.type == READINESS else ("from", "to")
    found |= {key: data.get(key, "null") for key in added}
    return "{" + ",".join(f'"{key}":{text}' for key, text in found.items()) + "}"


# Numbers stay text: nothing is calculated with them, and `int` refuses those of more than 4300 digits.
_DECODER = json.JSONDecoder(parse_int=str, parse_float=str)
_BETWEEN = re.compile(r"[ \t\r\n,:]*")


def _members(text: str) -> dict[str, str]:
    """Of a JSON object, each member's value as it is written; nothing of other JSON."""
    found: dict[str, str] = {}
    at = _past(text, 1)
    while text.startswith("{") and text[at] != "}":
        name, end = _DECODER.raw_decode(text, at)
        start = _past(text, end)
        _, end = _DECODER.raw_decode(text, start)
        found[name] = text[start:end]
        at = _past(text, end)
    return found


def _past(text: str, at: int) -> int:
    """The first index from `at` on that is not white space, comma or colon, which separate a member's parts."""
    between = _BETWEEN.match(text, at)
    return between.end() if between else at
