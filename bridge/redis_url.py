"""REDIS_URL taken apart (docs/contract.md#environment). The store connects with the parts."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from urllib.parse import parse_qs, unquote

SCHEMES = ("redis", "rediss", "unix", "redis+sentinel", "redis+cluster")

_HOST_PORT = re.compile(r"(\[[0-9A-Fa-f:.%]+\]|[A-Za-z0-9._-]+)(?::(\d{1,5}))?")


@dataclass(frozen=True, kw_only=True)
class RedisUrl:
    """The parts of a URL. `hosts` is empty for a socket; `master` and `sentinel_password` belong to Sentinel."""

    scheme: str
    hosts: tuple[tuple[str, int], ...]
    username: str = ""
    password: str = field(default="", repr=False)
    database: int = 0
    master: str = ""
    sentinel_password: str = field(default="", repr=False)


def parse_redis_url(text: str) -> RedisUrl:
    """Raises ValueError with words that complete an error line and quote no part of the URL."""
    scheme, separator, rest = text.strip().partition("://")
    if not separator or scheme not in SCHEMES:
        raise ValueError("its scheme is not one of these")
    place, _, query = rest.partition("?")
    location, _, path = place.partition("/")
    if scheme == "unix":
        if not path:
            raise ValueError("the path of the socket is missing")
        return RedisUrl(scheme=scheme, hosts=())
    credentials, _, hosts = location.rpartition("@")
    username, _, password = credentials.partition(":")
    master, _, database = path.partition("/") if scheme == "redis+sentinel" else ("", "", path)
    if scheme == "redis+sentinel" and not master:
        raise ValueError("the name of the master is missing")
    return RedisUrl(
        scheme=scheme,
        hosts=_hosts(hosts.split(","), scheme),
        username=unquote(username),
        password=unquote(password),
        database=0 if scheme == "redis+cluster" else _database(database),
        master=master,
        sentinel_password=parse_qs(query).get("sentinel_password", [""])[-1],
    )


def _hosts(texts: list[str], scheme: str) -> tuple[tuple[str, int], ...]:
    if len(texts) > 1 and "+" not in scheme:
        raise ValueError("it names more than one host")
    found = []
    for text in texts:
        match = _HOST_PORT.fullmatch(text)
        port = int(match[2] or (26379 if scheme == "redis+sentinel" else 6379)) if match else 0
        if match is None or port not in range(1, 65536):
            raise ValueError("a host or a port in it is malformed (special characters in a password: %-encode them)")
        found.append((match[1].strip("[]"), port))
    return tuple(found)


def _database(text: str) -> int:
    number = text.removesuffix("/")
    if number and not number.isdecimal():
        raise ValueError("its path is not a database number")
    return int(number or 0)
