"""What one operation is in the OpenAPI document, and what its route may refuse."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from bridge.web.documents.parts import parameters, refusals
from bridge.web.documents.schemas import Json, ref

EVENTS, CVMS, WEBHOOKS, DELIVERIES = "Events", "CVMs", "Webhooks", "Deliveries"
DROP_IN, OPERATION = "Drop-in", "Operation"

LOOKED_UP = ("unauthorized", "forbidden", "invalid", "unavailable")
"""What a route that looks a reference up may answer besides upstream's own refusal."""

WRITES = ("unauthorized", "forbidden", "invalid", "unavailable")
BODIES = ("too-large", "no-json")


def operation(
    tag: str,
    name: str,
    summary: str,
    answers: Json,
    *,
    says: str = "",
    takes: Iterable[str] = (),
    security: list[Json] | None = None,
    **more: Any,
) -> Json:
    """`takes`: shared parameters. `security` None: open to everybody."""
    made: Json = {"tags": [tag], "operationId": name, "summary": summary}
    if says:
        made["description"] = says
    if taken := parameters(takes):
        made["parameters"] = taken
    return {**made, "security": security or [], "responses": answers, **more}


def looked_up(*slugs: str) -> Json:
    """Refusals, and upstream's own about the reference."""
    found = refusals(*LOOKED_UP, *slugs)
    for status in ("404", "409"):
        known = found.setdefault(status, {"description": "", "content": {}})
        words = "Phala Cloud knows no such CVM" if status == "404" else "Phala Cloud knows several of that name"
        known["description"] = f"{known['description']}. {words}".lstrip(". ")
        known["content"] = {**known["content"], "application/json": {"schema": ref("UpstreamProblem")}}
    return found
