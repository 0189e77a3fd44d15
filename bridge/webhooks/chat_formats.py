"""Bodies for chat services: the CVM's name, the change, since when, and the reason, in two lines; of a notice, the
endpoint and what became of it.

Names, statuses and reasons are other people's text: no markup in them counts, and no mention in them reaches anybody.
"""

from __future__ import annotations

import json
import re
from base64 import b64encode
from collections.abc import Callable
from typing import Any, Literal, assert_never

from bridge.events import DELIVERY_GIVEN_UP, ENDPOINT_RECOVERED, NOTICES, READINESS, STATE, TRANSITION, Event, dumps

ChatFormat = Literal["slack", "discord", "teams", "ntfy"]

LONGEST_NAME, LONGEST_STATUS, LONGEST_REASON = 100, 60, 300
"""Characters. All of them escaped fit into the tightest limits: 2000 characters (Discord), 4096 bytes (ntfy)."""

CARD = "application/vnd.microsoft.card.adaptive"
CARD_SCHEMA = "http://adaptivecards.io/schemas/adaptive-card.json"

_SUPPRESS_EMBEDS = 1 << 2
"""Discord's message flag: no previews of links (https://discord.com/developers/docs/resources/message)."""

_DISCORD_MARKUP = re.compile(r"[\\*_~`|<>\[\]()#:\-]")
_SLACK_MARKUP = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;"})


def chat_message(format: ChatFormat, event: Event) -> tuple[bytes, dict[str, str]]:
    """The body, and the headers (lower-case) besides the content type."""
    match format:
        case "slack":
            return _slack(event), {}
        case "discord":
            return _discord(event), {}
        case "teams":
            return _teams(event), {}
        case "ntfy":
            return _ntfy(event)
        case _:
            assert_never(format)


def _slack(event: Event) -> bytes:
    """https://docs.slack.dev/messaging/formatting-message-text#escaping names the three characters."""
    text = "\n".join(_lines(event, lambda part: part.translate(_SLACK_MARKUP)))
    return dumps(
        {"text": text, "mrkdwn": False, "link_names": False, "unfurl_links": False, "unfurl_media": False}
    ).encode()


def _discord(event: Event) -> bytes:
    """https://discord.com/developers/docs/resources/webhook#execute-webhook."""
    title, detail = _lines(event, lambda part: _DISCORD_MARKUP.sub(r"\\\g<0>", part))
    message = {"content": f"**{title}**\n{detail}", "allowed_mentions": {"parse": []}, "flags": _SUPPRESS_EMBEDS}
    return dumps(message).encode()


def _teams(event: Event) -> bytes:
    """What the trigger "When a Teams webhook request is received" of a workflow takes: a message with one card.

    Text runs, unlike text blocks, have no Markdown; a mention would need an entity.
    """
    title, detail = _lines(event, str)
    runs = [{"type": "TextRun", "text": title, "weight": "Bolder"}, {"type": "TextRun", "text": detail}]
    body = [{"type": "RichTextBlock", "inlines": [run]} for run in runs]
    card = {"$schema": CARD_SCHEMA, "type": "AdaptiveCard", "version": "1.2", "body": body}
    attachment = {"contentType": CARD, "contentUrl": None, "content": card}
    return dumps({"type": "message", "attachments": [attachment]}).encode()


def _ntfy(event: Event) -> tuple[bytes, dict[str, str]]:
    """For a topic's URL: the body is the message (https://docs.ntfy.sh/publish/), the title is RFC 2047 in a header."""
    title, detail = _lines(event, str)
    return detail.encode(), {"title": f"=?UTF-8?B?{b64encode(title.encode()).decode()}?="}


def _lines(event: Event, escape: Callable[[str], str]) -> tuple[str, str]:
    """Title and detail. `escape` makes plain text of a part."""
    # Numbers stay text: nothing is calculated with them, and `int` refuses those of more than 4300 digits.
    envelope: dict[str, Any] = json.loads(event.json, parse_int=str, parse_float=str)
    data: dict[str, Any] = envelope["data"]

    def part(value: object, most: int) -> str:
        return escape(_plain(value, most))

    if event.type in NOTICES:
        return _notice_lines(event.type, envelope["time"], data, part)
    what = event.type
    if event.type in (TRANSITION, STATE):
        change = (data.get("from"), data.get("to"))
        what = " → ".join(part(status, LONGEST_STATUS) for status in change if status is not None)
    elif event.type == READINESS:
        what = "ready" if data.get("ready") else "not ready"
    name = part(data.get("name") or event.cvm_id, LONGEST_NAME)
    state = data.get("state")
    reason = data.get("reason") or data.get("error") or (isinstance(state, dict) and state.get("boot_error"))
    because = f", reason: {part(reason, LONGEST_REASON)}" if reason else ""
    return f"{name}: {what}", f"since {envelope['time']}{because}"


def _notice_lines(kind: str, time: str, data: dict[str, Any], part: Callable[[object, int], str]) -> tuple[str, str]:
    """The endpoint's description, or its id, and what became of it; where it is, since when, why, and what waits."""
    name = part(data["description"] or data["endpoint_id"], LONGEST_NAME)
    told = [part(data["url"], LONGEST_NAME)] if data["url"] else []
    if kind == DELIVERY_GIVEN_UP:
        what, lost = "delivery given up", data["event"]
        about = part(f"{lost['type']} of {lost['subject']}", LONGEST_NAME)
        told.append(f"{about} after {part(data['attempts'], LONGEST_STATUS)} attempts")
    else:
        what = kind.rpartition(".")[2]
        since = "was in trouble since" if kind == ENDPOINT_RECOVERED else "since"
        told.append(f"{since} {part(data['since'] or time, LONGEST_STATUS)}")
    if data.get("reason"):
        told.append(f"reason: {part(data['reason'], LONGEST_REASON)}")
    counts = (("pending", "waiting"), ("given_up", "given up"))
    told += [f"{part(data[key], LONGEST_STATUS)} {words}" for key, words in counts if data[key] != "0"]
    return f"webhook {name}: {what}", ", ".join(told)


def _plain(value: object, most: int) -> str:
    """On one line, of at most `most` characters, without `@name`: some services find mentions in plain text."""
    text = value if isinstance(value, str) else dumps(value)
    short = text if len(text) <= most else f"{text[: most - 1]}…"
    return "".join(each if each.isprintable() else " " for each in short).replace("@", "@\u200b")
