"""What a caller may say of an endpoint (contract section 8), checked before anything is looked up."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

from bridge.addresses import MAX_URL
from bridge.events import LOG_TYPES, TRANSITION, usable_id
from bridge.store.endpoints import Format

SECRET_PREFIX = "whsec_"  # noqa: S105 - what every secret begins with
LEAST_KEY, MOST_KEY = 24, 64
"""Bytes of a secret's key, as Standard Webhooks has it."""

MOST_CVMS, MOST_STATUSES, MOST_HEADERS = 1000, 100, 100
MAX_HEADER_VALUE, MAX_HEADERS = 4096, 16 * 1024
"""Characters of one value, and of all names and values: what receivers take without a setting of their own."""

HIDDEN = "***"
"""What stands for a value that is not shown."""

_HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,256}")
_HEADER_VALUE = re.compile(r"(?:[!-~](?:[ -~\t]*[!-~])?)?")

_OURS = frozenset(
    {
        "accept-encoding",
        "connection",
        "content-encoding",
        "content-length",
        "content-type",
        "expect",
        "host",
        "keep-alive",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
_OUR_PREFIXES = ("webhook-", "x-webhook-", "proxy-")


def _url(text: str) -> str:
    if text.endswith(f"?{HIDDEN}"):
        raise ValueError(f"{HIDDEN} stands for a query that is not shown: send the query itself")
    return text


def _reference(text: str) -> str:
    if usable_id(text) is None:
        raise ValueError("a reference has 1 to 256 printable characters")
    return text


def _secret(text: str) -> str:
    try:
        key = base64.b64decode(text.removeprefix(SECRET_PREFIX), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if not text.startswith(SECRET_PREFIX) or not LEAST_KEY <= len(key) <= MOST_KEY:
        raise ValueError(f"it must be {SECRET_PREFIX} and the base64 of {LEAST_KEY} to {MOST_KEY} bytes")
    return text


def _headers(given: Mapping[str, str]) -> Mapping[str, str]:
    """Faults name no value."""
    if len(given) > MOST_HEADERS or sum(map(len, [*given, *given.values()])) > MAX_HEADERS:
        raise ValueError(f"at most {MOST_HEADERS} headers of {MAX_HEADERS} characters altogether")
    if len({name.lower() for name in given}) < len(given):
        raise ValueError("two names differ in upper and lower case alone")
    for name, value in given.items():
        if not _HEADER_NAME.fullmatch(name):
            raise ValueError(f"{name[:40]!a} is no header name")
        if name.lower() in _OURS or name.lower().startswith(_OUR_PREFIXES):
            raise ValueError(f"{name} is the bridge's own to set")
        if value == HIDDEN:
            raise ValueError(f"{HIDDEN} stands for a value that is not shown: send the value of {name} itself")
        if len(value) > MAX_HEADER_VALUE or not _HEADER_VALUE.fullmatch(value):
            raise ValueError(
                f"the value of {name} must be printable ASCII, at most {MAX_HEADER_VALUE} characters of it"
            )
    return given


Url = Annotated[str, StringConstraints(min_length=1, max_length=MAX_URL), AfterValidator(_url)]
Description = Annotated[str, StringConstraints(max_length=1000)]
Reference = Annotated[str, AfterValidator(_reference)]
Status = Annotated[str, StringConstraints(min_length=1, max_length=100)]
Type = Literal[LOG_TYPES]  # type: ignore[valid-type]
Headers = Annotated[dict[str, str], AfterValidator(_headers)]
Secret = Annotated[str, AfterValidator(_secret)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, hide_input_in_errors=True)


class Registration(_Strict):
    """The whole of an endpoint, as `POST` and `PUT` take it. Empty filters mean all."""

    url: Url = Field(repr=False)
    description: Description = ""
    cvms: Annotated[list[Reference], Field(max_length=MOST_CVMS)] = []
    from_: Annotated[list[Status], Field(max_length=MOST_STATUSES, alias="from")] = []
    to: Annotated[list[Status], Field(max_length=MOST_STATUSES)] = []
    types: Annotated[list[Type], Field(max_length=len(LOG_TYPES))] = [TRANSITION]
    format: Format = "standard"
    headers: Headers = Field({}, repr=False)
    secret: Secret | None = Field(None, repr=False)
    enabled: bool = True


class Change(_Strict):
    """Some of it, as `PATCH` takes it: a field that is given replaces the old one, no field may be null."""

    url: Url = Field("", repr=False)
    description: Description = ""
    cvms: Annotated[list[Reference], Field(max_length=MOST_CVMS)] = []
    from_: Annotated[list[Status], Field(max_length=MOST_STATUSES, alias="from")] = []
    to: Annotated[list[Status], Field(max_length=MOST_STATUSES)] = []
    types: Annotated[list[Type], Field(max_length=len(LOG_TYPES))] = [TRANSITION]
    format: Format = "standard"
    headers: Headers = Field({}, repr=False)
    enabled: bool = True


class Rotation(_Strict):
    """`POST …/rotate-secret`; without a secret one is made."""

    secret: Secret | None = Field(None, repr=False)


class Period(_Strict):
    """`POST …/recover`: RFC 3339 times; without `until` up to now."""

    since: str
    until: str | None = None


class Nothing(_Strict):
    """A body without fields, or none."""
