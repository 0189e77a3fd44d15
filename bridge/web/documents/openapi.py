"""The OpenAPI 3.1 document, made of the declarations of the routes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import groupby
from typing import Any, Literal

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, models_json_schema

from bridge import __version__
from bridge.store.keys import Keys
from bridge.web.api import envelopes, samples
from bridge.web.api.answers import UpstreamProblem
from bridge.web.http import operations as tags
from bridge.web.http.access import STREAM_TOKEN_SECONDS, Scope
from bridge.web.http.operations import Answer, Content, Operation
from bridge.web.http.parameters import TEXT, Json, Parameter
from bridge.web.http.problems import MEDIA_TYPE, FieldFault, Problem, ProblemError, ProblemType, invalid
from bridge.web.http.responses import Shape

DESCRIPTION = """Follows Phala Cloud CVMs over at most five upstream streams, writes each change once into a numbered \
log, and serves it to any number of subscribers.

Lists are `{"items", "next"}` and page with `limit` and `after`. Unknown query parameters and unknown fields of a body \
are refused with 422, never ignored. `HEAD` answers on every route with `GET`, without a stream. Errors are RFC 9457 \
problems: programs should look at their `type`.

A bridge that runs open (as `bridge up` does on a loopback address) needs no token."""

TAGS = {
    tags.EVENTS: "Every change once, numbered, over server-sent events or as pages of the log",
    tags.CVMS: "The watched CVMs, and how the bridge follows them",
    tags.WEBHOOKS: "URLs that get the changes",
    tags.DELIVERIES: "Events sent to these URLs, with every attempt",
    tags.DROP_IN: "Phala Cloud's state route for unchanged clients. Every other route below `/api/v1/` is 404, unless "
    "`BRIDGE_PASSTHROUGH` relays it with a Phala key of the caller's own",
    tags.OPERATION: "Health, metrics, documents and pages, without a token",
}

SECURITY: Json = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "A token of `BRIDGE_TOKENS`"},
    "apiKey": {"type": "apiKey", "in": "header", "name": "X-API-Key", "description": "The same token"},
    "streamToken": {
        "type": "apiKey",
        "in": "query",
        "name": "access_token",
        "description": f"A token of `POST /v1/stream-tokens`, valid for {STREAM_TOKEN_SECONDS} seconds; it only reads",
    },
}

SIGNED = {
    "webhook-id": "The delivery's id, the same at every attempt",
    "webhook-timestamp": "Unix seconds of this attempt",
    "webhook-signature": "`v1,` and the base64 of the HMAC-SHA256 of `id.timestamp.body`, or `v1a,` and that of its "
    "ed25519 signature; several, separated by spaces, with both schemes and during a rotation",
}
"""The headers of Standard Webhooks, on every delivery."""

TRACED = {"traceparent": "The W3C trace context of this attempt, a span within the event's trace"}

Model = type[BaseModel]

SENT: tuple[Model, ...] = (
    Problem,
    envelopes.Event,
    envelopes.TestEvent,
    envelopes.SnapshotEvent,
    envelopes.ResetEvent,
    envelopes.PositionData,
    envelopes.ComeBackData,
    envelopes.StandardBody,
    envelopes.PhalaBody,
    envelopes.PhalaEnvelope,
)
"""What streams, channels and webhooks carry, beside the answers of the operations."""

PHALA_BODIES = ("PhalaBody", "PhalaEnvelope")
"""Of the format `phala`: what the bridge makes of its events, and Phala Cloud's own webhooks as they came."""

RETRY_AFTER = {"Retry-After": {"description": "Seconds", "schema": {"type": "integer"}}}

REFUSED_UPSTREAM = {"404": "Phala Cloud knows no such CVM", "409": "Phala Cloud knows several CVMs of that name"}


def openapi(namespace: str, operations: Iterable[Operation]) -> Json:
    source, operations = Keys(namespace).source, list(operations)
    paths: dict[str, Json] = {}
    for each in operations:
        paths.setdefault(each.path, {})[each.method.lower()] = _operation(each, source)
    parameters = [parameter for each in operations for parameter in each.parameters]
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
        "tags": [{"name": name, "description": description} for name, description in TAGS.items()],
        "paths": paths,
        "webhooks": {"delivery": {"post": _delivery(source)}},
        "components": {
            "securitySchemes": SECURITY,
            "parameters": {each.shared_as or each.name: _parameter(each) for each in parameters},
            "responses": {
                "Problem": {"description": "Any other refusal", "content": {MEDIA_TYPE: {"schema": ref(Problem)}}}
            },
            "examples": {each.slug: {"summary": each.meaning, "value": _example(each)} for each in ProblemType},
            "schemas": components(operations),
        },
    }


def _operation(operation: Operation, source: str) -> Json:
    made: Json = {"tags": [operation.tag], "operationId": operation.id, "summary": operation.summary}
    key = ", and `BRIDGE_SECRET_KEY`" if ProblemType.NO_SECRET_KEY in operation.refusals else ""
    needs = f"Needs the scope `admin`{key}." if (operation.scope or "").startswith("admin") else ""
    if description := f"{operation.description} {needs}".strip():
        made["description"] = description
    if operation.parameters:
        names = [each.shared_as or each.name for each in operation.parameters]
        made["parameters"] = [{"$ref": f"#/components/parameters/{name}"} for name in names]
    if operation.body:
        content = {"application/json": {"schema": ref(operation.body)}}
        made["requestBody"] = {"required": operation.body_required, "content": content}
    answers = {str(status): _answer(answer, source) for status, answer in operation.answers.items()}
    return {**made, "security": _security(operation.scope), "responses": {**answers, **_refusals(operation)}}


def _security(scope: Scope | None) -> list[Json]:
    if scope is None:
        return []
    token: list[Json] = [{"bearer": []}, {"apiKey": []}]
    return [*token, {"streamToken": []}] if scope.startswith("read") else token


# Parameters and answers


def _parameter(parameter: Parameter[Any]) -> Json:
    made: Json = {
        "name": parameter.name,
        "in": parameter.where,
        "description": parameter.description,
        "schema": parameter.schema,
    }
    if parameter.required:
        made["required"] = True
    if parameter.schema.get("type") == "array":
        made |= {"style": "form", "explode": True}
    if parameter.example is not None:
        made["example"] = parameter.example
    return made


def _answer(answer: Answer, source: str) -> Json:
    made: Json = {"description": answer.description}
    if answer.headers:
        made["headers"] = dict(answer.headers)
    if answer.content:
        made["content"] = {media_type: _content(each, source) for media_type, each in answer.content.items()}
    return made


def _content(content: Content, source: str) -> Json:
    made: Json = {"schema": ref(content.schema) if isinstance(content.schema, type) else content.schema}
    if content.example is not None:
        made["example"] = content.example(source)
    if content.examples is not None:
        texts = content.examples(source).items()
        made["examples"] = {name: {"summary": summary, "value": text} for name, (summary, text) in texts}
    return made


# Problems


def _refusals(operation: Operation) -> Json:
    """Answers by status, each with its problems; upstream's own refusals beside them."""
    groups = groupby(operation.all_refusals(), key=lambda each: each.status)
    found = {str(status): _refusal(list(group)) for status, group in groups}
    if operation.looks_up:
        for upstream, meaning in REFUSED_UPSTREAM.items():
            known = found.get(upstream, {"description": "", "content": {}})
            content = {**known["content"], "application/json": {"schema": ref(UpstreamProblem)}}
            found[upstream] = {"description": f"{known['description']}. {meaning}".lstrip(". "), "content": content}
        found = dict(sorted(found.items()))
    return {**found, "default": {"$ref": "#/components/responses/Problem"}} if found else {}


def _refusal(types: list[ProblemType]) -> Json:
    examples = {each.slug: {"$ref": f"#/components/examples/{each.slug}"} for each in types}
    content = {MEDIA_TYPE: {"schema": ref(Problem), "examples": examples}}
    made: Json = {"description": ". ".join(each.meaning for each in types), "content": content}
    return {**made, "headers": RETRY_AFTER} if any(each.retry_after for each in types) else made


def _example(type: ProblemType) -> Mapping[str, Any]:
    field, detail = [str((each.examples or [""])[0]) for each in FieldFault.model_fields.values()]
    error = invalid(field, detail) if type is ProblemType.INVALID else ProblemError(type)
    return error.body.model_dump(exclude_unset=True)


# Deliveries


def _delivery(source: str) -> Json:
    """What the bridge sends to registered URLs, in OpenAPI's own section for it."""
    return {
        "tags": [tags.WEBHOOKS],
        "operationId": "deliver",
        "summary": "A delivery",
        "description": "At least once, in order for each CVM. The body has the endpoint's `format`.",
        "parameters": [
            {"name": name, "in": "header", "required": True, "description": description, "schema": TEXT}
            for name, description in {**SIGNED, **TRACED}.items()
        ],
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {"schema": any_of("StandardBody", *PHALA_BODIES)},
                "application/cloudevents+json": {
                    "schema": any_of("Event", "TestEvent"),
                    "example": samples.transition(source),
                },
            },
        },
        "security": [],
        "responses": {
            "2XX": {"description": "Delivered"},
            "410": {"description": "The endpoint is disabled"},
            "default": {"description": "Tried again later; after 429 and 503 as `Retry-After` asks"},
        },
    }


# Schemas


def ref(model: Model | str) -> Json:
    return {"$ref": f"#/components/schemas/{model if isinstance(model, str) else model.__name__}"}


def any_of(*models: str) -> Json:
    return ref(models[0]) if len(models) == 1 else {"anyOf": [ref(each) for each in models]}


class _Untitled(GenerateJsonSchema):
    """Without titles, which only repeat the fields' names."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False


def components(operations: Iterable[Operation]) -> Json:
    """Every schema by its model's name."""
    models = {*SENT}
    for operation in operations:
        contents = [content for answer in operation.answers.values() for content in answer.content.values()]
        models |= {content.schema for content in contents if isinstance(content.schema, type)}
        models |= {operation.body} if operation.body else set()
    given: list[tuple[Model, Literal["validation", "serialization"]]] = [
        (model, "serialization" if issubclass(model, Shape | envelopes.Event) else "validation")
        for model in sorted(models, key=lambda model: model.__name__)
    ]
    _, found = models_json_schema(given, ref_template="#/components/schemas/{model}", schema_generator=_Untitled)
    return {name: _plain(schema) for name, schema in sorted(found["$defs"].items())}


def _plain(schema: Json) -> Json:
    made = {**schema, "description": " ".join(schema.get("description", "").split())}
    del made["title"]
    if made.get("additionalProperties") is False and "required" not in made:
        # Of a body whose fields are all optional: a field that a PATCH leaves out stays as it is, whatever its default.
        made["properties"] = {
            name: {key: value for key, value in field.items() if key != "default"}
            for name, field in made.get("properties", {}).items()
        }
    return made
