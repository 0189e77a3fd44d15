"""422 bodies, word for word as FastAPI 0.165 with Pydantic 2.14 wrote them when it was asked."""

from __future__ import annotations

from typing import Any

import pytest
from starlette.datastructures import QueryParams
from starlette.types import Message

from bridge.clock import SystemClock
from bridge.phala_queries import UnprocessableError, pace
from bridge.simulator.app import batch_request, create_app
from bridge.simulator.simulator import Settings, Simulator
from bridge.simulator.world import World

NO_INTEGER = "Input should be a valid integer, unable to parse string as an integer"


def read(query: str) -> tuple[int, int]:
    return pace(QueryParams(query))


def refused(query: str) -> list[dict[str, Any]]:
    with pytest.raises(UnprocessableError) as caught:
        read(query)
    return caught.value.detail


@pytest.mark.parametrize(
    ("query", "values"),
    [
        ("", (5, 300)),
        ("interval=30&timeout=600", (30, 600)),
        ("interval=5&timeout=10", (5, 10)),
        ("interval=4&interval=6", (6, 300)),
        ("interval=%205", (5, 300)),
        ("interval=5.0", (5, 300)),
        ("interval=%2B7", (7, 300)),
        ("other=1", (5, 300)),
    ],
)
def test_valid_parameters_are_read_as_by_pydantic(query: str, values: tuple[int, int]) -> None:
    assert read(query) == values


@pytest.mark.parametrize("text", ["abc", "", "5.5", "0x5", "1e1", "null", "true"])
def test_a_value_that_is_not_an_integer_is_named_with_its_input(text: str) -> None:
    assert refused(f"interval={text}") == [
        {"type": "int_parsing", "loc": ["query", "interval"], "msg": NO_INTEGER, "input": text}
    ]


def test_a_value_out_of_bounds_is_refused_with_the_bound() -> None:
    assert refused("interval=4&timeout=601") == [
        {
            "type": "greater_than_equal",
            "loc": ["query", "interval"],
            "msg": "Input should be greater than or equal to 5",
            "input": "4",
            "ctx": {"ge": 5},
        },
        {
            "type": "less_than_equal",
            "loc": ["query", "timeout"],
            "msg": "Input should be less than or equal to 600",
            "input": "601",
            "ctx": {"le": 600},
        },
    ]


def test_the_keys_are_in_fastapis_order() -> None:
    assert [list(fault) for fault in refused("interval=1&timeout=x")] == [
        ["type", "loc", "msg", "input", "ctx"],
        ["type", "loc", "msg", "input"],
    ]


def test_a_batch_request_is_read() -> None:
    assert batch_request(b'{"vm_uuids": ["a", "b"], "more": 1}').vm_uuids == ["a", "b"]


@pytest.mark.parametrize(
    ("body", "fault"),
    [
        (b"", {"type": "missing", "loc": ["body"], "msg": "Field required", "input": None}),
        (
            b"[]",
            {
                "type": "model_attributes_type",
                "loc": ["body"],
                "msg": "Input should be a valid dictionary or object to extract fields from",
                "input": [],
            },
        ),
        (b"{}", {"type": "missing", "loc": ["body", "vm_uuids"], "msg": "Field required", "input": {}}),
        (
            b"{",
            {
                "type": "json_invalid",
                "loc": ["body", 1],
                "msg": "JSON decode error",
                "input": {},
                "ctx": {"error": "Expecting property name enclosed in double quotes"},
            },
        ),
        (
            b'{"vm_uuids": [1]}',
            {
                "type": "string_type",
                "loc": ["body", "vm_uuids", 0],
                "msg": "Input should be a valid string",
                "input": 1,
            },
        ),
        (
            b'{"vm_uuids": "a"}',
            {"type": "list_type", "loc": ["body", "vm_uuids"], "msg": "Input should be a valid list", "input": "a"},
        ),
    ],
)
def test_a_wrong_batch_request_is_refused_as_fastapi_does(body: bytes, fault: dict[str, Any]) -> None:
    with pytest.raises(UnprocessableError) as caught:
        batch_request(body)
    assert caught.value.detail == [fault]


async def test_a_client_that_leaves_in_the_middle_of_its_body_is_no_error() -> None:
    """As a leader that stops; uvicorn prints a traceback for what an app raises."""
    app = create_app(Simulator(World(seed=7, cvms=1, frozen=True), Settings(), SystemClock()))
    path = "/api/v1/status/batch"
    scope = {
        "type": "http",
        "method": "POST",
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "scheme": "http",
    }
    scope |= {"query_string": b"", "headers": [(b"x-api-key", b"key")], "server": ("x", 1), "client": ("x", 1)}
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        sent.append(message)

    await app(scope, receive, send)
    assert [message.get("status") for message in sent] == [400, None]
