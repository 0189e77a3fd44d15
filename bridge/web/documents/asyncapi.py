"""The AsyncAPI 3.0 document: the SSE streams, the Redis channels and the webhooks, seen from the bridge."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from bridge import __version__
from bridge.events import (
    DELIVERY_GIVEN_UP,
    DROPPED,
    ENDPOINT_DISABLED,
    ENDPOINT_FAILING,
    ENDPOINT_RECOVERED,
    FRESH,
    PHALA,
    POSITION,
    READINESS,
    RESET,
    SNAPSHOT,
    SSE_EVENTS,
    STALE,
    STATE,
    TRANSITION,
)
from bridge.store.keys import Keys
from bridge.web.api import samples
from bridge.web.api.envelopes import CVM_ID
from bridge.web.documents.openapi import PHALA_BODIES, SECURITY, SIGNED, TRACED, any_of, components, ref
from bridge.web.http.operations import Operation
from bridge.web.http.parameters import Json
from bridge.web.http.problems import COME_BACK
from bridge.webhook_formats import FORMATS, Format

DESCRIPTION = """The same events on three ways out of one numbered log: server-sent events, Redis channels, webhooks.

The log is complete. Redis channels deliver at most once: a subscriber that sees a gap in `sequence` reads the log, a \
Redis stream. SSE resumes by `Last-Event-ID` and loses nothing; webhooks are delivered at least once."""

ABOUT_CVMS = {
    SSE_EVENTS[TRANSITION]: ("TransitionEvent", "`status` changed"),
    SSE_EVENTS[STATE]: (
        "StateEvent",
        "A CVM was seen for the first time, or a field other than `status` and `uptime` changed",
    ),
    SSE_EVENTS[READINESS]: ("ReadinessEvent", "`ready` changed, or an operation began or ended"),
    SSE_EVENTS[STALE]: ("StaleEvent", "The bridge can no longer vouch for a CVM's state"),
    SSE_EVENTS[FRESH]: ("FreshEvent", "The bridge can vouch for it again"),
    SSE_EVENTS[DROPPED]: ("DroppedEvent", "The CVM is no longer watched"),
    PHALA: ("PhalaEvent", "Phala Cloud's own webhook, of any type `phala.<event>`"),
}
"""Schema and meaning by the SSE `event:`."""

LOGGED = {
    **ABOUT_CVMS,
    SSE_EVENTS[ENDPOINT_FAILING]: (
        "EndpointFailingEvent",
        "Only with `type=`: every attempt at a webhook endpoint has failed for an hour",
    ),
    SSE_EVENTS[ENDPOINT_DISABLED]: ("EndpointDisabledEvent", "Only with `type=`: a webhook endpoint was disabled"),
    SSE_EVENTS[ENDPOINT_RECOVERED]: ("EndpointRecoveredEvent", "Only with `type=`: a webhook endpoint works again"),
    SSE_EVENTS[DELIVERY_GIVEN_UP]: ("DeliveryGivenUpEvent", "Only with `type=`: a webhook delivery was given up"),
}
"""What the log has: also the notices about webhook endpoints, which no stream of one CVM has."""

STREAMED = {
    SSE_EVENTS[SNAPSHOT]: (
        "SnapshotEvent",
        "The last known state of one CVM, where the stream begins without a cursor",
    ),
    POSITION: ("PositionData", "No news, only a cursor"),
    SSE_EVENTS[RESET]: ("ResetEvent", "The cursor cannot be honoured; snapshots follow, or a position"),
    **{
        each.slug: ("ComeBackData", f"To browsers, which reconnect after the block's `retry:`. {each.meaning}")
        for each in COME_BACK
    },
}

BODIES: Mapping[Format, tuple[tuple[str, ...], str]] = {
    "standard": (("StandardBody",), "The event's `data` in a Standard Webhooks body"),
    "cloudevents": (("Event", "TestEvent"), "The envelope"),
    "phala": (PHALA_BODIES, "Phala Cloud's own webhook envelope; of its own webhooks, these as they came"),
    "slack": ((), "A message for a Slack incoming webhook"),
    "discord": ((), "A message for a Discord webhook"),
    "teams": ((), "A card for a Teams workflow"),
    "ntfy": ((), "A message for an ntfy topic"),
}
"""Schemas (none of its own: empty) and meaning by format; one that is not here is documented by its name alone."""

SIGNED_BY_PHALA = {
    "x-webhook-id": "The body's `id`",
    "x-webhook-event": "Phala Cloud's name of the event",
    "x-webhook-timestamp": "Unix seconds of this attempt",
    "x-webhook-signature": "`sha256=` and the HMAC-SHA256 of `timestamp.body`",
}


def asyncapi(namespace: str, operations: Iterable[Operation]) -> Json:
    keys = Keys(namespace)
    # OpenAPI's schemes; AsyncAPI has another name for a key in a header or a query.
    schemes = {name: {**each, "type": each["type"].replace("apiKey", "httpApiKey")} for name, each in SECURITY.items()}
    return {
        "asyncapi": "3.0.0",
        "info": {"title": "bridge", "version": __version__, "description": DESCRIPTION, "license": {"name": "MIT"}},
        "defaultContentType": "application/json",
        "servers": _servers(),
        "channels": _channels(keys),
        "operations": _operations(),
        "components": {
            "securitySchemes": schemes,
            "messages": _messages(keys.source),
            "schemas": components(operations),
        },
    }


def _servers() -> Json:
    address = {"default": "127.0.0.1:8000", "description": "`HOST` and `PORT`, or the address of a proxy"}
    redis = {"default": "127.0.0.1:6379", "description": "`REDIS_URL`; Redis 6.2 or newer, or Valkey"}
    security = [{"$ref": f"#/components/securitySchemes/{name}"} for name in SECURITY]
    return {
        "front": {**_server("http", "Any `bridge web`", address), "security": security},
        "redis": _server("redis", "The Redis that the bridge writes to", redis),
    }


def _server(protocol: str, description: str, address: Json) -> Json:
    return {"host": "{address}", "protocol": protocol, "description": description, "variables": {"address": address}}


def _channels(keys: Keys) -> Json:
    # A channel's name has braces, which mark a parameter in an address: it becomes a parameter with one value.
    braced = f"{{{keys.namespace}}}"
    namespace = {"description": "`BRIDGE_NAMESPACE`, braces included", "enum": [braced], "default": braced}
    cvm_id = {"description": "The CVM's canonical id", "examples": [CVM_ID]}
    ref = {"description": "The CVM, by id or name, or a set", "examples": [CVM_ID, "web-1", "name:web-*"]}
    redis_cvm = {"namespace": namespace, "cvm_id": cvm_id}
    return {
        "events": _channel("/v1/events", "front", "Every CVM's events, over SSE", [*STREAMED, *LOGGED]),
        "cvmEvents": _channel(
            "/v1/cvms/{ref}/events", "front", "One CVM's or set's events, over SSE", [*STREAMED, *ABOUT_CVMS], ref=ref
        ),
        "redisEvents": _channel("{namespace}:events", "redis", "Every event, as JSON", LOGGED, namespace=namespace),
        "redisCvmEvents": _channel(
            "{namespace}:events:{cvm_id}", "redis", "One CVM's events, as JSON", ABOUT_CVMS, **redis_cvm
        ),
        "webhooks": {
            "address": None,
            "description": "Registered URLs (`POST /v1/webhooks`), each in its `format`",
            "messages": _listed(f"{name}Webhook" for name in FORMATS),
        },
    }


def _channel(address: str, server: str, description: str, names: Iterable[str], **parameters: Json) -> Json:
    made: Json = {
        "address": address,
        "description": description,
        "servers": [{"$ref": f"#/servers/{server}"}],
        "messages": _listed(names),
    }
    return {**made, "parameters": parameters} if parameters else made


def _listed(names: Iterable[str]) -> Json:
    return {name: {"$ref": f"#/components/messages/{name}"} for name in names}


def _operations() -> Json:
    return {
        "streamEvents": _sends("events", "Stream every CVM's events", "GET"),
        "streamCvmEvents": _sends("cvmEvents", "Stream the events of one CVM or set", "GET"),
        "publishEvent": _sends("redisEvents", "Publish an event once it is in the log"),
        "publishCvmEvent": _sends("redisCvmEvents", "Publish it on its CVM's channel too"),
        "deliver": _sends("webhooks", "Deliver an event, signed, until the receiver accepts it", "POST"),
    }


def _sends(channel: str, summary: str, method: str = "") -> Json:
    made: Json = {"action": "send", "channel": {"$ref": f"#/channels/{channel}"}, "summary": summary}
    return {**made, "bindings": {"http": {"method": method}}} if method else made


def _messages(source: str) -> Json:
    examples = samples.by_name(source)
    plain = {
        name: {"name": name, "summary": words, "payload": ref(schema), "examples": [{"payload": examples[name]}]}
        for name, (schema, words) in {**STREAMED, **LOGGED}.items()
    }
    return {**plain, **{f"{name}Webhook": _webhook(name, media) for name, media in FORMATS.items()}}


def _webhook(format: Format, content_type: str) -> Json:
    schemas, description = BODIES.get(format, ((), format))
    signed = {**SIGNED, **(SIGNED_BY_PHALA if format == "phala" else {}), **TRACED}
    headers = {name: {"type": "string", "description": words} for name, words in signed.items()}
    payload: Json = any_of(*schemas) if schemas else {}
    made = {"name": format, "summary": description, "contentType": content_type, "payload": payload}
    return {**made, "headers": {"type": "object", "properties": headers, "required": list(headers)}}
