"""REDIS_URL, taken apart by redis-py (docs/contract.md#redis-urls). What redis-py would overlook is refused."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, unquote

from redis.asyncio.connection import parse_url

_SCHEMES = ("redis", "rediss", "unix", "redis+sentinel", "rediss+sentinel", "redis+cluster", "rediss+cluster")

#: What a query may hold. redis-py takes more options, some of which would break the bridge.
_OPTIONS = ("db", "username", "password")
_SENTINEL_OPTIONS = ("sentinel_username", "sentinel_password")
_TLS_OPTIONS = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile", "ssl_cert_reqs", "ssl_check_hostname")

_ENCODE = " (special characters in a password: %-encode them)"


@dataclass(frozen=True, kw_only=True)
class RedisUrl:
    """The parts of a URL. `kind` is `sentinel`, `cluster` or empty; the options are arguments of redis-py's clients."""

    kind: str
    hosts: tuple[tuple[str, int], ...]
    master: str
    options: dict[str, Any] = field(repr=False)
    sentinel_options: dict[str, Any] = field(repr=False)


def parse_redis_url(text: str) -> RedisUrl:
    """Raises ValueError with words that complete an error line and quote no part of the URL."""
    scheme, _, rest = text.strip().partition("://")
    if scheme not in _SCHEMES:
        raise ValueError("its scheme is not one of these")
    if re.search(r"[\s#]", rest):
        raise ValueError(f"it contains a blank or a #{_ENCODE}")
    base, _, kind = scheme.partition("+")
    place, _, query = rest.partition("?")
    location, _, path = place.partition("/")
    credentials, at, hosts = location.rpartition("@")
    master, _, path = path.partition("/") if kind == "sentinel" else ("", "", path)
    _check_query(base, kind, query)
    _check_path(scheme, hosts, master, path)
    try:
        nodes: list[dict[str, Any]] = [
            dict(parse_url(f"{base}://{credentials}{at}{host}/{path}?{query}")) for host in hosts.split(",")
        ]
    except ValueError:
        raise ValueError(f"a host, a port or an option in it is malformed{_ENCODE}") from None
    if base != "unix" and not all("host" in node for node in nodes):
        raise ValueError("a host in it is missing")
    if kind == "cluster" and nodes[0].get("db"):
        raise ValueError("a cluster has no database but 0")
    tls = {"ssl": True, **_chosen(nodes[0], _TLS_OPTIONS)} if base == "rediss" else {}
    guards = _chosen(nodes[0], _SENTINEL_OPTIONS)
    port = 26379 if kind == "sentinel" else 6379
    return RedisUrl(
        kind=kind,
        hosts=tuple((node["host"], node.get("port", port)) for node in nodes if base != "unix"),
        master=unquote(master),
        options={**_chosen(nodes[0], _OPTIONS), **tls},
        sentinel_options={**{name.removeprefix("sentinel_"): value for name, value in guards.items()}, **tls},
    )


def _check_query(base: str, kind: str, query: str) -> None:
    names = {name for name, _ in parse_qsl(query, keep_blank_values=True)}
    if base != "rediss" and any(name.lower().startswith(("ssl", "tls")) for name in names):
        raise ValueError("its query asks for TLS, which needs a scheme that begins with rediss")
    known = [*_OPTIONS, *(_SENTINEL_OPTIONS if kind == "sentinel" else ()), *(_TLS_OPTIONS if base == "rediss" else ())]
    if not names.issubset(known):
        raise ValueError(f"its query may have {', '.join(known)}, and has something else{_ENCODE}")


def _check_path(scheme: str, hosts: str, master: str, path: str) -> None:
    if scheme == "unix" and (hosts or not path):
        raise ValueError("the path of the socket is missing, or does not begin with a slash")
    if "+" not in scheme and "," in hosts:
        raise ValueError("it names more than one host")
    if scheme.endswith("sentinel") and not master:
        raise ValueError("the name of the master is missing")
    if scheme != "unix" and not re.fullmatch(r"\d*/?", path):
        raise ValueError("its path is not a database number")


def _chosen(options: dict[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    return {name: options[name] for name in names if name in options}
