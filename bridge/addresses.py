"""Which addresses and URLs a webhook may reach (`docs/contract.md#webhooks`).

An address must be public, or an operator named it in BRIDGE_WEBHOOK_ALLOW; all others are refused in every spelling.
The standard library's `is_global` does not suffice: it differs between versions of Python, and calls 6to4, NAT64 and
IPv4-compatible forms of private addresses global.
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from urllib.parse import SplitResult, urlsplit

from bridge.config_values import Allowlist

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Resolve = Callable[[str, int], Awaitable[Sequence[str]]]
"""Resolves a host name and a port to the present addresses. Raises OSError if there are none."""

MAX_URL = 2048
"""Characters; what servers and proxies commonly take."""

HIDDEN_PATH = "…"
"""Replaces the path and the query of a URL."""

RESOLVE_SECONDS = 5.0
"""How long a name may take at registration; an attempt has its own deadline."""

_CLOSED_V4 = tuple(
    ipaddress.IPv4Network(text)
    for text in (
        "0.0.0.0/8",  # this host, this network
        "10.0.0.0/8",
        "100.64.0.0/10",  # carrier-grade NAT; one cloud keeps its metadata there
        "127.0.0.0/8",
        "168.63.129.16/32",  # a cloud's host agent and metadata, looking public
        "169.254.0.0/16",  # link-local, and most clouds' metadata
        "172.16.0.0/12",
        "192.0.0.0/24",  # protocol assignments, another cloud's metadata
        "192.0.2.0/24",  # documentation
        "192.31.196.0/24",  # AS112
        "192.52.193.0/24",  # AMT
        "192.88.99.0/24",  # 6to4 relays
        "192.168.0.0/16",
        "192.175.48.0/24",  # AS112
        "198.18.0.0/15",  # benchmarks
        "198.51.100.0/24",  # documentation
        "203.0.113.0/24",  # documentation
        "224.0.0.0/3",  # multicast, reserved, broadcast
    )
)

_OPEN_V6 = ipaddress.IPv6Network("2000::/3")
"""All of global unicast. Outside of it are loopback, IPv4-mapped and -compatible, unique-local (one cloud's metadata
among it), link- and site-local, multicast, NAT64 with a prefix of its own (64:ff9b:1::/48)."""

_CLOSED_V6 = tuple(
    ipaddress.IPv6Network(text)
    for text in (
        "2001::/23",  # protocol assignments: Teredo, benchmarks, ORCHID
        "2001:db8::/32",  # documentation
        "2002::/16",  # 6to4: an IPv4 address in disguise
        "2620:4f:8000::/48",  # AS112
        "3fff::/20",  # documentation
    )
)

_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
"""What a DNS64 resolver makes of every IPv4 address, on networks that have IPv6 alone: as public as that one."""

_HOST_NAME = re.compile(
    r"(?=.{1,253}\Z)(?:[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?\.)*[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
)
_NETLOC = re.compile(r"(?:\[[0-9A-Za-z:.%]+\]|[A-Za-z0-9._-]+)(?::[0-9]{1,5})?")
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")


class UrlRefusedError(ValueError):
    """A webhook must not go there. `word` is `dns`, `refused_address` or `refused_url`; `reason` is a sentence that
    quotes neither the URL nor an address.
    """

    def __init__(self, word: str, reason: str) -> None:
        super().__init__(reason)
        self.word = word
        self.reason = reason


_NOT_PUBLIC = "the host's address is not public, and BRIDGE_WEBHOOK_ALLOW does not open it"


@lru_cache(4096)
def is_loopback(host: str) -> bool:
    """Whether it is an address of this machine alone, or a name that no DNS server can give another address."""
    name = host.rstrip(".").lower()
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return name == "localhost" or name.endswith(".localhost")


def is_public(address: str | Address) -> bool:
    """Whether the address leads to the same host everywhere on the internet. False for text that is not an address."""
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return False
    if isinstance(ip, ipaddress.IPv4Address):
        return not any(ip in network for network in _CLOSED_V4)
    if ip.scope_id is not None:  # a zone has a meaning on one machine alone
        return False
    if ip in _NAT64:
        return is_public(ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF))
    return ip in _OPEN_V6 and not any(ip in network for network in _CLOSED_V6)


def is_permitted(address: str, allow: Allowlist, *, host: str = "") -> bool:
    """Whether it is public, or `allow` opens it or the `host` name that led to it."""
    if host.lower().rstrip(".") in allow.hosts or is_public(address):
        return True
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return False
    return any(ip.version == network.version and ip in network for network in allow.networks)


def with_loopback(allow: Allowlist) -> Allowlist:
    """`allow` and this machine itself, as `bridge up` has it."""
    own = ipaddress.ip_network("127.0.0.0/8"), ipaddress.ip_network("::1/128")
    networks = [network for network in own if network not in allow.networks]
    return Allowlist((*allow.networks, *networks), allow.hosts | {"localhost"})


@dataclass(frozen=True, slots=True)
class Target:
    """Where a URL leads. `host` is lower-case and without brackets; `literal`: it is an address already."""

    host: str
    port: int
    literal: bool


def without_path(url: str) -> str:
    """The URL as anybody who may read sees it: its path and its query may be secrets, as those of chat hooks are."""
    scheme, _, place = url.partition("://")
    host, *hidden = re.split("[/?]", place, maxsplit=1)
    return f"{scheme}://{host}/{HIDDEN_PATH}" if any(hidden) else url


@lru_cache(4096)
def parse_url(url: str) -> Target:
    """Raises UrlRefusedError for anything but a plain http(s) URL, and for hidden addresses. Asks no resolver."""
    parts = _split(url)
    if parts.scheme not in ("http", "https"):
        raise UrlRefusedError("refused_url", "its scheme must be http or https")
    if "@" in parts.netloc:
        raise UrlRefusedError("refused_url", "it must have no user name or password: headers can carry one")
    if "#" in url:
        raise UrlRefusedError("refused_url", "it must have no fragment (#…), which is never sent")
    return _target(parts)


def _split(url: str) -> SplitResult:
    """Accepts only URLs that every parser reads alike. Raises UrlRefusedError."""
    if len(url) > MAX_URL:
        raise UrlRefusedError("refused_url", f"it has more than {MAX_URL} characters")
    if not re.fullmatch(r"[!-~]+", url) or re.search(r'[\\<>"^`{|}]', url):
        raise UrlRefusedError("refused_url", "it has characters that must be %-encoded (in a host name: xn--…)")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise UrlRefusedError("refused_url", "it is not a URL") from None
    if (
        not parts.hostname
        or port == 0
        or not _NETLOC.fullmatch(parts.netloc.rpartition("@")[2])
        or not url.lower().startswith(f"{parts.scheme}://")
    ):
        raise UrlRefusedError("refused_url", "it is not a URL of the form https://host/path")
    return parts


def _target(parts: SplitResult) -> Target:
    host = (parts.hostname or "").lower()
    port = parts.port or (443 if parts.scheme == "https" else 80)
    if "[" in parts.netloc:
        return Target(_ipv6(host), port, literal=True)
    if _NUMBER.fullmatch(host.rstrip(".").rpartition(".")[2]):
        return Target(_ipv4(host), port, literal=True)
    if not _HOST_NAME.fullmatch(host):
        raise UrlRefusedError("refused_url", "its host is neither a name nor an address")
    return Target(host, port, literal=False)


def _ipv4(host: str) -> str:
    """As browsers have it: a host whose last part is a number is an address, in one of many spellings."""
    try:
        return str(ipaddress.IPv4Address(host))
    except ValueError:
        reason = "its host is an address in disguise: write four decimal numbers"
        raise UrlRefusedError("refused_address", reason) from None


def _ipv6(host: str) -> str:
    try:
        ip = ipaddress.IPv6Address(host)
    except ValueError:
        raise UrlRefusedError("refused_url", "its host is neither a name nor an address") from None
    if ip.scope_id is not None or _hides_ipv4(ip):
        raise UrlRefusedError("refused_address", "its host is an address in disguise: write the IPv4 address itself")
    return str(ip)


def _hides_ipv4(ip: ipaddress.IPv6Address) -> bool:
    compatible = 1 < int(ip) < 1 << 32
    nat64 = ip in _NAT64 or ip in ipaddress.IPv6Network("64:ff9b:1::/48")
    return compatible or nat64 or any(form is not None for form in (ip.ipv4_mapped, ip.sixtofour, ip.teredo))


def check_addresses(host: str, addresses: Iterable[str], allow: Allowlist) -> None:
    """Raises UrlRefusedError unless there is at least one, and each is permitted."""
    found = list(addresses)
    if not found:
        raise UrlRefusedError("dns", "the host name does not resolve")
    if not all(is_permitted(address, allow, host=host) for address in found):
        raise UrlRefusedError("refused_address", _NOT_PUBLIC)


async def check_url(url: str, allow: Allowlist, resolve: Resolve) -> None:
    """Raises UrlRefusedError unless it is a plain URL all of whose addresses may be reached now."""
    target = parse_url(url)
    if target.literal:
        check_addresses("", [target.host], allow)
        return
    try:
        async with asyncio.timeout(RESOLVE_SECONDS):
            addresses = await resolve(target.host, target.port)
    except (OSError, TimeoutError):
        addresses = ()
    check_addresses(target.host, addresses, allow)
