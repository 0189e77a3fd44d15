"""A running bridge against its own documents, and the pages that show it: what they may load, and what they say."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping
from html.parser import HTMLParser
from typing import Any

import httpx
import pytest

from bridge.sealing import new_key
from tests.bridges import Whole, sse, whole
from tests.odd_data import private_keys
from tests.real.fronts import front
from tests.schemas import check_answer, check_named, document, operation

PAGES = ("/", "/docs")
DOCUMENTS = ("/openapi.json", "/asyncapi.json")
JSON = {"Accept": "application/json"}


async def asked(bridge: Whole, method: str, path: str, status: int, **given: Any) -> Any:
    """The answer's JSON, after it was held against the document."""
    answer = await bridge.http.request(method, f"{bridge.url}{path}", **given)
    assert answer.status_code == status, answer.text
    is_json = "json" in answer.headers.get("content-type", "")
    body = answer.json() if is_json else answer.text
    check_answer(method, path.partition("?")[0], status, answer.headers.get("content-type", ""), body)
    return body


async def test_the_answers_of_a_running_bridge_match_the_document(redis_url: str) -> None:
    async with whole(redis_url, cvms=2) as bridge:
        await bridge.until_seen(2)
        one = f"/v1/cvms/{bridge.ids[0]}"
        assert len((await asked(bridge, "GET", "/v1/cvms", 200))["items"]) == 2
        await asked(bridge, "GET", one, 200)
        await asked(bridge, "PUT", one, 201)
        await asked(bridge, "PUT", one, 200)
        assert (await asked(bridge, "GET", "/v1/events?limit=1", 200, headers=JSON))["next"]
        await asked(bridge, "GET", f"{one}/events", 200, headers=JSON)
        assert len((await asked(bridge, "GET", "/v1/slots", 200))["items"]) == 5
        await asked(bridge, "POST", "/v1/stream-tokens", 201)
        await asked(bridge, "GET", f"/api/v1/cvms/{bridge.ids[0]}/state", 200)
        await asked(bridge, "GET", f"/api/v1/cvms/{bridge.ids[0]}/state?interval=1", 422)
        for path in ("/healthz", "/readyz", "/metrics", *PAGES, *DOCUMENTS):
            await asked(bridge, "GET", path, 200)


async def test_the_pages_need_nothing_of_redis(redis_url: str) -> None:
    async with front(redis_url) as served:
        for key in private_keys().values():
            await served.backend.client.set(key, "not what belongs here")
        for path in (*PAGES, *DOCUMENTS):
            assert (await served.http.get(f"{served.url}{path}")).status_code == 200


async def test_the_events_of_a_stream_match_the_documents(redis_url: str) -> None:
    async with whole(redis_url, cvms=2) as bridge:
        await bridge.until_seen(2)
        await bridge.patch(bridge.ids[0], status="stopping")
        for query, names in (("", {"snapshot"}), ("?last_event_id=0-1&snapshot=0", {"reset", "position"})):
            events = await sse(bridge.http, f"{bridge.url}/v1/events{query}", 2)
            assert {name for name, _, _ in events} == names
            for name, _, data in events:
                check_named({"reset": "ResetEvent", "position": "PositionData"}.get(name, "SnapshotEvent"), data)
        for event in (await asked(bridge, "GET", "/v1/events", 200, headers=JSON))["items"]:
            check_named("Event", event)


async def test_webhooks_and_deliveries_match_the_document(redis_url: str) -> None:
    async with whole(redis_url, cvms=1, settings={"secret_key": new_key(), "webhook_allow": "127.0.0.0/8"}) as bridge:
        made = await asked(
            bridge, "POST", "/v1/webhooks", 201, json={"url": "http://127.0.0.1:9/", "headers": {"A": "b"}}
        )
        one = f"/v1/webhooks/{made['id']}"
        await asked(bridge, "PUT", "/v1/webhooks/mine", 201, json={"url": "http://127.0.0.1:9/"})
        await asked(bridge, "PUT", "/v1/webhooks/mine", 200, json={"url": "http://127.0.0.1:9/"})
        await asked(bridge, "GET", "/v1/webhooks", 200)
        await asked(bridge, "PATCH", one, 200, json={"description": "x"})
        await asked(bridge, "POST", f"{one}/rotate-secret", 200)
        sent = await asked(bridge, "POST", f"{one}/test", 202)
        await asked(bridge, "GET", f"/v1/deliveries/{sent['id']}", 200)
        await asked(bridge, "GET", f"{one}/deliveries", 200)
        await asked(bridge, "POST", f"/v1/deliveries/{sent['id']}/retry", 202)
        await asked(bridge, "POST", f"/v1/deliveries/{sent['id']}/cancel", 200)
        await asked(bridge, "GET", "/v1/deliveries", 200)
        await asked(bridge, "POST", f"{one}/recover", 202, json={"since": "2026-11-24T16:00:00Z"})
        await asked(bridge, "PATCH", one, 200, json={"enabled": False})
        await asked(bridge, "POST", f"{one}/test", 409)
        await asked(bridge, "POST", f"{one}/enable", 200)
        await asked(bridge, "DELETE", one, 204)
        await asked(bridge, "GET", one, 404)


async def test_refusals_match_the_document(redis_url: str) -> None:
    tokens = "root:rootsecret:admin reader:readsecret:read"
    admin, reader = {"X-API-Key": "rootsecret"}, {"X-API-Key": "readsecret"}
    async with whole(redis_url, cvms=1, open_access=False, settings={"tokens": tokens}) as bridge:
        await bridge.until_seen(1)
        one = f"/v1/cvms/{bridge.ids[0]}"
        await asked(bridge, "GET", "/v1/cvms", 401)
        await asked(bridge, "PUT", one, 403, headers=reader)
        await asked(bridge, "GET", "/v1/cvms?limit=0", 422, headers=reader)
        await asked(bridge, "GET", "/v1/cvms/nobody", 404, headers=reader)
        await asked(bridge, "GET", "/v1/deliveries/none", 404, headers=reader)
        await asked(bridge, "GET", "/v1/events?after=0-1", 410, headers={**reader, **JSON})
        await asked(bridge, "POST", "/v1/webhooks", 503, headers=admin, json={})
        await asked(bridge, "POST", "/v1/upstream/webhooks", 404)
        await asked(bridge, "GET", f"/api{one}/state", 401)


async def test_the_document_has_the_query_parameters_that_the_routes_know(redis_url: str) -> None:
    async with front(redis_url) as web:
        compared = 0
        for template, methods in document()["paths"].items():
            for method, promised in methods.items():
                if not template.startswith("/v1/") or template == "/v1/upstream/webhooks":
                    continue
                path = re.sub(r"{[^}]+}", "x", template)
                answer = await web.http.request(method, f"{web.url}{path}?nonsense=1", json={})
                assert answer.status_code == 422, (method, path, answer.text)
                check_answer(method, path, 422, answer.headers["content-type"], answer.json())
                said = answer.json()["detail"].partition("known here: ")[2]
                known = [name for name in said.split(", ") if name != "none"]
                if template == "/v1/cvms/{ref}/events":
                    known.remove("cvm")  # known, and refused: the path names the CVM already
                assert known == sorted(_query_names(promised)), (method, template)
                compared += 1
        assert compared == 24


def _query_names(promised: Mapping[str, Any]) -> list[str]:
    shared = document()["components"]["parameters"]
    found = [shared[each["$ref"].rpartition("/")[2]] for each in promised.get("parameters", ())]
    return [each["name"] for each in found if each["in"] == "query"]


async def test_a_body_with_an_unknown_field_is_refused_as_the_document_says(redis_url: str) -> None:
    async with front(redis_url, secret_key=new_key()) as web:
        answer = await web.http.post(f"{web.url}/v1/webhooks", json={"url": "https://example.com", "colour": "red"})
        assert answer.status_code == 422
        _, promised = operation("POST", "/v1/webhooks")
        name = promised["requestBody"]["content"]["application/json"]["schema"]["$ref"].rpartition("/")[2]
        assert document()["components"]["schemas"][name]["additionalProperties"] is False


# The pages


class Looked(HTMLParser):
    """What of a page matters here."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.code: dict[str, list[str]] = {"script": [], "style": []}
        self.ids: list[str] = []
        self.links: list[str] = []
        self.attributes: list[tuple[str, str, str | None]] = []
        self.inside = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.inside = tag
        if tag in self.code:
            self.code[tag].append("")
        self.attributes += [(tag, name, value) for name, value in attrs]
        self.ids += [value or "" for name, value in attrs if name == "id"]
        self.links += [value or "" for name, value in attrs if name in ("href", "src", "action")]

    def handle_endtag(self, tag: str) -> None:
        self.inside = ""

    def handle_data(self, data: str) -> None:
        if self.inside in self.code:
            self.code[self.inside][-1] += data


async def page(web: Any, path: str) -> tuple[httpx.Response, Looked]:
    answer = await web.http.get(f"{web.url}{path}")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/html; charset=utf-8")
    return answer, Looked(answer.text)


@pytest.mark.parametrize("path", PAGES)
async def test_a_page_runs_and_loads_only_its_own_code(redis_url: str, path: str) -> None:
    async with front(redis_url) as web:
        answer, looked = await page(web, path)
        policy = dict(part.split(" ", 1) for part in answer.headers["content-security-policy"].split("; "))
        assert policy["default-src"] == policy["base-uri"] == policy["form-action"] == "'none'"
        assert (policy["connect-src"], policy["require-trusted-types-for"]) == ("'self'", "'script'")
        for kind in ("script", "style"):
            (code,) = looked.code[kind]
            digest = base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()
            assert policy[f"{kind}-src"] == f"'sha256-{digest}'"
            assert "innerHTML" not in code
            assert "http:" not in code
            assert "https:" not in code
        assert [each for each in looked.attributes if each[1].startswith("on") or each[1] == "style"] == []
        assert answer.headers["x-content-type-options"] == "nosniff"


async def test_the_dashboards_worker_may_connect_to_the_bridge_alone(redis_url: str) -> None:
    async with front(redis_url) as web:
        worker = await web.http.get(f"{web.url}/stream-worker.js")
        policy = "default-src 'none'; connect-src 'self'; require-trusted-types-for 'script'; trusted-types 'none'"
        assert worker.headers["content-security-policy"] == policy
        assert worker.headers["content-type"] == "text/javascript; charset=utf-8"
        _, looked = await page(web, "/")
        digest = base64.b64encode(hashlib.sha256(worker.content).digest()).decode()
        assert ("body", "data-worker", f"sha256-{digest}") in looked.attributes


@pytest.mark.parametrize("path", PAGES)
async def test_a_page_has_no_outside_address_and_no_dead_link(redis_url: str, path: str) -> None:
    async with front(redis_url) as web:
        _, looked = await page(web, path)
        # A fragment with a value tells the dashboard what to show.
        inside = [link.removeprefix("#") for link in looked.links if link.startswith("#") and "=" not in link]
        assert set(inside) <= {"", *looked.ids}
        assert len(looked.ids) == len(set(looked.ids))
        rest = {link for link in looked.links if not link.startswith(("#", "data:image/svg+xml;base64,"))}
        assert rest <= {*PAGES, *DOCUMENTS, "/v1/cvms", "/v1/slots"}
        for link in rest:
            assert (await web.http.head(f"{web.url}{link}")).status_code == 200


async def test_the_reference_has_a_heading_for_everything_and_this_servers_address(redis_url: str) -> None:
    async with front(redis_url) as web:
        answer, looked = await page(web, "/docs")
        names = {each["operationId"] for methods in document()["paths"].values() for each in methods.values()}
        names |= {f"schema-{name}" for name in document()["components"]["schemas"]}
        names |= {f"problem-{slug}" for slug in document()["components"]["examples"]}
        assert names <= set(looked.ids)
        assert f"curl -N {web.url}/v1/events" in answer.text
        assert "{{" not in answer.text
        behind_tls = await web.http.get(f"{web.url}/docs", headers={"X-Forwarded-Proto": "https"})
        assert f"curl -N https://127.0.0.1:{web.port}/v1/events" in behind_tls.text


@pytest.mark.parametrize("host", ['"><script>alert(1)</script>', "[", "a b"])
async def test_a_malformed_host_is_escaped(redis_url: str, host: str) -> None:
    async with front(redis_url) as web:
        reader, writer = await web.connect("/docs HTTP/1.0\r\nHost: " + host + "\r\nX:")
        text = (await reader.read(400_000)).decode()
        writer.close()
        assert "<script>alert(1)" not in text
        assert "500" not in text.partition("\r\n")[0]


async def test_pages_and_documents_need_no_token_and_hold_no_state(redis_url: str) -> None:
    tokens = "root:rootsecret:admin"
    async with front(redis_url, open_access=False, tokens=tokens) as web:
        await web.lead()
        await web.append("cvm-of-somebody")
        for path in (*PAGES, *DOCUMENTS):
            answer = await web.http.get(f"{web.url}{path}")
            assert answer.status_code == 200
            assert "cvm-of-somebody" not in answer.text
            assert "rootsecret" not in answer.text


async def test_the_namespace_is_shown(redis_url: str) -> None:
    async with front(redis_url, namespace="blue-1") as web:
        assert (await web.http.get(f"{web.url}/openapi.json")).text.count("/bridge/blue-1") > 0
        answer, _ = await page(web, "/")
        assert ">blue-1<" in answer.text
