"""Request bodies of the webhook routes (`docs/contract.md#webhooks`), checked before anything is looked up.

Their bounds stand here alone: the document shows these models.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, WithJsonSchema

from bridge.addresses import HIDDEN_PATH, MAX_URL
from bridge.events import TRANSITION, is_log_type
from bridge.reference_sets import parse
from bridge.store.limits import LaneLimits
from bridge.web.http.parameters import LOG_TYPE, LOG_TYPE_NAMES, check_patterns
from bridge.web.http.responses import time_field
from bridge.webhook_formats import KEY_PAIR_FORMATS, Format, Signature

SECRET_PREFIX = "whsec_"  # noqa: S105 - what every secret begins with
LEAST_KEY, MOST_KEY = 24, 64
"""Bytes of a secret's key, as Standard Webhooks defines it."""

OVERLAP_SECONDS, MOST_OVERLAP = 86_400, 30 * 86_400
"""Seconds for which a replaced secret still signs: unless told otherwise, and at most."""

MOST_CVMS, MOST_STATUSES, MOST_TYPES, MOST_HEADERS = 1000, 100, 100, 100
MAX_HEADER_VALUE, MAX_HEADERS = 4096, 16 * 1024
"""Characters of one value, and of all names and values: receivers accept this much by default."""

MOST_AT_ONCE = LaneLimits().concurrency
LEAST_RATE, MOST_RATE = 0.01, 1000.0

HIDDEN = "***"
"""Replaces a value that is not shown."""

_HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,256}")
_HEADER_VALUE = re.compile(r"(?:[!-~](?:[ -~\t]*[!-~])?)?")

_OURS = re.compile(
    r"accept-encoding|connection|content-(encoding|length|type)|expect|host|keep-alive|te|trailer|transfer-encoding"
    r"|upgrade|(x-)?webhook-.*|proxy-.*|bridge-replay"
)


def _url(text: str) -> str:
    if text.endswith(f"/{HIDDEN_PATH}"):
        raise ValueError(f"{HIDDEN_PATH} stands for a path that is not shown: send the path itself")
    if text.endswith(f"?{HIDDEN}"):
        raise ValueError(f"{HIDDEN} stands for a query that is not shown: send the query itself")
    return text


def _reference(text: str) -> str:
    """In the spelling in which it is stored. Raises ValueError."""
    return parse(text).text


def _few_patterns(given: list[str]) -> list[str]:
    check_patterns(map(parse, given))
    return given


def _type(text: str) -> str:
    if not is_log_type(text):
        raise ValueError(LOG_TYPE_NAMES)
    return text


def _secret(text: str) -> str:
    try:
        key = base64.b64decode(text.removeprefix(SECRET_PREFIX), validate=True)
    except ValueError:
        key = b""
    if not text.startswith(SECRET_PREFIX) or not LEAST_KEY <= len(key) <= MOST_KEY:
        raise ValueError(f"it must be {SECRET_PREFIX} and the base64 of {LEAST_KEY} to {MOST_KEY} bytes")
    return text


def _headers(given: Mapping[str, str]) -> Mapping[str, str]:
    """Raises ValueError; its text never contains a value."""
    if len(given) > MOST_HEADERS or sum(map(len, [*given, *given.values()])) > MAX_HEADERS:
        raise ValueError(f"at most {MOST_HEADERS} headers of {MAX_HEADERS} characters altogether")
    if len({name.lower() for name in given}) < len(given):
        raise ValueError("two names differ only in upper and lower case")
    for name, value in given.items():
        if not _HEADER_NAME.fullmatch(name):
            raise ValueError(f"{name[:40]!a} is not a header name")
        if _OURS.fullmatch(name.lower()):
            raise ValueError(f"{name} is set by the bridge itself")
        if value == HIDDEN:
            raise ValueError(f"{HIDDEN} stands for a value that is not shown: send the value of {name} itself")
        if len(value) > MAX_HEADER_VALUE or not _HEADER_VALUE.fullmatch(value):
            raise ValueError(
                f"the value of {name} must be printable ASCII, at most {MAX_HEADER_VALUE} characters of it"
            )
    return given


Type = Annotated[str, AfterValidator(_type), WithJsonSchema(LOG_TYPE)]
Reference = Annotated[str, AfterValidator(_reference)]
Status = Annotated[str, StringConstraints(min_length=1, max_length=100)]

Url = Annotated[
    str,
    StringConstraints(min_length=1, max_length=MAX_URL),
    AfterValidator(_url),
    Field(
        description="Where to deliver: a public address, unless `BRIDGE_WEBHOOK_ALLOW` permits another",
        json_schema_extra={"format": "uri"},
    ),
]
Secret = Annotated[
    Annotated[str, AfterValidator(_secret)] | None,
    Field(
        description=f"`{SECRET_PREFIX}` and the base64 of {LEAST_KEY} to {MOST_KEY} bytes; "
        "without it the bridge makes one"
    ),
]


def _example(body: dict[str, Any]) -> ConfigDict:
    return ConfigDict(json_schema_extra={"examples": [body]})


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, hide_input_in_errors=True, defer_build=True)


TYPES_DESCRIBED = "Event types; empty: all but `endpoint.*` and `delivery.given_up`, which must be named"


class EndpointChange(_Strict):
    """Some fields of an endpoint, as `PATCH` takes them: a given field replaces the old one.

    Only `ready`, `rate` and `concurrency` may be null.
    """

    model_config = _example({"enabled": False})

    url: Url = Field("", repr=False)
    description: str = Field("", max_length=1000, description="Your own description")
    cvms: Annotated[list[Reference], AfterValidator(_few_patterns)] = Field(
        [], max_length=MOST_CVMS, description="CVM references, also `app_…`, `name:web-*` and `*`; empty: all"
    )
    from_: list[Status] = Field([], alias="from", max_length=MOST_STATUSES, description="Statuses before; empty: all")
    to: list[Status] = Field([], max_length=MOST_STATUSES, description="Statuses after; empty: all")
    ready: bool | None = Field(None, description="Only events after which the CVM is ready, or is not; null: all")
    types: list[Type] = Field([TRANSITION], max_length=MOST_TYPES, description=TYPES_DESCRIBED)
    format: Format = Field("standard", description="The form of the body")
    signatures: list[Signature] = Field(
        ["v1"],
        min_length=1,
        max_length=2,
        description="`v1`: HMAC-SHA256 with the secret. `v1a`: ed25519 with a key pair that the bridge makes; with the "
        f"formats {' and '.join(f'`{each}`' for each in KEY_PAIR_FORMATS)}",
    )
    rate: float | None = Field(
        None, ge=LEAST_RATE, le=MOST_RATE, allow_inf_nan=False, description="Attempts a second; null: any number"
    )
    concurrency: int | None = Field(
        None, ge=1, le=MOST_AT_ONCE, description=f"Attempts at the same moment; null: {MOST_AT_ONCE}"
    )
    headers: Annotated[dict[str, str], AfterValidator(_headers)] = Field(
        {}, description=f"Custom headers; at most {MOST_HEADERS}, {MAX_HEADERS} characters altogether", repr=False
    )
    enabled: bool = Field(True, description="Whether the bridge delivers to it")


class EndpointRegistration(EndpointChange):
    """The whole of an endpoint, as `POST` and `PUT` take it. Empty filters mean all."""

    model_config = _example({"url": "https://example.com/cvm", "to": ["running", "error"]})

    url: Url = Field(repr=False)
    secret: Secret = Field(None, repr=False)


class SecretRotation(_Strict):
    """`POST …/rotate-secret`; without a secret the bridge makes one."""

    model_config = _example({})

    secret: Secret = Field(None, repr=False)
    overlap_seconds: int = Field(
        OVERLAP_SECONDS,
        ge=0,
        le=MOST_OVERLAP,
        description="For so long the old secret, and the old private key, sign beside the new ones; 0 ends them at "
        "once, as for one that leaked",
    )


class RecoveryPeriod(_Strict):
    """`POST …/recover`: RFC 3339 times; without `until` up to now."""

    model_config = _example({"since": "2026-11-24T16:00:00Z"})

    since: str = time_field("From this time on.")
    until: str | None = time_field("Up to this time; without it, up to now.", default=None)
    all: bool = Field(False, description="What was delivered too.")


class EmptyBody(_Strict):
    """A body without fields, or no body."""

    model_config = _example({})
