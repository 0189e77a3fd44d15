"""Anything in any private key of the bridge, as hypothesis draws it."""

from __future__ import annotations

import json
import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st

from bridge.store.keys import Keys
from bridge.store.log import HIGHEST_ID

OF_ENDPOINTS = ("due", "busy", "claims", "health", "pending", "delivered", "given_up", "skipped")
"""Kinds of keys that each webhook endpoint has."""

PUBLIC = {"events", "log", "state"}

FIELDS: Mapping[str, Sequence[str]] = {
    "meta": ("birth", "sequence", "last_id", "floor", "floor_sequence", "trimmed", "born_at", "writer"),
    "leader": ("holder", "epoch", "until", "lease", "after"),
    "slots": ("0", "1", "2", "3", "4", "5", "x"),
    "state": ("a", "b", "stranger"),
    "demand": ("front", "webhooks"),
    "batch_digests": ("a", "stranger"),
    "confirmed": ("a", "b", "stranger"),
    "rounds": ("0", "1", "revision"),
    "webhooks": ("position", "partial", "birth", "stamp", "revision", "floor"),
    "webhook_endpoints": ("e", "stranger"),
    "webhook_disabled": ("stranger",),
    "webhook_e_health": (
        "fails",
        "lane",
        "many",
        "open",
        "probe_at",
        "not_before",
        "failing_since",
        "success_at",
        "swept_at",
        "postponed",
        "postponed_since",
    ),
    "webhook_e_claims": ("a", "b"),
}
"""Fields that the bridge reads, by the hashes that have them."""


def private_keys() -> dict[str, str]:
    """Every key by the name of its attribute; `state` and `log` too, which only the bridge may write."""
    given = vars(Keys("bridge"))
    found = {name: key for name, key in given.items() if str(key).startswith("{bridge}:") and "channel" not in name}
    found = {name: key for name, key in found.items() if name not in ("events", "_answer", "_last_answer")}
    return (
        found
        | {"answer": Keys("bridge").answer("b"), "webhook_due": "{bridge}:webhooks:due"}
        | {f"webhook_{kind}": f"{{bridge}}:webhooks:{kind}" for kind in ("ids", "disabled", "changed", "last")}
        | {f"webhook_e_{kind}": f"{{bridge}}:webhooks:{kind}:e" for kind in OF_ENDPOINTS}
        | {"webhook_e_lane": "{bridge}:webhooks:lane:e:a"}
    )


WORDS = [
    "",
    "words",
    "nan",
    "inf",
    "-inf",
    "1e300",
    "-1",
    "0",
    "1",
    "9" * 30,
    HIGHEST_ID,
    "5-5",
    "7.5",
    "[]",
    "{}",
    "null",
    "7",
]
SHAPES = [
    '{"v":2}',
    '{"until":1e999,"cvms":["a"]}',
    '{"until":99999999999999,"cvms":{"a":"many"}}',
    '{"until":1' + "0" * 400 + ',"cvms":{"a":1}}',
    '{"holder":[],"epoch":"x","cvm":{},"since":null,"deadline":-1e999}',
    '{"holder":"h","epoch":1,"cvm":"a","since":1,"deadline":1e300,"closing":7}',
    '{"state":{"status":7},"status":[],"event_id":{}}',
    '{"state":{"status":"running"},"status":"running","since":"x","observed_at":"y","fresh":1,"event_id":"5-0"}',
    '{"cvm_id":7,"status":"x","body":[],"content_type":{}}',
    '{"leader":[],"epoch":"x","budget":{},"polling":[["a"]],"blocked":"no"}',
    "[" * 3000,
]
texts: st.SearchStrategy[str | bytes] = st.one_of(
    st.sampled_from([*WORDS, *SHAPES]),
    st.text(max_size=20).map(lambda text: text.encode("utf-8", "replace")),
    st.binary(max_size=12),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
        max_leaves=6,
    ).map(json.dumps),
)
names = st.one_of(st.sampled_from(["a", "b", "stranger"]), texts)
scores = st.one_of(st.sampled_from([math.inf, -math.inf, 0.0, -1.0, 1e300, 9e14]), st.floats(allow_nan=False))


@dataclass(frozen=True)
class Spoil:
    """What happens to one key: `kind` is the type it gets, or "merge", which adds fields to what the hash has."""

    name: str
    kind: str
    content: Any

    async def apply(self, client: Any, key: str) -> None:
        if self.kind == "blocked":
            await _block(client, key, self.content)
        elif self.kind != "merge":
            await client.delete(key)
            await _WRITES[self.kind](client, key, self.content)
        elif await client.type(key) in ("none", "hash"):
            await client.hset(key, mapping=self.content)


async def _block(client: Any, key: str, text: str | bytes) -> None:
    """An entry with the highest id, where that is possible."""
    if await client.type(key) in ("none", "stream"):
        top = await client.xrevrange(key, count=1)
        if not top or top[0][0] != HIGHEST_ID:
            await client.xadd(key, {"event": text}, id=HIGHEST_ID)


_WRITES: Mapping[str, Callable[[Any, str, Any], Awaitable[object]]] = {
    "string": lambda client, key, content: client.set(key, content),
    "list": lambda client, key, content: client.rpush(key, *content),
    "set": lambda client, key, content: client.sadd(key, *content),
    "hash": lambda client, key, content: client.hset(key, mapping=content),
    "zset": lambda client, key, content: client.zadd(key, content),
    "stream": lambda client, key, content: client.xadd(key, {"event": content}),
}


@st.composite
def spoils(draw: st.DrawFn) -> Spoil:
    name = draw(st.sampled_from(sorted(private_keys())))
    kinds = ["string", "list", "set", "hash", "zset", "stream"]
    if name in FIELDS:
        kinds += ["merge"] * 6
    if name == "log":
        kinds += ["blocked"] * 3
    kind = draw(st.sampled_from(kinds))
    if kind in ("list", "set"):
        return Spoil(name, kind, draw(st.lists(names, min_size=1, max_size=4)))
    if kind == "zset":
        return Spoil(name, kind, draw(st.dictionaries(names, scores, min_size=1, max_size=4)))
    if kind in ("hash", "merge"):
        fields = st.sampled_from(FIELDS[name]) if name in FIELDS else names
        return Spoil(name, kind, draw(st.dictionaries(fields, texts, min_size=1, max_size=5)))
    return Spoil(name, kind, draw(texts))
