"""The OpenAPI and AsyncAPI documents: that they are valid, say what the routes and the wire have, and nothing else."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
from openapi_spec_validator import validate
from starlette.routing import Route

import bridge
from bridge.clock import SystemClock
from bridge.config import Settings
from bridge.events import LOG_TYPES, SSE_EVENTS
from bridge.store.connection import connect
from bridge.store.keys import Keys
from bridge.web.api import samples
from bridge.web.app import Front
from bridge.web.documents.asyncapi import LOGGED, STREAMED, asyncapi
from bridge.web.documents.openapi import openapi
from bridge.web.documents.problems import PROBLEMS
from bridge.web.streaming.initial_snapshot import NOWHERE
from bridge.webhooks.formats import FORMATS
from tests.schemas import check, check_named

RELAYED = "/api/v1/{path:path}"
"""What is not the bridge's own: the one route that is in no document."""

SCHEMAS_OF_EVENTS = {**LOGGED, **STREAMED}


@pytest.fixture
async def routes() -> AsyncIterator[list[Route]]:
    backend = connect("redis://127.0.0.1:1/0", "bridge")
    try:
        yield [route for route in Front(Settings(), backend, SystemClock()).app.routes if isinstance(route, Route)]
    finally:
        await backend.close()


async def test_every_route_is_in_the_document_and_every_path_is_a_route(routes: list[Route]) -> None:
    served = {
        (method.lower(), route.path)
        for route in routes
        for method in (route.methods or {"GET"}) - {"HEAD"}
        if route.path != RELAYED
    }
    documented = {(method, path) for path, methods in openapi("bridge")["paths"].items() for method in methods}
    assert documented == served


def test_the_openapi_document_is_valid() -> None:
    validate(openapi("bridge"))


def test_both_documents_say_whose_they_are() -> None:
    documents = openapi("blue"), asyncapi("blue")
    for document in documents:
        assert document["info"]["version"] == bridge.__version__
        assert "/bridge/blue" in json.dumps(document)
        assert "/bridge/bridge" not in json.dumps({**document, "components": {**document["components"], "schemas": {}}})


def test_operations_have_names_of_their_own() -> None:
    names = [each["operationId"] for each in _operations()]
    assert len(names) == len(set(names))


def _operations() -> Iterator[dict[str, Any]]:
    for methods in openapi("bridge")["paths"].values():
        yield from methods.values()


def test_every_reference_leads_somewhere() -> None:
    for document in (openapi("bridge"), asyncapi("bridge")):
        for reference in set(re.findall(r'"\$ref": "(#[^"]+)"', json.dumps(document))):
            part: Any = document
            for step in reference.removeprefix("#/").split("/"):
                part = part[step]


def test_both_documents_share_their_schemas() -> None:
    assert openapi("bridge")["components"]["schemas"] == asyncapi("bridge")["components"]["schemas"]


@pytest.mark.parametrize("name", SCHEMAS_OF_EVENTS)
def test_each_example_of_an_event_is_as_its_schema_says(name: str) -> None:
    check_named(SCHEMAS_OF_EVENTS[name][0], samples.by_name("/bridge/bridge")[name])


def test_an_event_with_another_type_or_a_field_too_many_is_none() -> None:
    transition = samples.transition("/bridge/bridge")
    for wrong in ({**transition, "type": "cvm.other"}, {**transition, "more": 1}):
        with pytest.raises(jsonschema_rs.ValidationError):
            check_named("Event", wrong)


def test_examples_of_answers_and_bodies_are_as_their_schemas_say() -> None:
    contents = [
        content
        for operation in _operations()
        for part in [*operation["responses"].values(), operation.get("requestBody", {})]
        for content in part.get("content", {}).values()
    ]
    examples = [(content["schema"], content["example"]) for content in contents if "example" in content]
    schemas = openapi("bridge")["components"]["schemas"]
    examples += [(schema, example) for schema in schemas.values() for example in schema.get("examples", ())]
    examples += [
        ({"$ref": "#/components/schemas/Problem"}, example["value"])
        for example in openapi("bridge")["components"]["examples"].values()
    ]
    for schema, example in examples:
        check(schema, example)
    assert len(examples) > len(PROBLEMS)


def test_the_streams_have_every_event_that_the_front_end_sends() -> None:
    assert set(LOGGED) == {SSE_EVENTS[kind] for kind in LOG_TYPES}
    channels = asyncapi("bridge")["channels"]
    for name in ("events", "cvmEvents"):
        assert set(channels[name]["messages"]) == {*LOGGED, *STREAMED}
    for name in ("redisEvents", "redisCvmEvents"):
        assert set(channels[name]["messages"]) == set(LOGGED)
    schemas = openapi("bridge")["components"]["schemas"]
    types = [schemas[schema]["properties"]["type"]["const"] for schema, _ in LOGGED.values()]
    assert types == list(LOG_TYPES)
    assert {name.removesuffix("Webhook") for name in channels["webhooks"]["messages"]} == set(FORMATS)


def test_redis_channels_are_named_as_the_store_names_them() -> None:
    channels, keys = asyncapi("blue")["channels"], Keys("blue")
    assert _name(channels["redisEvents"]) == keys.events
    assert _name(channels["redisCvmEvents"]) == keys.events_of("{cvm_id}")


def _name(channel: dict[str, Any]) -> str:
    return str(channel["address"]).replace("{namespace}", channel["parameters"]["namespace"]["default"])


def test_every_problem_that_is_raised_is_in_the_list_with_its_status() -> None:
    raised = set(_raised())
    assert {(status, slug) for status, slug in raised if PROBLEMS[slug].status not in (0, status)} == set()
    assert {slug for _, slug in raised} == set(PROBLEMS)


def _raised() -> Iterator[tuple[int, str]]:
    """Status and slug wherever the front end writes both: `ProblemError(409, "…")` and the tables of its handlers."""
    for path in (Path(bridge.__file__).parent / "web").rglob("*.py"):
        if "documents" in path.parts:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            parts = node.args if isinstance(node, ast.Call) and _is_problem(node) else _entry(node)
            if len(parts) >= 2 and isinstance(parts[1], ast.Constant):
                status = parts[0].value if isinstance(parts[0], ast.Constant) else 0
                yield int(str(status)), str(parts[1].value)
    for status, (slug, _) in {404: ("not-found", ""), 405: ("method-not-allowed", ""), 0: ("http", "")}.items():
        yield status, slug


def _is_problem(call: ast.Call) -> bool:
    return isinstance(call.func, ast.Name) and call.func.id == "ProblemError"


def _entry(node: ast.AST) -> list[ast.expr]:
    """`(404, "no-such-endpoint", "There is …")`"""
    if not isinstance(node, ast.Tuple) or len(node.elts) != 3:
        return []
    values = [each.value if isinstance(each, ast.Constant) else None for each in node.elts]
    is_one = isinstance(values[0], int) and all(isinstance(value, str) for value in values[1:])
    return list(node.elts) if is_one else []


def test_a_stream_without_a_log_has_a_position_that_is_a_cursor_of_the_documents() -> None:
    check_named("PositionData", {"sequence": str(NOWHERE.sequence)})
