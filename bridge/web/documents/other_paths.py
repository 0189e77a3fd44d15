"""The drop-in (contract section 7), and what operators ask."""

from __future__ import annotations

from bridge.web.documents.operations import DROP_IN, OPERATION, operation
from bridge.web.documents.parts import TOKEN, answer
from bridge.web.documents.schemas import Json, ref

# The drop-in

DROP_IN_SAYS = """Phala Cloud's own route, answered here: set an SDK's `PHALA_CLOUD_API_PREFIX` to `/api/v1` here \
and it works unchanged, for any number of callers at no cost upstream.

Without `target` the state now. With it a stream: `state` on connecting and every `interval`, `complete` once the CVM \
has that status, `timeout` at the end of the time, `error` where there is no such CVM any more, or (and the stream \
goes on) while the bridge cannot vouch for the state."""

DROP_IN_TEXT = """event: state
data: {"id":"0e4b0c9e-5d0a-4a53-9d4e-6a1b6d3f7c21","name":"web-1","status":"starting"}

event: complete
data: {"status":"running","elapsed":8.2,"target":"running"}

"""


def drop_in() -> Json:
    stream = {"schema": {"type": "string"}, "example": DROP_IN_TEXT}
    both = {"application/json": {"schema": ref("CvmState")}, "text/event-stream": stream}
    age = {"Age": {"description": "Seconds since the state was confirmed", "schema": {"type": "integer"}}}
    refused = {
        "401": "No key, or not one of the bridge's tokens",
        "403": "The token may not see this CVM",
        "422": "An `HTTPValidationError`, as FastAPI writes it",
        "503": "The bridge cannot vouch for the state just now",
    }
    answers = {"200": {"description": "The state, or the stream", "headers": age, "content": both}}
    answers["404"] = answer("Phala Cloud knows no such CVM", "UpstreamProblem")
    answers["409"] = answer("Phala Cloud knows several of that name", "UpstreamProblem")
    answers |= {status: answer(says, "DropInError") for status, says in refused.items()}
    return {
        "/api/v1/cvms/{ref}/state": {
            "get": operation(
                DROP_IN,
                "getCvmState",
                "Phala Cloud's state route",
                dict(sorted(answers.items())),
                says=DROP_IN_SAYS,
                takes=("ref", "target", "interval", "timeout"),
                security=TOKEN,
            )
        }
    }


# Operation


def _text(description: str, media_type: str) -> Json:
    return {"200": {"description": description, "content": {media_type: {"schema": {"type": "string"}}}}}


def _document(description: str) -> Json:
    return {"200": {"description": description, "content": {"application/json": {"schema": {"type": "object"}}}}}


def operator() -> Json:
    ready = {"200": answer("Ready, perhaps degraded", "Readiness"), "503": answer("Not ready", "Readiness")}
    metrics = _text("In Prometheus's text format", "text/plain")
    openapi, asyncapi = _document("OpenAPI 3.1"), _document("AsyncAPI 3.0")
    each = {
        "/healthz": ("getHealth", "Liveness", {"200": answer("Alive", "Health")}),
        "/readyz": ("getReadiness", "Readiness", ready),
        "/metrics": ("getMetrics", "Prometheus metrics", metrics),
        "/openapi.json": ("getOpenApi", "This document", openapi),
        "/asyncapi.json": ("getAsyncApi", "The streams, the Redis channels and the webhooks", asyncapi),
        "/docs": ("getDocs", "Both documents, to read", _text("A page", "text/html")),
        "/": ("getDashboard", "The dashboard", _text("A page", "text/html")),
    }
    return {path: {"get": operation(OPERATION, *given)} for path, given in each.items()}
