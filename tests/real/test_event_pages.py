"""Pages of JSON over HTTP: the cursors they refuse, and how large they become."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from bridge.clock import rfc3339
from bridge.store.connection import Backend
from bridge.store.log import HIGHEST_ID
from bridge.store.snapshots import Snapshot
from bridge.store.watches import Watches
from bridge.web.http.page_turns import PAGE_BYTES
from tests.bridges import sse
from tests.lanes import Bench, Writer, endpoint
from tests.real.fronts import Front, front

JSON = {"Accept": "application/json"}


async def first_of_stream(web: Front, query: str) -> str | None:
    """The reason of its `reset`; None if it begins otherwise."""
    name, _, data = (await sse(web.http, f"{web.url}/v1/events?snapshot=0&{query}", 1))[0]
    return str(data["data"]["reason"]) if name == "reset" else None


async def page(web: Front, query: str) -> tuple[int, str | None]:
    """Status, and the end of the problem's type."""
    answer = await web.http.get(f"{web.url}/v1/events?{query}", headers=JSON)
    return answer.status_code, str(answer.json().get("type")).rpartition(":")[2] if answer.is_error else None


async def append_later(writer: Writer) -> str:
    """One event, in a later millisecond than the last: a time then has all events after it, or was trimmed."""
    later = int(writer.position.last_id.partition("-")[0]) + 1
    writer.position = replace(writer.position, used=(0, f"{later}-0"))
    return await writer.append()


LONG_AGO = "2001-01-01T00:00:00Z"
REASONS = {"history-lost": "history_lost", "unknown-cursor": "unknown_cursor"}


@pytest.mark.parametrize("trimmed", [True, False])
async def test_a_page_refuses_the_cursors_and_times_that_a_stream_answers_with_a_reset(
    redis_url: str, backend: Backend, *, trimmed: bool
) -> None:
    writer = await Writer.lead(backend, log_length=5 if trimmed else 100)
    # Before the front end is there, whose memory has no more than the log.
    ids = [await append_later(writer) for _ in range(8)]
    async with front(redis_url) as web:
        lost = f"{ids[5].partition('-')[0]}-77"  # as if a failover had lost it, and others had been written instead
        future = f"{int(ids[-1].partition('-')[0]) + 10**9}-0"
        cursors = [*ids[:-1], lost, future, "1-0", "rubbish", "1004", HIGHEST_ID, f"{ids[0]}/cvm-1"]
        seen = {}
        for cursor in cursors:
            reason = await first_of_stream(web, f"last_event_id={cursor}")
            for parameter in ("last_event_id", "after"):
                status, kind = await page(web, f"{parameter}={cursor}")
                assert (status == 410, REASONS.get(kind or "")) == (reason is not None, reason), cursor
            seen[cursor] = reason
        assert {seen[each] for each in (lost, future, "rubbish", HIGHEST_ID)} == {"unknown_cursor"}
        assert seen[ids[0]] == ("history_lost" if trimmed else None)
        assert seen[ids[6]] is None
        assert await first_of_stream(web, f"since={LONG_AGO}") == ("history_lost" if trimmed else None)
        assert await page(web, f"since={LONG_AGO}") == ((410, "history-lost") if trimmed else (200, None))
        kept = rfc3339(int(ids[6].partition("-")[0]) / 1000)
        assert await page(web, f"since={kept}") == await page(web, "since=2999-01-01T00:00:00Z") == (200, None)
        assert await page(web, "limit=3") == (200, None)


async def all_items(web: Front, path: str) -> list[list[dict[str, Any]]]:
    found: list[list[dict[str, Any]]] = []
    following: str | None = ""
    while following is not None:
        answer = await web.http.get(f"{web.url}{path}?limit=1000{following and '&after=' + following}", headers=JSON)
        assert len(answer.content) < 2 * PAGE_BYTES
        found.append(answer.json()["items"])
        following = answer.json()["next"]
    return found


async def test_no_list_becomes_much_larger_than_a_page_and_none_loses_an_item(redis_url: str) -> None:
    """Three pages of states, of events and of deliveries."""
    large, count = PAGE_BYTES // 20, 50
    async with front(redis_url) as web:
        await web.lead()
        raw = f'{{"status":"running","filling":"{"x" * large}"}}'
        ids = sorted(f"cvm-{number:03d}" for number in range(count))
        snapshots = {each: Snapshot(each, raw, "running", None, None, None).to_json() for each in ids}
        await web.backend.client.hset(web.backend.keys.state, mapping=snapshots)
        await Watches(web.backend).renew(ids)
        listed = await all_items(web, "/v1/cvms")
        assert [item["cvm_id"] for items in listed for item in items] == ids
        assert len(listed) == 3

        assert web.term is not None
        made = Bench(web.backend, Writer(web.backend, web.term, web.written))
        await made.endpoints.create(endpoint())
        events = [await web.append(filling=large) for _ in range(count)]
        paged = await all_items(web, "/v1/events")
        assert [item["id"] for items in paged for item in items] == events
        assert len(paged) == 3

        await made.fill()
        delivered = await all_items(web, "/v1/webhooks/e/deliveries")
        assert [item["event"]["id"] for items in delivered for item in items] == events[::-1]
        assert len(delivered) == 3
