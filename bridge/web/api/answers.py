"""The models that the routes answer with (`docs/contract.md#http`); the document's schemas are made of them."""

from __future__ import annotations

from typing import Literal

from pydantic import ConfigDict
from pydantic.json_schema import SkipJsonSchema

from bridge.store.deliveries import DELIVERY_STATUSES, DeliveryStatus
from bridge.store.endpoint_notices import HEALTH_WORDS, HealthWord
from bridge.store.slots import SlotState
from bridge.web.api.envelopes import APP_ID, CVM_ID, ENDPOINT_ID, READY, CvmState, Event, OperationData, TestEvent
from bridge.web.api.webhook_models import TYPES_DESCRIBED, Type
from bridge.web.http.parameters import EXAMPLE_ID
from bridge.web.http.problems import WaitedCvm
from bridge.web.http.responses import Shape, Verbatim, described, time_field
from bridge.webhook_formats import Format, Signature

KEYS_NAME = f"{ENDPOINT_ID}.Tq3vLw0gkQ2mB7uYc5hXaA"
PUBLIC_KEYS = f"/.well-known/bridge/webhook-keys/{KEYS_NAME}"
PUBLIC_KEY = "whpk_11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo="


class UpstreamProblem(Shape):
    """Phala Cloud's own error, unchanged: `detail`, or `error_code` and `message`."""

    model_config = ConfigDict(extra="allow")


class Cvm(Shape):
    """A watched CVM."""

    cvm_id: str = described("Its canonical id", CVM_ID)
    name: str | None = described("Its name, if upstream has one", "web-1")
    app_id: str | None = described("Its app, if upstream has told it", APP_ID)
    status: str | None = described("Null until it is first seen", "running")
    ready: bool | None = described(READY)
    operation: OperationData | None = described("The operation in progress, as upstream told it last")
    since: str | None = time_field("When the status became this one.")
    observed_at: str | None = time_field("When the state was last confirmed.")
    fresh: bool = described("Whether the bridge vouches for the state at the moment")
    stale_reason: str | None = described("Why the bridge does not; null while it does")
    followed_by: Literal["stream", "poll"] | None = described("How it is followed; null without a leader")
    pinned: bool = described("Whether it is watched even without subscribers")
    subscribers: int = described(
        "How many name it, webhook endpoints too, over all front ends; not those that name a set", ge=0
    )
    event_id: str | None = described("The last event that the state includes", EXAMPLE_ID)
    state: CvmState | SkipJsonSchema[Verbatim] | None = described("The state; null once deleted or not yet seen")


class CvmCounts(Shape):
    """The CVMs of all pages, whatever their number."""

    all: int = described("Every CVM that the query selects", 3)
    ready: int = described("Those of them that are ready", 2)
    by_status: dict[str, int] = described("How many have each status", {"running": 2, "starting": 1})


class CvmProgress(Shape):
    """How many of the CVMs that are to be watched have been seen."""

    known: int = described("Those whose state has been read", 812)
    found: int = described("All of them, also those that upstream's list alone has", 1000)


class CvmPage(Shape):
    """Watched CVMs by ascending id."""

    items: list[Cvm]
    next: str | None = described("`after` of the next page; null on the last")
    counts: CvmCounts = described("Only with `cvm`", default_factory=CvmCounts)
    progress: CvmProgress = described(
        "Only of a list of all CVMs, and while the leader has not seen each of them yet", default_factory=CvmProgress
    )


class Waited(Shape):
    """What was waited for has come true."""

    cursor: str = described("The event that made it true, or the position at which it was so", EXAMPLE_ID)
    items: list[WaitedCvm] = described("The CVMs that are there: all, or with `any` some; at most 100 are listed")


class EventPage(Shape):
    """Events of the log, oldest first."""

    items: list[Event]
    next: str | None = described("`after` of the next page; null at the log's end", EXAMPLE_ID)


class Slot(Shape):
    """One of the upstream streams that the account may have open."""

    index: int = described("Its number, from 0", ge=0)
    state: SlotState = described(
        "`held` by the leader; `settling` after a close; `quarantined` while an older stream may still be open"
    )
    cvm_id: str | None = described("The CVM that the stream follows", CVM_ID)
    holder: str | None = described("The replica of `bridge upstream` that took it")
    epoch: int | None = described("That replica's term")
    since: str | None = time_field("When it was taken.")
    until: str | None = time_field("When it becomes free at the latest.")


class Slots(Shape):
    """The slots, and why the leader polls the other CVMs. Without a leader the fields from `leader` on are null."""

    items: list[Slot]
    next: None = described("Always null: there is one page")
    leader: str | None = described("The leading replica")
    epoch: int | None = described("Its term")
    budget: int | None = described("How many streams the account allows at the moment", 5)
    budget_reason: str | None = described("Why it allows fewer than there are slots")
    blocked: bool | None = described("Whether upstream refuses the API key")
    unreachable: bool | None = described("Whether upstream answers nothing at the moment")
    known: int | None = described("Watched CVMs whose state has been read", 1000)
    found: int | None = described("All that are to be watched, also those that upstream's list alone has", 1000)
    polling: dict[str, str] | None = described(
        "Why each polled CVM is polled, by its id", {CVM_ID: "all slots are taken"}
    )


class StreamToken(Shape):
    """A token for `?access_token=`."""

    access_token: str = described("Opens connections, which may outlive it")
    expires_in: int = described("Seconds", 60)


class PublicKey(Shape):
    """What verifies `v1a` signatures."""

    key: str = described("`whpk_` and the base64 of an ed25519 public key", PUBLIC_KEY)
    expires_at: str | None = time_field("When an older one signs no more; null for the current one.")


class Endpoint(Shape):
    """A registered webhook URL. Its secret is never shown again, header values only as `***`."""

    id: str = described("Made by the bridge, or chosen by the caller", ENDPOINT_ID)
    url: str | None = described(
        "Its query is shown as `***`; without the scope `admin`, path and query as `…`. "
        "Null if this front end lacks the key that opens it",
        "https://example.com/cvm",
    )
    description: str = described("The caller's description")
    cvms: list[str] = described("Canonical ids, and sets as they were given; empty: all")
    from_: list[str] = described("Statuses before; empty: all", alias="from")
    to: list[str] = described("Statuses after; empty: all")
    ready: bool | None = described("Only events whose `data` has this `ready`; null: all")
    types: list[Type] = described(TYPES_DESCRIBED)
    format: Format = described("The form of the body")
    signatures: list[Signature] = described("The schemes that sign", ["v1"])
    public_keys: list[PublicKey] | None = described(
        "Of `v1a`, the current one first; null if this front end lacks the key that opens them"
    )
    public_keys_url: str | None = described(
        "Where anybody gets them; without `BRIDGE_PUBLIC_URL` a path of the bridge; null without `v1a`", PUBLIC_KEYS
    )
    rate: float | None = described("Attempts a second; null: any number")
    concurrency: int | None = described("Attempts at the same moment; null: the bridge's own limit")
    headers: dict[str, str] = described("Custom headers; their values are not shown", {"X-Team": "***"})
    owner: str | None = described("The token that made it; null: an administrator's of before", "deploys")
    limited_to: list[str] | None = described(
        "What its owner's token may see at present, its names beside their CVMs; null: all", [CVM_ID]
    )
    enabled: bool = described("Whether the bridge delivers to it")
    health: HealthWord = described("; ".join(f"`{word}`: {meaning}" for word, meaning in HEALTH_WORDS.items()))
    disabled_reason: str | None = described("Why the bridge disabled it, or that its record is broken")
    created_at: str | None = time_field("When it was made. It gets newer events only. Null if its record is broken.")
    pending: int = described("Deliveries that wait", ge=0)
    last_success_at: str | None = time_field("The last attempt that succeeded.")
    last_failure_at: str | None = time_field("The last attempt that failed.")
    failing_since: str | None = time_field("The first failure since the last success.")
    breaker_open: bool = described("After failures in a row: one attempt at a time, at growing waits", False)
    held_until: str | None = time_field("Until when its breaker or its `Retry-After` lets no attempt through.")
    postponed_since: str | None = time_field("Since when the bridge could not make the attempts that were due.")
    postponed_reason: str | None = described("Why it could not", "resolver: no name server answers")


class EndpointWithSecret(Endpoint):
    """The endpoint with its signing secret, which is shown only once."""

    secret: str = described("`whsec_` and base64; keep it", "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD")


class Jwk(Shape):
    """A public key (RFC 7517, RFC 8037)."""

    kty: Literal["OKP"]
    crv: Literal["Ed25519"]
    use: Literal["sig"]
    alg: Literal["EdDSA"]
    kid: str = described("The key as Standard Webhooks writes it", PUBLIC_KEY)
    x: str = described("The key in base64url", "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo")
    exp: int = described(
        "Unix seconds from which an older key signs no more; absent for the current one",
        1795622400,
        default_factory=int,
    )


class JwkSet(Shape):
    """The public keys whose signatures count, the current one first."""

    keys: list[Jwk]


class EndpointPage(Shape):
    """Endpoints by ascending id."""

    items: list[Endpoint]
    next: str | None = described("`after` of the next page; null on the last")


class Attempt(Shape):
    """One HTTP request."""

    at: str = time_field("When it began.")
    duration_ms: int = described("Milliseconds", 82)
    status_code: int | None = described("Null without an answer", 204)
    error: str | None = described("What went wrong")
    response_body: str = described("The beginning of the answer, of the last two attempts that failed")


class Delivery(Shape):
    """One event for one endpoint; `id` is the `webhook-id` of every attempt."""

    id: str = described("Unique", f"{ENDPOINT_ID}-{EXAMPLE_ID}")
    endpoint_id: str = described("The endpoint", ENDPOINT_ID)
    status: DeliveryStatus = described(". ".join(f"`{name}`: {meaning}" for name, meaning in DELIVERY_STATUSES.items()))
    event: Event | TestEvent | SkipJsonSchema[Verbatim] = described("The event, as in the log")
    created_at: str = time_field("When it was queued.")
    finished_at: str | None = time_field("When it was delivered, given up or skipped.")
    next_attempt_at: str | None = time_field("Null unless it is the next of its lane.")
    attempts: list[Attempt]


class DeliveryPage(Shape):
    """Deliveries, newest first."""

    items: list[Delivery]
    next: str | None = described("`after` of the next page; null on the last")


class Recovered(Shape):
    """The result of a recovery."""

    queued: int = described("Deliveries queued", 12)
    complete: bool = described("False: call again later, because too many deliveries wait")
    next: str | None = described("`since` of the next call; null if complete", None)


class Health(Shape):
    """The process answers."""

    status: Literal["ok"]


class Readiness(Shape):
    """Whether to send it traffic."""

    status: Literal["ready", "degraded", "unready"] = described(
        "`degraded`: it serves, but events are late or none come"
    )
    reason: str = described(
        "Why it is not ready; while `ready`, which references of `BRIDGE_CVMS` name no CVM", default_factory=str
    )
    sequence: str = described("The last event that this front end has", "42", default_factory=str)
