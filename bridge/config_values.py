"""The texts that settings hold, taken apart: lists, tokens, URLs, networks.

Each function takes the text of a variable (anything else passes unchanged: it is typed already) and raises
ValueError with words that complete an error line and never quote a secret.
"""

from __future__ import annotations

import base64
import binascii
import ipaddress
import math
import re
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import SplitResult, urlsplit

from pydantic import SecretStr

Scope = Literal["read", "admin"]
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

#: Waits between webhook attempts: more than 100 or longer than 30 days is a slip of the pen, not a schedule.
MAX_WAITS, MAX_WAIT_SECONDS = 100, 30 * 86_400

_LABEL = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_HOST_NAME = re.compile(rf"(?:{_LABEL}\.)*(?!\d+$){_LABEL}")
_HOST_PORT = re.compile(r"(?:\[[0-9A-Fa-f:.%]+\]|[A-Za-z0-9._-]+)(?::(\d{1,5}))?")
_URL_PASSWORD = re.compile(r"(?<=://)([^/@\s]*?):([^/\s]*)@")
_QUERY_PASSWORD = re.compile(r"(?<=[?&])((?:\w*_)?password)=[^&\s]*")


@dataclass(frozen=True)
class Token:
    """One caller. An empty `cvms` means every CVM."""

    name: str
    secret: SecretStr
    scope: Scope
    cvms: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Allowlist:
    """Where webhooks may go although it is not public; host names are lower-case, without a closing dot."""

    networks: tuple[Network, ...] = ()
    hosts: frozenset[str] = field(default_factory=frozenset)


def quoted(value: object) -> str:
    """A value fit for one line of an error."""
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "…" + text[0]


def header_safe(value: object) -> object:
    """A secret that is sent in a header: anything else would fail later, at the first request."""
    if isinstance(value, str) and not re.fullmatch(r"[!-~]+", value.strip()):
        raise ValueError("it holds other characters")
    return value.strip() if isinstance(value, str) else value


def api_prefix(value: object) -> object:
    """Without closing slash, as paths are appended to it."""
    if not isinstance(value, str):
        return value
    parts = _split(value.strip())
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("it is no such URL")
    if parts.username is not None or parts.query or parts.fragment:
        raise ValueError("it has more than scheme, host and path")
    return value.strip().rstrip("/")


def _split(url: str) -> SplitResult:
    """`urlsplit` whose faults never quote the URL, which may hold a password."""
    try:
        parts = urlsplit(url)
        _ = parts.port if "," not in parts.netloc else None
    except ValueError:
        raise ValueError("it is no URL") from None
    return parts


def redis_url(value: object) -> object:
    """Checks the form; what the parts mean is the store's business."""
    if not isinstance(value, str):
        return value
    scheme, colon, rest = value.strip().partition("://")
    if not colon or scheme not in ("redis", "rediss", "unix", "redis+sentinel", "redis+cluster"):
        raise ValueError("its scheme is none of these")
    location, _, path = rest.partition("?")[0].partition("/")
    hosts = location.rpartition("@")[2]
    if scheme == "unix":
        if not path:
            raise ValueError("the path of the socket is missing")
        return value.strip()
    _check_hosts(hosts.split(","), many="+" in scheme)
    _check_path(scheme, path)
    return value.strip()


def _check_hosts(hosts: list[str], *, many: bool) -> None:
    if len(hosts) > 1 and not many:
        raise ValueError("it names more than one host")
    for host in hosts:
        match = _HOST_PORT.fullmatch(host)
        if match is None or int(match[1] or 1) not in range(1, 65536):
            raise ValueError("a host or a port in it is malformed (special characters in a password: %-encode them)")


def _check_path(scheme: str, path: str) -> None:
    if scheme == "redis+sentinel" and not path.partition("/")[0]:
        raise ValueError("the name of the master is missing")
    if scheme in ("redis", "rediss") and path and not path.isdecimal():
        raise ValueError("its path is no database number")


def _items(text: str) -> list[str]:
    """The parts of a comma-separated list, blanks around them and empty ones dropped, each once, in order."""
    return list(dict.fromkeys(part for part in (raw.strip() for raw in text.split(",")) if part))


def references(value: object) -> object:
    """CVM references; control characters and slashes can be in none."""
    if not isinstance(value, str):
        return value
    found = _items(value)
    for reference in found:
        if not reference.isprintable() or "/" in reference:
            raise ValueError(f"{quoted(reference)} is no CVM reference")
    return tuple(found)


def tokens(value: object) -> object:
    """Faults name an entry's place, never its text: any part of a malformed one may be the secret."""
    if not isinstance(value, str):
        return value
    found = [_token(number, text) for number, text in enumerate(value.split(), 1)]
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
    return Token(parts[0], SecretStr(parts[1]), _scope(number, parts[2]), cvms)


def _scope(number: int, text: str) -> Scope:
    match text:
        case "read" | "admin":
            return text
    raise ValueError(f"the scope of entry {number} is neither read nor admin")


def _token_cvms(number: int, text: str) -> frozenset[str]:
    """An empty list would mean every CVM: whoever wrote a colon meant fewer."""
    cvms = text.split(",")
    if not all(cvms) or "*" in cvms:
        raise ValueError(f"the CVMs of entry {number} are malformed (for every CVM leave them and their colon out)")
    return frozenset(cvms)


def waits(value: object) -> object:
    """Waits between attempts, in seconds."""
    if not isinstance(value, str):
        return value
    try:
        found = tuple(float(part) for part in value.split(","))
    except ValueError:
        raise ValueError("not all of it are numbers") from None
    if len(found) > MAX_WAITS or not all(math.isfinite(wait) and 0 <= wait <= MAX_WAIT_SECONDS for wait in found):
        raise ValueError("a wait is out of bounds" if len(found) <= MAX_WAITS else "it has too many")
    return found


def allowlist(value: object) -> object:
    """A plain address is a network of one."""
    if not isinstance(value, str):
        return value
    networks: list[Network] = []
    hosts: set[str] = set()
    for part in _items(value):
        try:
            networks.append(ipaddress.ip_network(part))
        except ValueError:
            hosts.add(_host_name(part))
    return Allowlist(tuple(networks), frozenset(hosts))


def _host_name(part: str) -> str:
    name = part.lower().removesuffix(".")
    if "/" in part and ":" not in part.rpartition("/")[2]:
        raise ValueError(f"{quoted(part)} is no network (are bits set behind its mask?)")
    if len(name) > 253 or not _HOST_NAME.fullmatch(name):
        raise ValueError(f"{quoted(part)} is neither a network nor a host name")
    return name


def fernet_keys(value: object) -> object:
    """32 bytes each, in URL-safe base64."""
    if not isinstance(value, str):
        return value
    keys = _items(value)
    for number, key in enumerate(keys, 1):
        if not _is_fernet_key(key):
            raise ValueError(f"key {number} is none")
    return tuple(SecretStr(key) for key in keys)


def _is_fernet_key(key: str) -> bool:
    try:
        return len(base64.b64decode(key.encode("ascii"), altchars=b"-_", validate=True)) == 32
    except (UnicodeEncodeError, binascii.Error):
        return False


def origins(value: object) -> object:
    """Origins as browsers send them: lower-case, no path."""
    if not isinstance(value, str):
        return value
    found = [part.lower().removesuffix("/") for part in _items(value)]
    for origin in found:
        parts = _split(origin)
        if origin != "*" and (not parts.scheme or not parts.hostname or origin != f"{parts.scheme}://{parts.netloc}"):
            raise ValueError(f"{quoted(origin)} is no origin")
    return tuple(found)


def masked_url(url: str) -> str:
    """The URL without its passwords."""
    return _QUERY_PASSWORD.sub(r"\1=***", _URL_PASSWORD.sub(r"\1:***@", url))


def shown(value: object) -> str:
    """A setting's value as text for people: secrets as ***, unset as nothing."""
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
