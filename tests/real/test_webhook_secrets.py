"""Canaries: secrets that go through a whole bridge at debug level and come out nowhere."""

from __future__ import annotations

import base64
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx

from bridge.sealing import new_key
from tests.commands import Command
from tests.servers import RealServer, eventually, free_port
from tests.threaded_receiver import Post, Reply, receiving_posts

CANARIES = {
    "endpoint secret": "whsec_" + base64.b64encode(b"canary-endpoint-secret-0").decode(),
    "custom header": "Canary header/value=7",
    "URL query": "canary query&9",
    "Redis password": "canary-redis-password",
    "API key": "canary-api-key",
    "token": "canary-token",
    "secret key": new_key(),
    "private key": "whsk_",
}


def spellings(secret: str) -> set[bytes]:
    plain = {secret, quote(secret), quote(secret, safe=""), base64.b64encode(secret.encode()).decode()}
    return {text.encode() for text in plain}


def echo(post: Post) -> Reply:
    """Fails, and says all that it got."""
    return Reply(500, body=f"{post.path}\n{post.headers}\n".encode() + post.body)


@dataclass
class Asked:
    """A client that keeps everything it was answered, under the request that it was for."""

    client: httpx.Client
    answers: dict[str, bytes] = field(default_factory=dict)

    def __call__(self, method: str, path: str, **given: Any) -> Any:
        answer = self.client.request(method, path, **given)
        self.answers[f"{method} {path} → {answer.status_code}"] = (
            repr(sorted(answer.headers.items())).encode() + answer.content
        )
        return answer.json() if answer.headers.get("content-type", "").endswith("json") else None


def test_no_secret_comes_out_anywhere(tmp_path: Path, own_server: RealServer) -> None:
    own_server.call("CONFIG", "SET", "requirepass", CANARIES["Redis password"])
    with receiving_posts(echo) as url, _bridge(tmp_path, own_server) as (bridge, ask):
        urls = [f"{url}/echo", f"{url.replace('http', 'https')}/", f"http://127.0.0.1:{free_port()}/"]
        made = [_register(ask, f"{url}?key={quote(CANARIES['URL query'], safe='')}") for url in urls]
        _refusals(ask)
        deliveries = [ask("POST", f"/v1/webhooks/{each}/test")["id"] for each in made]
        for each in deliveries:
            eventually(partial(_attempted, ask, each), "an attempt")
        bodies = [ask("GET", f"/v1/deliveries/{each}")["attempts"][0]["response_body"] for each in deliveries]
        assert "***?***" in bodies[0]
        assert "x-canary: ***" in bodies[0].lower()
        for each in made:
            for method, path in (("GET", ""), ("GET", "/deliveries"), ("POST", "/rotate-secret"), ("POST", "/enable")):
                ask(method, f"/v1/webhooks/{each}{path}")
        for path in ("/v1/webhooks", "/v1/cvms", "/v1/slots", "/metrics", "/readyz", "/v1/events?limit=1000"):
            ask("GET", path, headers={"Accept": "application/json"})
        assert bridge.ends(signal.SIGTERM) == 0
        said = {"output": bridge.output.encode(), "log": bridge.errors.encode(), "Redis": _written(own_server)}
        assert b'"level": "debug"' in said["log"]
        assert b"webhook.test" in said["Redis"]
        _assert_clean({**said, **ask.answers})


@contextmanager
def _bridge(home: Path, server: RealServer) -> Iterator[tuple[Command, Asked]]:
    """`bridge up` at debug level, on a Redis with a password and a simulator with a key."""
    port, upstream = free_port(), free_port()
    simulator = Command(home, "simulate", "--port", str(upstream), "--cvms", "2")
    simulator.shows("ctrl-C ends it")
    bridge = Command(
        home,
        "up",
        PORT=str(port),
        REDIS_URL=f"redis://:{CANARIES['Redis password']}@127.0.0.1:{server.port}/0",
        PHALA_CLOUD_API_KEY=CANARIES["API key"],
        PHALA_CLOUD_API_PREFIX=f"http://127.0.0.1:{upstream}/api/v1",
        BRIDGE_TOKENS=f"me:{CANARIES['token']}:admin",
        BRIDGE_SECRET_KEY=CANARIES["secret key"],
        BRIDGE_LOG_LEVEL="debug",
        BRIDGE_LOG_FORMAT="json",
    )
    try:
        bridge.shows("is up")
        headers = {"Authorization": f"Bearer {CANARIES['token']}"}
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", headers=headers, trust_env=False) as client:
            yield bridge, Asked(client)
    finally:
        bridge.ends(signal.SIGTERM)
        simulator.ends(signal.SIGTERM)


def _register(ask: Asked, url: str) -> str:
    fields = {
        "url": url,
        "secret": CANARIES["endpoint secret"],
        "headers": {"X-Canary": CANARIES["custom header"]},
        "signatures": ["v1", "v1a"],
    }
    made = ask("POST", "/v1/webhooks", json=fields)
    assert made["secret"] == CANARIES["endpoint secret"]
    del ask.answers["POST /v1/webhooks → 201"]  # shown this once
    return str(made["id"])


def _attempted(ask: Asked, delivery_id: str) -> bool:
    return bool(ask("GET", f"/v1/deliveries/{delivery_id}")["attempts"])


def _refusals(ask: Asked) -> None:
    """Every error that a secret could slip into."""
    query, header, secret = CANARIES["URL query"], CANARIES["custom header"], CANARIES["endpoint secret"]
    for number, fields in enumerate(
        (
            {"url": f"http://10.0.0.1/?key={quote(query, safe='')}"},
            {"url": f"http://{quote(query, safe='')}@127.0.0.1/"},
            {"url": f"http://127.0.0.1/{query}"},
            {"url": "http://127.0.0.1/", "headers": {"X": f"{header}\n"}},
            {"url": "http://127.0.0.1/", "headers": {"Host": header}},
            {"url": "http://127.0.0.1/", "secret": f"{secret}!"},
            {"url": "http://127.0.0.1/", "secret": [secret]},
            {"url": {"key": query}, "headers": [header]},
        )
    ):
        assert ask("PUT", f"/v1/webhooks/refused-{number}", json=fields)["status"] == 422


def _written(server: RealServer) -> bytes:
    """All that was ever written to Redis: its append-only files."""
    return b"".join(path.read_bytes() for path in sorted(server.directory.rglob("*")) if path.is_file())


def _assert_clean(texts: dict[str, bytes]) -> None:
    found = [
        f"{name} in {place}"
        for place, text in texts.items()
        for name, secret in CANARIES.items()
        for spelling in spellings(secret)
        if spelling in text
    ]
    assert found == []
