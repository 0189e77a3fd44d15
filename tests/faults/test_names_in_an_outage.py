"""A CVM asked for by its name while upstream answers with errors: leader, front end and simulator together."""

from __future__ import annotations

from tests.bridges import whole


async def test_a_cvm_is_served_by_its_name_while_upstream_is_at_500(redis_url: str) -> None:
    async with whole(redis_url, cvms=2) as bridge:
        await bridge.until_seen(2)
        cvm_id = bridge.ids[0]
        name = (await bridge.cvm(cvm_id))["name"]
        await bridge.control("POST", "/faults", json={"route": "*", "times": None, "status": 500})
        for path in (f"/v1/cvms/{name}", f"/v1/cvms/{name}/events"):
            answer = await bridge.http.get(bridge.url + path, headers={"Accept": "application/json"})
            assert (answer.status_code, answer.headers.get("bridge-reference")) == (200, "last-known")
        shown = await bridge.cvm(name)
        assert (shown["cvm_id"], shown["status"]) == (cvm_id, (await bridge.cvm(cvm_id))["status"])
        by_id, by_name = [await bridge.http.get(f"{bridge.url}/api/v1/cvms/{each}/state") for each in (cvm_id, name)]
        assert (by_name.status_code, by_name.content) == (by_id.status_code, by_id.content)
        assert (await bridge.http.get(f"{bridge.url}/v1/cvms/no-such-name", timeout=20)).status_code == 503

        await bridge.control("DELETE", "/faults")

        async def asked_again() -> bool:
            answer = await bridge.http.get(f"{bridge.url}/v1/cvms/{name}")
            return answer.status_code == 200 and "bridge-reference" not in answer.headers

        await bridge.until(asked_again, "upstream's own answer")
