"""What the routes answer (contract section 6), for the documents' schemas; nothing is made of it."""

from __future__ import annotations

from typing import Any, Literal, get_args

from pydantic import ConfigDict

from bridge.store import deliveries
from bridge.store.slots import SlotState
from bridge.web.api.envelopes import CVM_ID, ENTRY_ID, CvmState, Event, Shape, TestEvent, moment, said
from bridge.web.api.webhook_models import Format, Type
from bridge.web.documents.problems import TYPES

ENDPOINT_ID = "wh_19b1f3c0a5d2b8e7c1a94f"


class FieldFault(Shape):
    """One thing that is wrong with a request."""

    field: str = said("A query parameter, a header or a field of the body", "limit")
    detail: str = said("What it must be", "a whole number from 1 to 1000")


class Problem(Shape):
    """RFC 9457: why a request was refused. Programs go by `type`, which is stable."""

    type: Literal[TYPES] = said("Stable; see the list of problems")  # type: ignore[valid-type]
    title: str = said("For people", "limit is not valid")
    status: int = said("The status of the answer", 422)
    detail: str = said("What to do about it", default_factory=str)
    errors: list[FieldFault] = said("The fields that are wrong", default_factory=list)


class UpstreamProblem(Shape):
    """Phala Cloud's own error, as it came: `detail`, or `error_code` and `message`."""

    model_config = ConfigDict(extra="allow")


class Cvm(Shape):
    """A watched CVM."""

    cvm_id: str = said("Its canonical id", CVM_ID)
    name: str | None = said("Its name, where upstream told one", "web-1")
    status: str | None = said("Null until it is first seen", "running")
    since: str | None = moment("When the status became this one.")
    observed_at: str | None = moment("When the state was last confirmed.")
    fresh: bool = said("Whether the bridge vouches for the state just now")
    stale_reason: str | None = said("Why it does not; null while it does")
    followed_by: Literal["stream", "poll"] | None = said("How it is followed; null while nobody leads")
    pinned: bool = said("Whether it is watched whether or not anybody subscribes")
    subscribers: int = said("Who asked for it by name, over all front ends", ge=0)
    event_id: str | None = said("The event that the state is of", ENTRY_ID)
    state: CvmState | None = said("The state; null once deleted or not yet seen")


class CvmPage(Shape):
    """Watched CVMs by ascending id."""

    items: list[Cvm]
    next: str | None = said("`after` of the next page; null on the last")


class EventPage(Shape):
    """Events of the log, oldest first."""

    items: list[Event]
    next: str | None = said("`after` of the next page; null where the log ends", ENTRY_ID)


class Slot(Shape):
    """One of the upstream streams that the account may have open."""

    index: int = said("Its number, from 0", ge=0)
    state: Literal[get_args(SlotState)] = said(  # type: ignore[valid-type]
        "`held` by the leader; `settling` after a close; `quarantined` while an older stream may still be open"
    )
    cvm_id: str | None = said("The CVM whose stream it is", CVM_ID)
    holder: str | None = said("The replica of `bridge upstream` that took it")
    epoch: int | None = said("That replica's term")
    since: str | None = moment("When it was taken.")
    until: str | None = moment("When it is free at the latest.")


class Slots(Shape):
    """The slots, and in the leader's own words why the other CVMs are polled. Without a leader its words are null."""

    items: list[Slot]
    next: None = said("Always null: there is one page")
    leader: str | None = said("The replica that leads")
    epoch: int | None = said("Its term")
    budget: int | None = said("How many streams the account allows just now", 5)
    budget_reason: str | None = said("Why that is fewer than there are slots")
    blocked: bool | None = said("Whether upstream refuses the API key")
    polling: dict[str, str] | None = said("Why each polled CVM is, by its id", {CVM_ID: "all slots are taken"})


class StreamToken(Shape):
    """A token for `?access_token=`."""

    access_token: str = said("Opens connections; one that is open lives on after it")
    expires_in: int = said("Seconds", 60)


class Endpoint(Shape):
    """A registered webhook URL. Its secret is never shown again, header values only as `***`."""

    id: str = said("The bridge's or the caller's own", ENDPOINT_ID)
    url: str | None = said(
        "Without its query; null where this front end lacks the key to it", "https://example.com/cvm"
    )
    description: str = said("The caller's own words")
    cvms: list[str] = said("Canonical ids; empty: all")
    from_: list[str] = said("Statuses before; empty: all", alias="from")
    to: list[str] = said("Statuses after; empty: all")
    types: list[Type] = said("Event types; empty: all")
    format: Format = said("What the body looks like")
    headers: dict[str, str] = said("Sent besides; the values are not shown", {"X-Team": "***"})
    enabled: bool = said("Whether it is delivered to")
    disabled_reason: str | None = said("Why the bridge disabled it")
    created_at: str = moment("When it was made. It gets what is newer.")
    pending: int = said("Deliveries that wait", ge=0)
    last_success_at: str | None = moment("The last attempt that succeeded.")
    last_failure_at: str | None = moment("The last attempt that failed.")
    failing_since: str | None = moment("The first failure since the last success.")


class EndpointWithSecret(Endpoint):
    """The endpoint, and its signing secret this once."""

    secret: str = said("`whsec_` and base64; keep it", "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD")


class EndpointPage(Shape):
    """Endpoints by ascending id."""

    items: list[Endpoint]
    next: str | None = said("`after` of the next page; null on the last")


class Attempt(Shape):
    """One HTTP request."""

    at: str = moment("When it began.")
    duration_ms: int = said("Milliseconds", 82)
    status_code: int | None = said("Null where there was no answer", 204)
    error: str | None = said("What went wrong")
    response_body: str = said("The first 4 KiB")


class Delivery(Shape):
    """One event for one endpoint; `id` is the `webhook-id` of every attempt."""

    id: str = said("Unique", f"{ENDPOINT_ID}-{ENTRY_ID}")
    endpoint_id: str = said("The endpoint", ENDPOINT_ID)
    status: Literal[deliveries.STATUSES] = said(  # type: ignore[valid-type]
        "`given_up` after the last attempt; it can be retried"
    )
    event: Event | TestEvent = said("As it is in the log")
    created_at: str = moment("When it was queued.")
    finished_at: str | None = moment("When it was delivered or given up.")
    next_attempt_at: str | None = moment("Null while it waits behind an earlier one.")
    attempts: list[Attempt]


class DeliveryPage(Shape):
    """Deliveries, newest first."""

    items: list[Delivery]
    next: str | None = said("`after` of the next page; null on the last")


class Recovered(Shape):
    """What a recovery queued."""

    queued: int = said("Deliveries queued", 12)
    complete: bool = said("False: ask again once some of them are delivered")


class Health(Shape):
    """The process answers."""

    status: Literal["ok"]


class Readiness(Shape):
    """Whether to send it traffic."""

    status: Literal["ready", "degraded", "unready"] = said("`degraded`: it serves, but nobody leads")
    reason: str = said("Why it is not ready", default_factory=str)
    sequence: str = said("The last event that this front end has", "42", default_factory=str)


class DropInError(Shape):
    """As upstream writes errors that have no code of their own."""

    detail: Any = said("A sentence, or the faults of an `HTTPValidationError`", "Invalid API key")
