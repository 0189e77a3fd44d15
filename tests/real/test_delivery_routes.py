"""The routes of deliveries: tests, lists, retries, recoveries."""

from __future__ import annotations

from typing import Any

import pytest

from tests.real.webhook_api import Api, fields


async def test_a_test_event_is_listed_read_and_waits_for_its_attempt(api: Api) -> None:
    made = await api.made(description="x")
    one = f"/v1/webhooks/{made['id']}"
    answer = await api.post(f"{one}/test")
    assert answer.status_code == 202
    queued = answer.json()
    assert answer.headers["location"] == f"/v1/deliveries/{queued['id']}"
    assert (queued["endpoint_id"], queued["status"], queued["attempts"]) == (made["id"], "pending", [])
    assert queued["event"]["type"] == "webhook.test"
    read = (await api.get(f"/v1/deliveries/{queued['id']}")).json()
    due = {"next_attempt_at": read["next_attempt_at"]}  # overdue is due now, whenever one asks
    assert read == {**queued, **due}
    for params in ({}, {"status": "pending"}):
        page = (await api.get(f"{one}/deliveries", params=params)).json()
        assert ([{**item, **due} for item in page["items"]], page["next"]) == ([read], None)
    assert (await api.get(f"{one}/deliveries", params={"status": "given_up"})).json()["items"] == []
    assert fields(await api.get(f"{one}/deliveries", params={"status": "lost"})) == ["status"]
    assert fields(await api.get(f"{one}/deliveries", params={"after": "x"})) == ["after"]
    assert fields(await api.get(f"{one}/deliveries", params={"limit": "0"})) == ["limit"]
    assert fields(await api.post(f"{one}/test", json={"to": "x"})) == ["to"]
    pending = await api.post(f"/v1/deliveries/{queued['id']}/retry")
    assert (pending.status_code, pending.json()["status"]) == (202, "pending")
    for _ in range(2):
        canceled = await api.post(f"/v1/deliveries/{queued['id']}/cancel")
        assert (canceled.status_code, canceled.json()["status"]) == (200, "skipped")
        assert canceled.json()["finished_at"] is not None


async def test_a_disabled_endpoint_takes_no_test_and_no_recovery(api: Api) -> None:
    made = await api.made(enabled=False)
    assert made["enabled"] is False
    for path, body in (("test", {}), ("recover", {"since": "2026-11-24T16:00:00Z"})):
        answer = await api.post(f"/v1/webhooks/{made['id']}/{path}", json=body)
        assert (answer.status_code, answer.json()["type"]) == (409, "urn:bridge:problem:endpoint-disabled")


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ({}, ["since"]),
        ({"since": 1_795_536_000}, ["since"]),
        ({"since": "yesterday"}, ["since"]),
        ({"since": "2026-11-24T16:00:00Z", "until": "soon"}, ["until"]),
        ({"since": "2026-11-24T16:00:00Z", "until": "2026-11-24T15:00:00Z"}, ["until"]),
        ({"since": "2026-11-24T16:00:00Z", "for": "1h"}, ["for"]),
        ({"since": "2026-11-24T16:00:00Z", "all": "some"}, ["all"]),
    ],
)
async def test_a_recovery_asks_for_a_period(api: Api, body: dict[str, Any], named: list[str]) -> None:
    made = await api.made()
    assert fields(await api.post(f"/v1/webhooks/{made['id']}/recover", json=body)) == named
    period = {"since": "2026-11-24T16:00:00+01:00", "until": "2126-11-24T15:00:00.5Z"}
    for chosen in ({}, {"all": True}):
        answer = await api.post(f"/v1/webhooks/{made['id']}/recover", json={**period, **chosen})
        assert (answer.status_code, answer.json()) == (202, {"queued": 0, "complete": True, "next": None})


async def test_deliveries_of_all_endpoints_are_listed_and_selected(api: Api) -> None:
    queued = []
    for _ in range(3):
        made = await api.made()
        queued.append((await api.post(f"/v1/webhooks/{made['id']}/test")).json())
    await api.post(f"/v1/deliveries/{queued[1]['id']}/cancel")

    async def listed(**params: str) -> list[str]:
        answer = await api.get("/v1/deliveries", params=params)
        assert answer.status_code == 200, answer.text
        return [each["id"] for each in answer.json()["items"]]

    every = [each["id"] for each in queued]
    assert await listed() == every[::-1]
    assert await listed(status="skipped") == [every[1]]
    assert await listed(event=queued[2]["event"]["id"]) == [every[2]]
    assert await listed(cvm=queued[0]["endpoint_id"]) == [every[0]]  # a test event's subject
    assert await listed(since="2020-01-01T00:00:00Z", until="2020-01-02T00:00:00Z") == []
    assert await listed(since="2020-01-01T00:00:00Z", until="2099-01-01T00:00:00Z") == every[::-1]
    assert fields(await api.get("/v1/deliveries", params={"since": "x"})) == ["since"]
    assert fields(await api.get("/v1/deliveries", params={"after": "x"})) == ["after"]
    turned = {"since": "2026-01-02T00:00:00Z", "until": "2026-01-01T00:00:00Z"}
    assert fields(await api.get("/v1/deliveries", params=turned)) == ["until"]
