"""The operations of webhooks and their deliveries, and what receivers get (contract sections 6 and 8)."""

from __future__ import annotations

from bridge.web.api import samples
from bridge.web.documents.operations import BODIES, DELIVERIES, WEBHOOKS, WRITES, operation
from bridge.web.documents.parts import EMPTY, LOCATION, READ, TOKEN, answer, json_body, refusals
from bridge.web.documents.schemas import Json, ref

# Webhooks

WRITES_SAY = "Needs the scope `admin`, and `BRIDGE_SECRET_KEY` in force."


ONE = ("endpoint_id",)
KEYED = (*WRITES, *BODIES, "no-secret-key")
"""What a route that keeps a secret may refuse."""

SHOWN = answer("The endpoint", "Endpoint")
MADE = answer("Made, with its secret", "EndpointWithSecret", **LOCATION)


def webhooks() -> Json:
    return {
        "/v1/webhooks": {"post": _make(), "get": _list()},
        "/v1/webhooks/{id}": {"get": _get(), "put": _put(), "patch": _patch(), "delete": _delete()},
        "/v1/webhooks/{id}/rotate-secret": {"post": _rotate()},
        "/v1/webhooks/{id}/enable": {"post": _enable()},
        "/v1/upstream/webhooks": {"post": _hint()},
    }


def _make() -> Json:
    return operation(
        WEBHOOKS,
        "makeEndpoint",
        "Register a URL",
        {"201": MADE, **refusals(*KEYED, "too-many-endpoints")},
        says=f"The answer is the only one that shows the signing secret. {WRITES_SAY}",
        security=TOKEN,
        requestBody=json_body("EndpointRegistration"),
    )


def _list() -> Json:
    return operation(
        WEBHOOKS,
        "listEndpoints",
        "Registered URLs",
        {"200": answer("A page", "EndpointPage"), **refusals(*WRITES)},
        takes=("limit", "after"),
        security=READ,
    )


def _get() -> Json:
    return operation(
        WEBHOOKS,
        "getEndpoint",
        "One endpoint",
        {"200": SHOWN, **refusals(*WRITES, "no-such-endpoint")},
        takes=ONE,
        security=READ,
    )


def _put() -> Json:
    return operation(
        WEBHOOKS,
        "putEndpoint",
        "Register or replace under an id of your own",
        {
            "200": answer("It was there, and is now as given", "Endpoint"),
            "201": MADE,
            **refusals(*KEYED, "too-many-endpoints"),
        },
        says=f"May be sent again. A replaced endpoint keeps its secret unless another is given. {WRITES_SAY}",
        takes=ONE,
        security=TOKEN,
        requestBody=json_body("EndpointRegistration"),
    )


def _patch() -> Json:
    return operation(
        WEBHOOKS,
        "changeEndpoint",
        "Change some of it",
        {"200": SHOWN, **refusals(*KEYED, "no-such-endpoint")},
        says=WRITES_SAY,
        takes=ONE,
        security=TOKEN,
        requestBody=json_body("EndpointChange"),
    )


def _delete() -> Json:
    return operation(
        WEBHOOKS,
        "removeEndpoint",
        "Remove it with its deliveries",
        {"204": EMPTY, **refusals(*WRITES, "no-such-endpoint")},
        says="Needs the scope `admin`.",
        takes=ONE,
        security=TOKEN,
    )


def _rotate() -> Json:
    return operation(
        WEBHOOKS,
        "rotateSecret",
        "A new signing secret",
        {
            "200": answer("The endpoint, with the new secret", "EndpointWithSecret"),
            **refusals(*KEYED, "no-such-endpoint"),
        },
        says=f"The old one goes on signing besides for 24 hours. {WRITES_SAY}",
        takes=ONE,
        security=TOKEN,
        requestBody=json_body("SecretRotation", required=False),
    )


def _enable() -> Json:
    return operation(
        WEBHOOKS,
        "enableEndpoint",
        "Deliver to it again",
        {"200": SHOWN, **refusals(*WRITES, *BODIES, "no-such-endpoint")},
        says="Needs the scope `admin`.",
        takes=ONE,
        security=TOKEN,
        requestBody=json_body("EmptyBody", required=False),
    )


def _hint() -> Json:
    signed = {
        "X-Webhook-Timestamp": "Unix seconds, at most five minutes from now",
        "X-Webhook-Signature": "`sha256=` and the HMAC-SHA256, keyed with `PHALA_WEBHOOK_SECRET`, of `timestamp.body`",
    }
    headers = [
        {"name": name, "in": "header", "required": True, "description": says, "schema": {"type": "string"}}
        for name, says in signed.items()
    ]
    return operation(
        WEBHOOKS,
        "receivePhalaWebhook",
        "Phala Cloud's own webhooks",
        {"204": EMPTY, **refusals("bad-signature", "not-found", "too-large", "unavailable")},
        says="A hint, not a state: the CVM is read at once. 404 where `PHALA_WEBHOOK_SECRET` is not set.",
        parameters=headers,
        requestBody=json_body("PhalaBody"),
    )


# Deliveries


NOTHING = json_body("EmptyBody", required=False)
QUEUED = answer("It is queued", "Delivery")
KNOWN = (*WRITES, "no-such-endpoint")


def deliveries() -> Json:
    return {
        "/v1/webhooks/{id}/deliveries": {"get": _history()},
        "/v1/webhooks/{id}/test": {"post": _test()},
        "/v1/webhooks/{id}/recover": {"post": _recover()},
        "/v1/deliveries/{id}": {"get": _delivery()},
        "/v1/deliveries/{id}/retry": {"post": _retry()},
    }


def _history() -> Json:
    return operation(
        DELIVERIES,
        "listDeliveries",
        "What was sent, newest first",
        {"200": answer("A page", "DeliveryPage"), **refusals(*KNOWN)},
        takes=("endpoint_id", "status", "limit", "after"),
        security=READ,
    )


def _test() -> Json:
    return operation(
        DELIVERIES,
        "testEndpoint",
        "Send a test event",
        {"202": {**QUEUED, **LOCATION}, **refusals(*KNOWN, *BODIES, "endpoint-disabled")},
        says="One attempt; how it went is at the answer's `Location`. Needs the scope `admin`.",
        takes=ONE,
        security=TOKEN,
        requestBody=NOTHING,
    )


def _recover() -> Json:
    return operation(
        DELIVERIES,
        "recoverDeliveries",
        "Send again what a period had",
        {"202": answer("It is queued", "Recovered"), **refusals(*KNOWN, *BODIES, "endpoint-disabled")},
        says="Everything of the log that the endpoint wants and was not delivered. Needs the scope `admin`.",
        takes=ONE,
        security=TOKEN,
        requestBody=json_body("RecoveryPeriod"),
    )


def _delivery() -> Json:
    return operation(
        DELIVERIES,
        "getDelivery",
        "One delivery with every attempt",
        {"200": answer("The delivery", "Delivery"), **refusals(*WRITES, "no-such-delivery")},
        takes=("delivery_id",),
        security=READ,
    )


def _retry() -> Json:
    return operation(
        DELIVERIES,
        "retryDelivery",
        "Try a finished delivery again",
        {
            "202": QUEUED,
            **refusals(*KNOWN, *BODIES, "no-such-delivery", "endpoint-disabled", "already-pending"),
        },
        says="Needs the scope `admin`.",
        takes=("delivery_id",),
        security=TOKEN,
        requestBody=NOTHING,
    )


# What receivers get

SIGNED = {
    "webhook-id": "The delivery's id, the same at every attempt",
    "webhook-timestamp": "Unix seconds of this attempt",
    "webhook-signature": "`v1,` and the base64 of the HMAC-SHA256 of `id.timestamp.body`; while a secret is rotated "
    "several, separated by spaces",
}
"""The headers of Standard Webhooks, on every delivery."""


def outgoing(source: str) -> Json:
    """What the bridge sends to registered URLs, in OpenAPI's own section for it."""
    headers = [
        {"name": name, "in": "header", "required": True, "description": says, "schema": {"type": "string"}}
        for name, says in SIGNED.items()
    ]
    bodies = {
        "application/json": {"schema": {"anyOf": [ref("StandardBody"), ref("PhalaBody")]}},
        "application/cloudevents+json": {
            "schema": {"anyOf": [ref("Event"), ref("TestEvent")]},
            "example": samples.transition(source),
        },
    }
    answers = {
        "2XX": {"description": "Delivered"},
        "410": {"description": "The endpoint is disabled"},
        "default": {"description": "Tried again later; 429 and 503 with `Retry-After`"},
    }
    made = operation(WEBHOOKS, "deliver", "A delivery", answers, parameters=headers)
    says = "At least once, in order for each CVM. The body's format is the endpoint's `format`."
    return {"delivery": {"post": {**made, "description": says, "requestBody": {"required": True, "content": bodies}}}}
