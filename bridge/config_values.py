"""The texts that settings hold, taken apart: lists, tokens, URLs, networks.

Each parser raises ValueError with words that complete an error line and never quote a secret.
"""

from __future__ import annotations

import base64
import binascii
import ipaddress
import math
import re
from dataclasses import dataclass, field
from typing import Literal, cast, get_args
from urllib.parse import SplitResult, urlsplit

from pydantic import SecretStr

from bridge import reference_sets
from bridge.redis_url import parse_redis_url
from bridge.reference_sets import ReferenceSet

Scope = Literal["read", "admin"]
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

#: Waits between webhook attempts: more than 100, or longer than 30 days, are taken for a mistake.
MAX_WAITS, MAX_WAIT_SECONDS = 100, 30 * 86_400

#: Requests a second to upstream, to begin with and at most.
DEFAULT_PACE = (20.0, 100.0)

#: The same: more are taken for a mistake.
MOST_PACE = 1000

_LABEL = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_HOST_NAME = re.compile(rf"(?:{_LABEL}\.)*(?!\d+$){_LABEL}")
_URL_PASSWORD = re.compile(r"(?<=://)([^/@\s]*?):([^/\s]*)@")
_QUERY_PASSWORD = re.compile(r"(?<=password)=[^&\s]*")


@dataclass(frozen=True)
class Token:
    """One caller. An empty `cvms` means every CVM."""

    name: str
    secret: SecretStr
    scope: Scope
    cvms: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Allowlist:
    """Places outside the public internet that webhooks may reach; host names are lower-case, without a closing dot."""

    networks: tuple[Network, ...] = ()
    hosts: frozenset[str] = field(default_factory=frozenset)


def quoted(value: object) -> str:
    """A value fit for one line of an error."""
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "…" + text[0]


def header_safe(text: str) -> str:
    """A secret that a header can carry: any other would fail later, at the first request."""
    if not re.fullmatch(r"[!-~]+", text.strip()):
        raise ValueError("it contains other characters")
    return text.strip()


def api_prefix(text: str) -> str:
    """Without a closing slash, because paths are appended to it."""
    parts = _split(text.strip())
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("it is not such a URL")
    if parts.username is not None or parts.query or parts.fragment:
        raise ValueError("it has more than a scheme, a host and a path")
    return text.strip().rstrip("/")


def _split(url: str) -> SplitResult:
    """`urlsplit` whose errors never quote the URL, which may contain a password."""
    try:
        parts = urlsplit(url)
        _ = parts.port if "," not in parts.netloc else None
    except ValueError:
        raise ValueError("it is not a URL") from None
    return parts


def redis_url(text: str) -> str:
    """Checks the form; the text stays as it is."""
    parse_redis_url(text)
    return text.strip()


def _items(text: str) -> list[str]:
    """The parts of a comma-separated list in order, each once, without blanks around them and without empty ones."""
    return list(dict.fromkeys(part for part in (raw.strip() for raw in text.split(",")) if part))


def references(text: str) -> tuple[str, ...]:
    """CVM references, which contain no control characters and no slashes, as `reference_sets` spells them."""
    found = []
    for item in _items(text):
        if not item.isprintable() or "/" in item:
            raise ValueError(f"{quoted(item)} is not a CVM reference")
        found.append(reference_sets.parse(item).text)
    return tuple(dict.fromkeys(found))


def tokens(text: str) -> tuple[Token, ...]:
    """Errors give an entry's number, never its text: any part of a malformed entry may be the secret."""
    found = [_token(number, entry) for number, entry in enumerate(text.split(), 1)]
    if len({token.name for token in found}) < len(found):
        raise ValueError("two entries have the same name")
    if len({token.secret.get_secret_value() for token in found}) < len(found):
        raise ValueError("two entries have the same secret")
    return tuple(found)


def _token(number: int, text: str) -> Token:
    parts = text.split(":", 3)
    if len(parts) < 3 or not re.fullmatch(r"[A-Za-z0-9._-]{1,64}", parts[0]) or not re.fullmatch(r"[!-~]+", parts[1]):
        raise ValueError(f"entry {number} is not name:secret:scope")
    cvms = _token_cvms(number, parts[3]) if len(parts) == 4 else frozenset()
    if parts[2] not in get_args(Scope):
        raise ValueError(f"the scope of entry {number} is neither read nor admin")
    return Token(parts[0], SecretStr(parts[1]), cast(Scope, parts[2]), cvms)


def _token_cvms(number: int, text: str) -> frozenset[str]:
    """An empty list would stand for every CVM, but a colon announces a limit."""
    cvms = text.split(",")
    if not all(cvms) or "*" in cvms:
        raise ValueError(f"the CVMs of entry {number} are malformed (for every CVM leave them and their colon out)")
    try:
        return ReferenceSet.parsed(cvms).texts
    except ValueError as error:
        raise ValueError(f"a CVM of entry {number} is malformed: {error}") from None


def waits(text: str) -> tuple[float, ...]:
    """Waits between attempts, in seconds."""
    try:
        found = tuple(float(part) for part in text.split(","))
    except ValueError:
        raise ValueError("a part of it is not a number") from None
    if len(found) > MAX_WAITS or not all(math.isfinite(wait) and 0 <= wait <= MAX_WAIT_SECONDS for wait in found):
        raise ValueError("a wait is out of bounds" if len(found) <= MAX_WAITS else "it has too many waits")
    return found


def pace(text: str) -> tuple[float, ...]:
    """Requests a second, at first and at most."""
    try:
        found = tuple(float(part) for part in text.split(","))
    except ValueError:
        raise ValueError("a part of it is not a number") from None
    if len(found) not in (1, 2) or not all(MOST_PACE >= each >= 1 for each in found) or found[0] > found[-1]:
        raise ValueError("it is out of bounds")
    return found


def allowlist(text: str) -> Allowlist:
    """A plain address is a network of one."""
    networks: list[Network] = []
    hosts: set[str] = set()
    for part in _items(text):
        try:
            networks.append(ipaddress.ip_network(part))
        except ValueError:
            hosts.add(_host_name(part))
    return Allowlist(tuple(networks), frozenset(hosts))


def _host_name(part: str) -> str:
    name = part.lower().removesuffix(".")
    if "/" in part and ":" not in part.rpartition("/")[2]:
        raise ValueError(f"{quoted(part)} is not a network (are bits set beyond its mask?)")
    if len(name) > 253 or not _HOST_NAME.fullmatch(name):
        raise ValueError(f"{quoted(part)} is neither a network nor a host name")
    return name


def fernet_keys(text: str) -> tuple[SecretStr, ...]:
    """32 bytes each, in URL-safe base64."""
    keys = _items(text)
    for number, key in enumerate(keys, 1):
        if not _is_fernet_key(key):
            raise ValueError(f"key {number} is not a Fernet key")
    return tuple(SecretStr(key) for key in keys)


def _is_fernet_key(key: str) -> bool:
    try:
        return len(base64.b64decode(key.encode("ascii"), altchars=b"-_", validate=True)) == 32
    except (UnicodeEncodeError, binascii.Error):
        return False


def origins(text: str) -> tuple[str, ...]:
    """Origins as browsers send them: lower-case, no path."""
    found = [part.lower().removesuffix("/") for part in _items(text)]
    for origin in found:
        parts = _split(origin)
        if origin != "*" and (not parts.scheme or not parts.hostname or origin != f"{parts.scheme}://{parts.netloc}"):
            raise ValueError(f"{quoted(origin)} is not an origin")
    return tuple(found)


def masked_url(url: str) -> str:
    """The URL without its passwords."""
    place, mark, query = url.partition("?")
    return _URL_PASSWORD.sub(r"\1:***@", f"{place}{mark}{_QUERY_PASSWORD.sub('=***', query)}")


def shown(value: object) -> str:
    """A setting's value as text for people: a secret is ***, an unset value the empty text."""
    match value:
        case None:
            return ""
        case bool():
            return "on" if value else "off"
        case SecretStr():
            return "***"
        case Token():
            return ":".join([value.name, "***", value.scope, *([",".join(sorted(value.cvms))] if value.cvms else [])])
        case Allowlist():
            return ",".join([*map(str, value.networks), *sorted(value.hosts)])
        case tuple():
            return (" " if value and isinstance(value[0], Token) else ",").join(map(shown, value))
        case float():
            return f"{value:g}" if value < 1e6 else f"{value:.0f}"
        case str():
            return masked_url(value)
    return str(value)
