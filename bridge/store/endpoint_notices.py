"""What an endpoint's health has to tell others: left in Redis by what changes it (`scripts/notice_rules.lua`), and made
events by the leader (`docs/contract.md#notices-about-webhook-endpoints`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from bridge.addresses import without_path
from bridge.events import DELIVERY_GIVEN_UP, ENDPOINT_DISABLED, NOTICES, Draft, Event, dumps, sequence_text
from bridge.store.endpoint_record import ID_PATTERN, Endpoint
from bridge.store.endpoints import Health
from bridge.store.foreign import decimal, json_object, stored_time

HealthWord = Literal["ok", "failing", "disabled", "broken"]

HEALTH_WORDS: Mapping[HealthWord, str] = {
    "ok": "its attempts succeed, or have not failed for long",
    "failing": "all attempts have failed for an hour: `endpoint.failing` was told",
    "disabled": "it gets nothing until it is enabled: `endpoint.disabled` was told",
    "broken": "its record in Redis cannot be read",
}
"""What each word means; the documents quote it."""

MOST_DESCRIBED = 100
"""Characters of an endpoint's description."""


def health_word(endpoint: Endpoint, health: Health) -> HealthWord:
    """The same everywhere: in answers, on the dashboard, in `bridge check` and in the types of notices."""
    if endpoint.broken:
        return "broken"
    if not endpoint.enabled:
        return "disabled"
    return "failing" if health.failing else "ok"


def about_endpoint(url: str | None, description: str) -> str:
    """What notices show of an endpoint, as JSON. `url` may have a path, which may be a secret."""
    return dumps({"url": url and without_path(url), "description": description[:MOST_DESCRIBED]})


def given_up_detail(event: Event, delivery_id: str, reason: str | None, attempts: int) -> str:
    """What a notice tells of a delivery that was given up, as JSON."""
    told = {
        "id": event.id,
        "sequence": sequence_text(event.sequence),
        "type": event.type,
        "subject": event.endpoint_id or event.cvm_id,
    }
    return dumps({"delivery_id": delivery_id, "event": told, "reason": reason or "", "attempts": attempts})


@dataclass(frozen=True, slots=True)
class EndpointNotice:
    """`id`: of its entry in Redis. `time`: when it was left, by Redis's clock: RFC 3339. `data`: of its event."""

    id: str
    time: str
    type: str
    endpoint_id: str
    data: Mapping[str, Any]

    @classmethod
    def of(cls, entry_id: str, fields: Mapping[str, str], time: str) -> EndpointNotice | None:
        """None for what the bridge did not write."""
        type, endpoint_id = fields.get("type", ""), fields.get("endpoint", "")
        pending, given_up = decimal(fields.get("pending", ""), 15), decimal(fields.get("given_up", ""), 15)
        if type not in NOTICES or not re.fullmatch(ID_PATTERN, endpoint_id) or pending is None or given_up is None:
            return None
        about = _about(fields.get("about", ""))
        data = {
            "endpoint_id": endpoint_id,
            "url": about.get("url"),
            "description": about.get("description", ""),
            "since": stored_time(fields.get("since", "")),
            "pending": pending,
            "given_up": given_up,
        }
        if type == ENDPOINT_DISABLED:
            data["reason"] = fields.get("reason") or None
        if type == DELIVERY_GIVEN_UP:
            data |= json_object(fields.get("detail"))
        return cls(entry_id, time, type, endpoint_id, data)

    @property
    def draft(self) -> Draft:
        return Draft(self.type, "", self.time, dumps(self.data), self.endpoint_id)


def _about(text: str) -> dict[str, str]:
    """Nothing where nobody has told it yet."""
    known = json_object(text).items()
    return {name: value for name, value in known if name in ("url", "description") and isinstance(value, str)}
