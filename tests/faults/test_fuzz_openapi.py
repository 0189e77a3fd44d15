"""schemathesis over every operation of the document that a front end serves, with every kind of token."""

from __future__ import annotations

import json
import signal
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import requests
import schemathesis
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.checks import CheckFunction
from schemathesis.specs.openapi import checks

from bridge.simulator.world import World
from tests.commands import Command
from tests.fuzzing import ADMIN, LIMITED, READER, Watched, tried, watched_web
from tests.schemas import check_answer
from tests.servers import PATIENCE, eventually

CVMS = 4

Json = dict[str, Any]
Drawn = tuple[Any, str, bool, str]

CONFORMANCE: list[CheckFunction] = [
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_headers_conformance,
    checks.response_schema_conformance,
]

CREDENTIALS = ("Authorization", "X-API-Key")

KNOWN = {"url": "https://8.8.8.8/", "signatures": ["v1", "v1a"]}

METHODS = ("GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE", "TRACE", "PROPFIND")

ODD_BODIES = [
    b"[" * 60_000,
    b'{"a":' * 12_000,
    b'{"headers":' * 500 + b"{}" + b"}" * 500,
    b'{"url": ' + b"9" * 5_000 + b"}",
    b'{"url": 1e999, "since": NaN, "until": -Infinity}',
    b'{"url": "https://8.8.8.8/", "url": "https://8.8.4.4/", "enabled": true, "enabled": false}',
    b'{"url": "https://8.8.8.8/\\ud800", "description": "\\udfff", "headers": {"\\ud800": "\\ud800"}}',
    b'{"\\ud800": 1, "cvms": ["\\ud800"], "secret": "whsec_\\ud800", "since": "\\ud800"}',
    b'{"url": "https://8.8.8.8/", "cvms": ["' + b"x" * 257 + b'", "\\u0000"], "to": [""]}',
    '{"url": "https://8.8.8.8/"}'.encode("utf-16"),
    b'\xef\xbb\xbf{"url": "https://8.8.8.8/"}',
    b'{"url": "\xff\xfe"}',
    b"\x1f\x8b\x08\x00" + bytes(100),
    b"null",
    b" " * 65_536 + b"{}",
]

ODD_QUERIES = [
    "limit=\u0661",
    "limit=1e2",
    "limit=" + "9" * 5000,
    "limit=-0",
    "after=%00",
    "after=%ff%fe",
    "after=" + "9" * 5000 + "-0",
    "after=18446744073709551616-0",
    "after=18446744073709551615-18446744073709551615",
    "last_event_id=%ed%a0%80",
    "last_event_id=1-1/" + "x" * 300,
    "since=9999-12-31T23:59:59.999999999-23:59",
    "since=0000-00-00T00:00:00Z",
    "since=0001-01-01T00:00:00%2B23:59",
    "cvm=&cvm=%00",
    "cvm=" + "&cvm=".join(map(str, range(1001))),
    "status=pending&after=%F0%9F%98%80",
    "access_token=." + "%00" * 99,
    "access_token=WzEsMV0.x&access_token=e30.x",
    "interval=5_0&timeout=\u0661\u0660&target=%0a",
    "snapshot=0&type=cvm.state&limit=1",
    "&".join(f"x{number}=" for number in range(2000)),
]

ODD_HEADERS = [
    ("Last-Event-ID", "\xff\xfe"),
    ("Last-Event-ID", "9" * 5000),
    ("Accept", "application/json"),
    ("Accept", "text/event-stream;status=1"),
    ("Accept", "\xff"),
    ("Authorization", "Bearer \xff"),
    ("Authorization", "Basic " + "A" * 5000),
    ("Content-Type", "application/json; charset=\xff"),
    ("Content-Encoding", "gzip"),
    ("Origin", "http://[::1"),
    ("Origin", "null"),
    ("Sec-Fetch-Site", "\xff"),
    ("X-Forwarded-Proto", "<script>"),
    ("X-Webhook-Timestamp", "9" * 5000),
    ("X-Webhook-Signature", "sha256=\xff"),
    ("Range", "bytes=0-0,-1"),
    ("If-None-Match", "*"),
]


@dataclass
class Caller:
    """Sends cases, often with what exists in place of what was drawn, and checks the answers."""

    web: Watched
    known: Json
    tokens: dict[str, Json]
    statuses: Counter[int] = field(default_factory=Counter)

    def populate(self) -> None:
        """Makes the endpoint with a delivery, which nobody delivers."""
        url, headers = f"{self.web.url}/v1/webhooks/known", {"X-API-Key": ADMIN}
        made = requests.put(url, json=KNOWN, headers=headers, timeout=PATIENCE)
        assert made.status_code in (200, 201), made.text
        self.known["name"] = made.json()["public_keys_url"].rpartition("/")[2]
        test = requests.post(f"{url}/test", headers=headers, timeout=PATIENCE).json()
        self.known["delivery"] = test["id"]

    def calls(self, drawn: Drawn) -> None:
        case, token, knows, method = drawn
        self._aim(case, knows=knows)
        sent = case.as_transport_kwargs(base_url=self.web.url)
        if token != "none":  # the document's credentials are drawn too
            sent["headers"] = {name: value for name, value in sent["headers"].items() if name not in CREDENTIALS}
        sent["headers"] = {**sent["headers"], **self.tokens[token].get("headers", {})}
        sent["params"] = {**(sent.get("params") or {}), **self.tokens[token].get("params", {})}
        if case.path.endswith("/wait") and str(sent["params"].get("timeout", "0")).isdecimal():
            sent["params"]["timeout"] = "0"
        sent["method"] = method or sent["method"]
        with requests.request(**sent, stream=True, timeout=PATIENCE, allow_redirects=False) as answer:
            self.statuses[answer.status_code] += 1
            self._check(case, answer, foreign=sent["method"] != case.method)
        if sent["method"] == "DELETE" and answer.status_code == 204 and "webhooks" in case.path:
            self.populate()

    def _aim(self, case: Any, *, knows: bool) -> None:
        """No request may change what later ones need, nor make the front end ask a DNS server."""
        for name in case.path_parameters or {}:
            if knows:
                case.path_parameters[name] = self.known["delivery" if "deliveries/" in case.path else name]
        if isinstance(case.body, dict) and "://" in str(case.body.get("url")):
            case.body["url"] = "https://8.8.8.8/hook"
        if isinstance(case.body, dict) and knows and isinstance(case.body.get("cvms"), list):
            case.body["cvms"] = [self.known["ref"]]

    def _check(self, case: Any, answer: requests.Response, *, foreign: bool) -> None:
        if self._holds(answer, case.method, "" if foreign else case.path) and not foreign:
            case.validate_response(answer, checks=CONFORMANCE)

    def says(self, method: str, template: str, query: str = "", body: bytes = b"", **headers: str) -> None:
        """Sends an administrator's request about what exists."""
        names = {**self.known, "id": self.known["delivery" if "deliveries/" in template else "id"]}
        given = {"X-API-Key": ADMIN, "Content-Type": "application/json", **headers}
        query = f"{query}&timeout=0" if template.endswith("/wait") else query
        url = f"{self.web.url}{template.format(**names)}?{query}"
        with requests.request(method, url, data=body, headers=given, stream=True, timeout=PATIENCE) as answer:
            self._holds(answer, method, template)

    def _holds(self, answer: requests.Response, method: str, template: str) -> bool:
        """Checks what holds for every answer; whether its body ends. `template`: the documented path, if it is."""
        status, media_type = answer.status_code, answer.headers.get("content-type", "")
        assert status < 500 or (status == 503 and "retry-after" in answer.headers), (status, answer.text)
        if status == 414:  # a query of so many values that the server refuses it before there is a route
            return False
        if media_type.startswith("text/event-stream"):
            if answer.request.method != "HEAD":
                assert next(answer.iter_lines()).startswith((b"event: ", b"retry: ", b":"))
            return False
        path = answer.request.path_url.partition("?")[0]
        if "json" in media_type and (template == path or ("{" in template and "//" not in path)):
            check_answer(method, template, status, media_type, answer.json())
        return True


def drawn_from(document: Json) -> st.SearchStrategy[Drawn]:
    """Calls of all operations; every other one has values that the document does not allow."""
    schema: Any = schemathesis.openapi.from_dict(document)
    operations = [schema[path][method.upper()] for path, methods in document["paths"].items() for method in methods]
    modes = (GenerationMode.POSITIVE, GenerationMode.NEGATIVE)
    cases = st.sampled_from(operations).flatmap(
        lambda operation: st.sampled_from(modes).flatmap(lambda mode: operation.as_strategy(generation_mode=mode))
    )
    tokens = st.sampled_from([*["admin"] * 5, "reader", "limited", "stream", "none"])
    knows, method = st.sampled_from([True, True, False]), st.sampled_from([*[""] * 30, *METHODS])
    return st.tuples(cases, tokens, knows, method)


@contextmanager
def populated(home: Path, redis_url: str) -> Iterator[Caller]:
    """A front end with a leader, CVMs of the simulator, an endpoint and a delivery."""
    simulator = Command(home, "simulate", "--port", "0", "--cvms", str(CVMS), "--seed", "7")
    prefix = simulator.shows(r"PHALA_CLOUD_API_PREFIX=(\S+)")
    ids = sorted(cvm.vm_uuid for cvm in World(seed=7, cvms=CVMS, frozen=True).cvms)
    leader = Command(
        home, "upstream", REDIS_URL=redis_url, PHALA_CLOUD_API_KEY="any", PHALA_CLOUD_API_PREFIX=prefix, BRIDGE_CVMS="*"
    )
    with watched_web(home, redis_url, limited_to=ids[0], PHALA_WEBHOOK_SECRET="whsec_0123456789abcdef") as web:
        admin = {"X-API-Key": ADMIN}

        def seen() -> bool:
            items = requests.get(f"{web.url}/v1/cvms", headers=admin, timeout=PATIENCE).json().get("items", [])
            return [item["cvm_id"] for item in items if item["status"]] == ids

        eventually(seen, "all CVMs are seen")
        stream = requests.post(f"{web.url}/v1/stream-tokens", headers=admin, timeout=PATIENCE).json()
        tokens: dict[str, Json] = {
            "admin": {"headers": admin},
            "reader": {"headers": {"Authorization": f"Bearer {READER}"}},
            "limited": {"headers": {"X-API-Key": LIMITED}},
            "stream": {"params": {"access_token": stream["access_token"]}},
            "none": {},
        }
        caller = Caller(web, {"ref": ids[0], "id": "known"}, tokens)
        caller.populate()
        yield caller
    for command in (leader, simulator):
        command.ends(signal.SIGTERM)


def odd_requests(document: Json) -> Iterator[tuple[str, str, str, bytes, dict[str, str]]]:
    """What schemathesis does not think of, for each operation that takes it: method, path, query, body, headers."""
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield from ((method.upper(), path, query, b"", {}) for query in ODD_QUERIES)
            yield from ((method.upper(), path, "", b"", dict([header])) for header in ODD_HEADERS)
            if "requestBody" in operation:
                yield from ((method.upper(), path, "", body, {}) for body in ODD_BODIES)


def test_odd_queries_headers_and_bodies_are_borne(tmp_path: Path, redis_url: str) -> None:
    with populated(tmp_path, redis_url) as caller:
        document = json.loads(requests.get(f"{caller.web.url}/openapi.json", timeout=PATIENCE).content)
        for method, path, query, body, headers in odd_requests(document):
            if method != "DELETE":
                caller.says(method, path, query, body, **headers)


def test_every_operation_answers_as_its_document_says(tmp_path: Path, redis_url: str) -> None:
    with populated(tmp_path, redis_url) as caller:
        document = json.loads(requests.get(f"{caller.web.url}/openapi.json", timeout=PATIENCE).content)
        tried(200, drawn_from(document), caller.calls)
        assert {200, 201, 401, 403, 405, 422} <= set(caller.statuses), caller.statuses
