"""The OpenAPI 3.1 document of everything that the front end serves."""

from __future__ import annotations

from bridge import __version__
from bridge.store.keys import Keys
from bridge.web.documents import operations as tags
from bridge.web.documents import other_paths, watch_paths, webhook_paths
from bridge.web.documents.parts import PARAMETERS, PROBLEM, problem_examples
from bridge.web.documents.schemas import Json, components, ref

DESCRIPTION = """Follows Phala Cloud CVMs over at most five upstream streams, writes each change once into a numbered \
log, and serves it to any number of subscribers.

Lists are `{"items", "next"}` and page with `limit` and `after`. Unknown query parameters and unknown fields of a body \
are refused with 422, never ignored. `HEAD` answers wherever `GET` does, without a stream. Errors are RFC 9457 \
problems: programs go by their `type`.

A bridge that runs open (as `bridge up` does on a loopback address) needs no token."""

TAGS = {
    tags.EVENTS: "Every change once, numbered, over server-sent events or as pages of the log",
    tags.CVMS: "What is watched and how it is followed",
    tags.WEBHOOKS: "URLs that are told of changes",
    tags.DELIVERIES: "What was sent to them, with every attempt",
    tags.DROP_IN: "Phala Cloud's state route for unchanged clients. What else is below `/api/v1/` is 404, unless "
    "`BRIDGE_PASSTHROUGH` relays it with a Phala key of the caller's own",
    tags.OPERATION: "Health, metrics, documents and pages; open to everybody",
}

SECURITY: Json = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "A token of `BRIDGE_TOKENS`"},
    "apiKey": {"type": "apiKey", "in": "header", "name": "X-API-Key", "description": "The same token"},
    "streamToken": {
        "type": "apiKey",
        "in": "query",
        "name": "access_token",
        "description": "A token of `POST /v1/stream-tokens`, good for 60 seconds; it reads only",
    },
}


def openapi(namespace: str) -> Json:
    source = Keys(namespace).source
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "bridge",
            "summary": "Transitions of Phala Cloud CVMs",
            "version": __version__,
            "description": DESCRIPTION,
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": "/", "description": "This front end"}],
        "tags": [{"name": name, "description": says} for name, says in TAGS.items()],
        "paths": _paths(source),
        "webhooks": webhook_paths.outgoing(source),
        "components": {
            "securitySchemes": SECURITY,
            "parameters": dict(PARAMETERS),
            "responses": {
                "Problem": {
                    "description": "Any other refusal",
                    "content": {PROBLEM: {"schema": ref("Problem")}},
                }
            },
            "examples": problem_examples(),
            "schemas": components(),
        },
    }


def _paths(source: str) -> Json:
    """Everything that is routed but the relay below `/api/v1`. `source`: what the examples' events carry."""
    watched = {**watch_paths.events(source), **watch_paths.cvms()}
    pushed = {**webhook_paths.webhooks(), **webhook_paths.deliveries()}
    return {**watched, **pushed, **other_paths.drop_in(), **other_paths.operator()}
