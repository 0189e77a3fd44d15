"""The batch route, the list of the workspace and the details of one CVM."""

from __future__ import annotations

import json

import httpx
import pytest

from bridge.upstream.client import Listed
from bridge.upstream.errors import (
    BatchAbsentError,
    RateLimitedError,
    RequestRefusedError,
    UnauthorizedError,
    UnparsableError,
    UpstreamError,
)
from tests.unit.upstream.scripted_client import client_for, listing


async def test_a_batch_keeps_the_answers_that_are_objects() -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        assert (request.method, json.loads(request.content)) == ("POST", {"vm_uuids": ["a", "b", "c"]})
        return httpx.Response(200, json={"a": {"status": "running"}, "b": None, "c": "running"})

    assert await client_for(answer).batch(["a", "b", "c"]) == {"a": {"status": "running"}}


@pytest.mark.parametrize("status", [403, 404, 405])
async def test_a_missing_batch_route_has_an_error_of_its_own(status: int) -> None:
    with pytest.raises(BatchAbsentError):
        await client_for(httpx.Response(status)).batch(["a"])


@pytest.mark.parametrize(
    ("status", "kind"), [(401, UnauthorizedError), (422, RequestRefusedError), (429, RateLimitedError)]
)
async def test_a_failing_batch_route_is_not_a_missing_one(status: int, kind: type[UpstreamError]) -> None:
    with pytest.raises(kind):
        await client_for(httpx.Response(status)).batch(["a"])


@pytest.mark.parametrize("body", [b"[]", b"null", b"nonsense"])
async def test_a_batch_answer_that_is_not_an_object_is_unparsable(body: bytes) -> None:
    with pytest.raises(UnparsableError):
        await client_for(httpx.Response(200, content=body)).batch(["a"])


def named(name: str) -> dict[str, object]:
    return {"vm_uuid": name}


@pytest.mark.parametrize(
    ("more", "total", "pages"),
    [({"pages": 2}, None, 2), ({"total": 2, "pages": None}, 2, None), ({"total": "2", "pages": -1}, None, None)],
    ids=repr,
)
async def test_a_page_has_the_counts_that_upstream_gives(
    more: dict[str, object], total: int | None, pages: int | None
) -> None:
    asked: list[int] = []
    page = await client_for(listing({2: [named("b")]}, asked, **more)).list_page(2)
    assert (asked, [each.vm_uuid for each in page.entries]) == ([2], ["b"])
    assert (page.total, page.pages) == (total, pages)


async def test_both_shapes_of_the_list_are_read_and_other_entries_skipped() -> None:
    hosted = {"id": "u-1", "status": "stopped", "app_id": "a1", "instance_id": "i1"}
    items = [
        {"hosted": hosted, "name": "old", "status": "running"},
        {"id": "cvm_2", "vm_uuid": "u-2", "name": "new", "status": "running", "app_id": "app_2", "instance_id": "i2"},
        {"id": "cvm_3", "vm_uuid": None, "name": "provisioning", "hosted": None},
        {"id": 4, "vm_uuid": 4, "name": ""},
        None,
        "cvm_5",
    ]
    assert (await client_for(listing({1: items}, [], pages=1)).list_page(1)).entries == (
        Listed(vm_uuid="u-1", name="old", app_id="a1", instance_id="i1", status="running"),
        Listed(vm_uuid="u-2", hashed_id="cvm_2", name="new", app_id="app_2", instance_id="i2", status="running"),
        Listed(hashed_id="cvm_3", name="provisioning"),
        Listed(),
    )


@pytest.mark.parametrize("body", [b"[]", b"{}", b'{"items":{}}', b"nonsense"])
async def test_a_list_without_items_is_unparsable(body: bytes) -> None:
    with pytest.raises(UnparsableError):
        await client_for(httpx.Response(200, content=body)).list_page(1)


async def test_the_details_of_a_cvm_are_read_as_an_entry_of_the_list() -> None:
    details = {"id": 7, "vm_uuid": "u", "name": "web-1", "app_id": "0a"}
    client = client_for(httpx.Response(200, json=details))
    assert await client.read_listed("a/b") == Listed(vm_uuid="u", name="web-1", app_id="0a")
    with pytest.raises(UnparsableError):
        await client_for(httpx.Response(200, json=[])).read_listed("web-1")
