"""The AsyncAPI 3.0 document: the SSE streams, the Redis channels and the webhooks, seen from the bridge."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from bridge import __version__
from bridge.store.keys import Keys
from bridge.web.api import samples
from bridge.web.api.envelopes import CVM_ID
from bridge.web.documents.openapi import SECURITY
from bridge.web.documents.schemas import Json, components, ref
from bridge.web.documents.webhook_paths import SIGNED

DESCRIPTION = """The same events on three ways out of one numbered log: server-sent events, Redis channels, webhooks.

The log is the truth. Redis channels are at most once: a subscriber that sees a hole in `sequence` reads the log, a \
stream. SSE resumes by `Last-Event-ID` and loses nothing; webhooks are delivered at least once."""

LOGGED = {
    "transition": ("TransitionEvent", "`status` changed"),
    "state": ("StateEvent", "First sight of a CVM, or another meaningful field changed"),
    "stale": ("StaleEvent", "The bridge can no longer vouch for a CVM's state"),
    "fresh": ("FreshEvent", "It can again"),
    "dropped": ("DroppedEvent", "Nobody watches the CVM any more"),
}
"""By SSE `event:`: the schema and when it comes."""

STREAMED = {
    "snapshot": ("SnapshotEvent", "The last known state of one CVM, where the stream begins without a cursor"),
    "position": ("PositionData", "No news, only a cursor"),
    "reset": ("ResetEvent", "The cursor cannot be honoured; snapshots follow, or a position"),
    "overloaded": ("ComeBackData", "To browsers: the front end is full, come back after the block's `retry:`"),
    "unavailable": (
        "ComeBackData",
        "To browsers: the front end is without Redis, come back after the block's `retry:`",
    ),
}

FORMATS = {
    "standard": ("StandardBody", "application/json", "The event's `data` in a Standard Webhooks body"),
    "cloudevents": ("Event", "application/cloudevents+json", "The envelope"),
    "phala": ("PhalaBody", "application/json", "Phala Cloud's own webhook envelope"),
}

SIGNED_BY_PHALA = {
    "x-webhook-id": "`evt_` and the event's id",
    "x-webhook-event": "Phala Cloud's name for what happened",
    "x-webhook-timestamp": "Unix seconds of this attempt",
    "x-webhook-signature": "`sha256=` and the HMAC-SHA256 of `timestamp.body`",
}


def asyncapi(namespace: str) -> Json:
    keys = Keys(namespace)
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "bridge",
            "version": __version__,
            "description": DESCRIPTION,
            "license": {"name": "MIT"},
        },
        "defaultContentType": "application/json",
        "servers": _servers(),
        "channels": _channels(keys),
        "operations": _operations(),
        "components": {
            "securitySchemes": _security(),
            "messages": _messages(keys.source),
            "schemas": components(),
        },
    }


def _servers() -> Json:
    address = {"default": "127.0.0.1:8000", "description": "`HOST` and `PORT`, or what stands before them"}
    redis = {"default": "127.0.0.1:6379", "description": "`REDIS_URL`; Redis 6.2 or newer, or Valkey"}
    security = [{"$ref": f"#/components/securitySchemes/{name}"} for name in SECURITY]
    return {
        "front": {
            "host": "{address}",
            "protocol": "http",
            "description": "Any `bridge web`",
            "variables": {"address": address},
            "security": security,
        },
        "redis": {
            "host": "{address}",
            "protocol": "redis",
            "description": "The Redis that the bridge writes to",
            "variables": {"address": redis},
        },
    }


def _security() -> Json:
    """As OpenAPI has them, with AsyncAPI's word for a key in a header or a query."""
    return {
        name: {**scheme, "type": scheme["type"].replace("apiKey", "httpApiKey")} for name, scheme in SECURITY.items()
    }


def _channels(keys: Keys) -> Json:
    reference = {"description": "The CVM, by id or name", "examples": [CVM_ID, "web-1"]}
    streamed = [*STREAMED, *LOGGED]
    return {
        "events": _channel("/v1/events", "front", "Every CVM's events, over SSE", streamed),
        "cvmEvents": _channel(
            "/v1/cvms/{ref}/events", "front", "One CVM's events, over SSE", streamed, {"ref": reference}
        ),
        "redisEvents": _channel(
            "{namespace}:events", "redis", "Every event, as JSON", LOGGED, {"namespace": _namespace(keys)}
        ),
        "redisCvmEvents": _channel(
            "{namespace}:events:{cvm_id}",
            "redis",
            "One CVM's events, as JSON",
            LOGGED,
            {
                "namespace": _namespace(keys),
                "cvm_id": {"description": "The CVM's canonical id", "examples": [CVM_ID]},
            },
        ),
        "webhooks": {
            "address": None,
            "description": "Registered URLs (`POST /v1/webhooks`), each in the format that it asks for",
            "messages": _listed(_webhook_name(name) for name in FORMATS),
        },
    }


def _namespace(keys: Keys) -> Json:
    """A channel's name has braces, which an address takes for a parameter: so it is one, with one value."""
    braced = f"{{{keys.namespace}}}"
    return {"description": "`BRIDGE_NAMESPACE`, braces included", "enum": [braced], "default": braced}


def _channel(
    address: str, server: str, says: str, names: Iterable[str], parameters: Mapping[str, Json] | None = None
) -> Json:
    made: Json = {
        "address": address,
        "description": says,
        "servers": [{"$ref": f"#/servers/{server}"}],
        "messages": _listed(names),
    }
    return {**made, "parameters": dict(parameters)} if parameters else made


def _listed(names: Iterable[str]) -> Json:
    return {name: {"$ref": f"#/components/messages/{name}"} for name in names}


def _operations() -> Json:
    get, post = {"http": {"method": "GET"}}, {"http": {"method": "POST"}}
    return {
        "streamEvents": _sends("events", "Stream every CVM's events", get),
        "streamCvmEvents": _sends("cvmEvents", "Stream one CVM's events", get),
        "publishEvent": _sends("redisEvents", "Publish an event once it is in the log"),
        "publishCvmEvent": _sends("redisCvmEvents", "Publish it on its CVM's channel too"),
        "deliver": _sends("webhooks", "Deliver an event, signed, until it is taken", post),
    }


def _sends(channel: str, summary: str, bindings: Json | None = None) -> Json:
    made: Json = {"action": "send", "channel": {"$ref": f"#/channels/{channel}"}, "summary": summary}
    return {**made, "bindings": bindings} if bindings else made


def _webhook_name(format: str) -> str:
    return f"{format}Webhook"


def _messages(source: str) -> Json:
    examples = samples.by_name(source)
    plain = {
        name: _message(name, schema, says, examples[name]) for name, (schema, says) in {**STREAMED, **LOGGED}.items()
    }
    return {**plain, **{_webhook_name(name): _webhook(name, *given) for name, given in FORMATS.items()}}


def _message(name: str, schema: str, says: str, example: object) -> Json:
    return {"name": name, "summary": says, "payload": ref(schema), "examples": [{"payload": example}]}


def _webhook(format: str, schema: str, content_type: str, says: str) -> Json:
    signed = {**SIGNED, **(SIGNED_BY_PHALA if format == "phala" else {})}
    headers = {name: {"type": "string", "description": words} for name, words in signed.items()}
    payload = {"anyOf": [ref(schema), ref("TestEvent")]} if schema == "Event" else ref(schema)
    made = {"name": format, "summary": says, "contentType": content_type, "payload": payload}
    return {**made, "headers": {"type": "object", "properties": headers, "required": list(headers)}}
