"""The OpenAPI and AsyncAPI documents: that they are valid, say what the routes and the wire have, and nothing else."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Iterator
from typing import Any

import jsonschema_rs
import pytest
from openapi_spec_validator import validate
from starlette.routing import Route

import bridge
from bridge.clock import SystemClock
from bridge.config import Settings
from bridge.events import ANY_PHALA, LOG_TYPES, Event, dumps, is_phala, sse_event
from bridge.store.connection import connect
from bridge.store.keys import Keys
from bridge.web.api import samples
from bridge.web.app import FrontEnd, operations
from bridge.web.documents.asyncapi import ABOUT_CVMS, BODIES, LOGGED, STREAMED, asyncapi
from bridge.web.documents.openapi import openapi
from bridge.web.http.problems import COME_BACK, ProblemType
from bridge.web.streaming.initial_snapshot import NOWHERE
from bridge.webhook_formats import FORMATS, Format
from bridge.webhooks.formats import render
from tests.schemas import check, check_named

RELAYED = "/api/v1/{path:path}"
"""What is not the bridge's own: the one route that is in no document."""

SCHEMAS_OF_EVENTS = {**LOGGED, **STREAMED}


@pytest.fixture
async def routes() -> AsyncIterator[list[Route]]:
    backend = connect("redis://127.0.0.1:1/0", "bridge")
    try:
        yield [route for route in FrontEnd(Settings(), backend, SystemClock()).app.routes if isinstance(route, Route)]
    finally:
        await backend.close()


async def test_every_route_is_in_the_document_and_every_path_is_a_route(routes: list[Route]) -> None:
    served = {
        (method.lower(), route.path)
        for route in routes
        for method in (route.methods or {"GET"}) - {"HEAD"}
        if route.path != RELAYED
    }
    documented = {(method, path) for path, methods in document()["paths"].items() for method in methods}
    assert documented == served


def document() -> dict[str, Any]:
    return openapi("bridge", operations())


def test_the_openapi_document_is_valid() -> None:
    validate(document())


def test_both_documents_contain_version_and_namespace() -> None:
    documents = openapi("blue", operations()), asyncapi("blue", operations())
    for document in documents:
        assert document["info"]["version"] == bridge.__version__
        assert "/bridge/blue" in json.dumps(document)
        assert "/bridge/bridge" not in json.dumps({**document, "components": {**document["components"], "schemas": {}}})


def test_operations_have_names_of_their_own() -> None:
    names = [each["operationId"] for each in _operations()]
    assert len(names) == len(set(names))


def _operations() -> Iterator[dict[str, Any]]:
    for methods in document()["paths"].values():
        yield from methods.values()


def test_every_reference_leads_somewhere() -> None:
    for whole in (document(), asyncapi("bridge", operations())):
        for reference in set(re.findall(r'"\$ref": "(#[^"]+)"', json.dumps(whole))):
            part: Any = whole
            for step in reference.removeprefix("#/").split("/"):
                part = part[step]


def test_both_documents_share_their_schemas() -> None:
    assert document()["components"]["schemas"] == asyncapi("bridge", operations())["components"]["schemas"]


@pytest.mark.parametrize("name", SCHEMAS_OF_EVENTS)
def test_each_example_of_an_event_matches_its_schema(name: str) -> None:
    check_named(SCHEMAS_OF_EVENTS[name][0], samples.by_name("/bridge/bridge")[name])


def test_an_event_with_an_unknown_type_or_field_does_not_match() -> None:
    transition = samples.transition("/bridge/bridge")
    for wrong in ({**transition, "type": "cvm.other"}, {**transition, "more": 1}):
        with pytest.raises(jsonschema_rs.ValidationError):
            check_named("Event", wrong)


def test_examples_of_answers_and_bodies_match_their_schemas() -> None:
    contents = [
        content
        for operation in _operations()
        for part in [*operation["responses"].values(), operation.get("requestBody", {})]
        for content in part.get("content", {}).values()
    ]
    examples = [(content["schema"], content["example"]) for content in contents if "example" in content]
    schemas = document()["components"]["schemas"]
    examples += [(schema, example) for schema in schemas.values() for example in schema.get("examples", ())]
    examples += [
        ({"$ref": "#/components/schemas/Problem"}, example["value"])
        for example in document()["components"]["examples"].values()
    ]
    for schema, example in examples:
        check(schema, example)
    assert len(examples) > len(ProblemType)


def test_the_streams_have_every_event_that_the_front_end_sends() -> None:
    assert set(LOGGED) == {sse_event(kind) for kind in (*LOG_TYPES, ANY_PHALA)}
    channels = asyncapi("bridge", operations())["channels"]
    assert set(channels["events"]["messages"]) == {*LOGGED, *STREAMED}
    assert set(channels["cvmEvents"]["messages"]) == {*ABOUT_CVMS, *STREAMED}
    assert set(channels["redisEvents"]["messages"]) == set(LOGGED)
    assert set(channels["redisCvmEvents"]["messages"]) == set(ABOUT_CVMS)
    schemas = document()["components"]["schemas"]
    types = {schemas[schema]["properties"]["type"].get("const") for schema, _ in LOGGED.values()}
    assert types == {*LOG_TYPES, None}
    assert {name.removesuffix("Webhook") for name in channels["webhooks"]["messages"]} == set(FORMATS)


@pytest.mark.parametrize("format", [each for each in FORMATS if BODIES[each][0]])
def test_bodies_of_webhooks_match_the_schemas_of_their_format(format: Format) -> None:
    payload = asyncapi("bridge", operations())["components"]["messages"][f"{format}Webhook"]["payload"]
    for name in LOGGED:
        envelope = samples.by_name("/bridge/bridge")[name]
        event = Event.from_json(dumps(envelope))
        rendered = render(format, event, ran=True)
        check(payload, json.loads(rendered.body))
        if format == "phala":
            check_named("PhalaEnvelope" if is_phala(event.type) else "PhalaBody", json.loads(rendered.body))
            assert json.loads(rendered.body)["id"] == rendered.headers["x-webhook-id"]


def test_redis_channels_are_named_as_the_store_names_them() -> None:
    channels, keys = asyncapi("blue", operations())["channels"], Keys("blue")
    assert _name(channels["redisEvents"]) == keys.events
    assert _name(channels["redisCvmEvents"]) == keys.events_of("{cvm_id}")


def _name(channel: dict[str, Any]) -> str:
    return str(channel["address"]).replace("{namespace}", channel["parameters"]["namespace"]["default"])


def test_each_problem_has_an_example_with_its_status() -> None:
    examples = document()["components"]["examples"]
    found = {(example["value"]["type"], example["value"]["status"]) for example in examples.values()}
    assert found == {(each.urn, each.status) for each in ProblemType}


def test_problems_that_a_browser_gets_as_events_are_messages_of_the_streams() -> None:
    assert {each.slug for each in COME_BACK} <= set(STREAMED)


def test_a_stream_without_a_log_has_a_position_that_is_a_cursor_of_the_documents() -> None:
    check_named("PositionData", {"sequence": str(NOWHERE.sequence)})
