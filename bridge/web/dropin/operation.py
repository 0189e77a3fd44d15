"""The drop-in's route, as the document shows it (`docs/contract.md#the-drop-in`)."""

from __future__ import annotations

from typing import Any

from bridge.phala_queries import DEFAULT_INTERVAL, DEFAULT_TIMEOUT, INTERVAL, TIMEOUT, Integer
from bridge.web.api.answers import UpstreamProblem
from bridge.web.api.envelopes import CvmState
from bridge.web.api.references import LAST_KNOWN_HEADER, REF
from bridge.web.http.operations import DROP_IN, Answer, Content, Operation, json_answer
from bridge.web.http.parameters import Parameter, last
from bridge.web.http.responses import Shape, described

DESCRIPTION = """Phala Cloud's own route, answered here: set an SDK's `PHALA_CLOUD_API_PREFIX` to `/api/v1` here \
and it works unchanged, for any number of callers at no cost upstream.

Without `target` the answer is the state. With `target` it is a stream: `state` at the beginning and every \
`interval`, `complete` once the CVM has that status, `timeout` when the time is over, `error` if the CVM no longer \
exists, or (and the stream continues) while the bridge cannot vouch for the state."""

EXAMPLE = """event: state
data: {"id":"0e4b0c9e-5d0a-4a53-9d4e-6a1b6d3f7c21","name":"web-1","status":"starting"}

event: complete
data: {"status":"running","elapsed":8.2,"target":"running"}

"""


class DropInError(Shape):
    """An error in the form that upstream gives to errors without a code of their own."""

    detail: Any = described("A sentence, or the faults of an `HTTPValidationError`", "Invalid API key")


def _schema(kind: Integer, default: int) -> dict[str, Any]:
    return {**kind.json_schema(), "default": default}


STATE_ROUTE = Operation(
    "GET /api/v1/cvms/{ref}/state",
    DROP_IN,
    {
        200: Answer(
            "The state, or the stream",
            {
                "application/json": Content(schema=CvmState),
                "text/event-stream": Content(example=lambda source: EXAMPLE),
            },
            {
                "Age": {"description": "Seconds since the state was confirmed", "schema": {"type": "integer"}},
                **LAST_KNOWN_HEADER,
            },
        ),
        401: json_answer("The key is absent, or is not one of the bridge's tokens", DropInError),
        403: json_answer("The token may not see this CVM", DropInError),
        404: json_answer("Phala Cloud knows no such CVM", UpstreamProblem),
        409: json_answer("Phala Cloud knows several CVMs of that name", UpstreamProblem),
        422: json_answer("An `HTTPValidationError`, as FastAPI writes it", DropInError),
        503: json_answer("The bridge cannot vouch for the state at the moment", DropInError),
    },
    id="getCvmState",
    summary="Phala Cloud's state route",
    description=DESCRIPTION,
    parameters=(
        REF,
        Parameter("target", "Wait, over SSE, until the CVM has this status; without it, the answer is the state", last),
        Parameter("interval", "Seconds between two `state` events", last, _schema(INTERVAL, DEFAULT_INTERVAL)),
        Parameter("timeout", "Seconds after which the stream ends", last, _schema(TIMEOUT, DEFAULT_TIMEOUT)),
    ),
    scope="token",
    own_errors=True,
)
"""Unknown query parameters are ignored, as upstream does."""
