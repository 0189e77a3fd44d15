"""The event in all its shapes (`docs/contract.md#the-event`), for the schemas of both documents.

Events are written elsewhere, as text; no event is made of these models. A field that may be absent has a
`default_factory`, because a `default` would appear in the schema.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import ConfigDict, RootModel

from bridge.events import (
    DELIVERY_GIVEN_UP,
    DROPPED,
    ENDPOINT_DISABLED,
    ENDPOINT_FAILING,
    ENDPOINT_RECOVERED,
    FRESH,
    READINESS,
    RESET,
    SNAPSHOT,
    STALE,
    STATE,
    TRANSITION,
)
from bridge.store.lanes import TEST_TYPE
from bridge.web.http.parameters import EXAMPLE_ID
from bridge.web.http.responses import Shape, described, time_field
from bridge.web.streaming.cursors import HISTORY_LOST, UNKNOWN_CURSOR

CVM_ID = "0e4b0c9e-5d0a-4a53-9d4e-6a1b6d3f7c21"
APP_ID = "4d6a4bd2a5f1ec4a1a1ee43c2b3c4e5f60718293"
TIME = "2026-11-24T16:01:59.319Z"
ENDPOINT_ID = "wh_19b1f3c0a5d2b8e7c1a94f"

TRACEPARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"

STATE_EXAMPLE: dict[str, Any] = {"id": CVM_ID, "name": "web-1", "status": "running", "uptime": "4s"}


class CvmState(Shape):
    """A state as upstream wrote it, character for character; it may have any other field.

    Usual ones: `id`, `name`, `instance_id`, `uptime`, `exited_at`, `boot_progress`, `boot_error`, `shutdown_progress`.
    """

    model_config = ConfigDict(extra="allow", json_schema_extra={"examples": [STATE_EXAMPLE]})

    status: str = described("An open set of lower-case words: `running`, `stopped`, `starting`, `error`, …", "running")


READY = "Whether `status` is `running` and no operation is in progress; null where upstream tells nothing of operations"


class OperationData(Shape):
    """What Phala Cloud does with a CVM at the moment; a field is null where upstream did not tell it."""

    type: str | None = described("Phala Cloud's word for it", "update")
    started_at: str | None = described("When it began, as upstream wrote it", TIME)
    correlation_id: str | None = described("Phala Cloud's id of it", "9f1c2d3e4a5b")


class WatchData(Shape):
    """The CVM whose watch changed."""

    cvm_id: str = described("The CVM's canonical id", CVM_ID)
    name: str | None = described("Its name, if upstream has one", "web-1")
    app_id: str | None = described("Its app, if upstream has told it", APP_ID)


class CvmData(WatchData):
    """What happened to a CVM."""

    from_: str | None = described("The status before; null at first sight", "starting", alias="from")
    to: str | None = described("The status now; `deleted` once upstream answers 404", "running")
    observed_by: Literal["stream", "poll"] = described("How the bridge saw it")
    ready: bool | None = described(READY)
    operation: OperationData | None = described("The operation in progress, as upstream told it last")
    state: CvmState | None = described("The state now; null once deleted")


class ReadinessData(WatchData):
    """Whether a CVM is ready, and why."""

    ready: bool | None = described(READY)
    was_ready: bool | None = described("The same before this event")
    operation: OperationData | None = described("The operation in progress, as upstream told it last")
    reason: str = described("`running`, `operation`, `boot_error`, or the status that it has", "running")


class StaleData(WatchData):
    """The CVM that the bridge cannot vouch for, and the reason."""

    reason: str = described(
        "`unreachable`, `unauthorized`, `rate_limited`, `unparsable` or another word", "unreachable"
    )


class PhalaEnvelope(Shape):
    """One of Phala Cloud's own webhooks, character for character; it may have any other field."""

    model_config = ConfigDict(extra="allow")

    id: str = described("Phala Cloud's id of it", "evt_5f0c9a61d2b34e78")
    event: str = described("Phala Cloud's name of the event", "cvm.updated")


class PhalaNoticeData(Shape):
    """What Phala Cloud's own webhook tells."""

    cvm_id: str | None = described(
        "The CVM's canonical id, or as Phala Cloud names it; null where it names none", CVM_ID
    )
    name: str | None = described("Its name, if it is known", "web-1")
    app_id: str | None = described("Its app, if it is known", APP_ID)
    notice: PhalaEnvelope = described("Phala Cloud's envelope, as it came")


class SnapshotData(WatchData):
    """The last known state of a CVM, and whether the bridge vouches for it."""

    from_: None = described("Always null: a snapshot is no change", alias="from")
    to: str | None = described("The status; null until it is first seen", "running")
    ready: bool | None = described(READY)
    operation: OperationData | None = described("The operation in progress, as upstream told it last")
    fresh: bool = described("Whether the bridge vouches for this state at the moment")
    stale_reason: str | None = described("Why the bridge does not; null while it does")
    since: str | None = time_field("When the status became this one.")
    observed_at: str | None = time_field("When this state was last confirmed.")
    state: CvmState | None = described("The state; null once deleted or not yet seen")


class NoticeData(Shape):
    """A webhook endpoint, and what waits for it."""

    endpoint_id: str = described("The endpoint's id", ENDPOINT_ID)
    url: str | None = described("Where it is, without path and query; null where nobody could tell", "https://host/…")
    description: str = described("The beginning of its description")
    since: str | None = time_field("Since when all attempts fail, or failed until now; null where they did not.")
    pending: int = described("Deliveries that wait", ge=0)
    given_up: int = described("Deliveries that were given up and are in no earlier notice", ge=0)


class EndpointDisabledData(NoticeData):
    """An endpoint that gets nothing more until it is enabled."""

    reason: str | None = described("Why the bridge disabled it; null if a caller did", "the receiver answered 410 Gone")


class GivenUpEvent(Shape):
    """The event that was not delivered."""

    id: str = described("Its id", EXAMPLE_ID)
    sequence: str = described("Its sequence", "0000000000000042", pattern=r"^\d{16}$")
    type: str = described("Its type", TRANSITION)
    subject: str = described("Its subject", CVM_ID)


class GivenUpData(NoticeData):
    """A delivery whose last attempt failed."""

    delivery_id: str = described("The delivery's id", f"{ENDPOINT_ID}-{EXAMPLE_ID}")
    event: GivenUpEvent
    reason: str = described("What the last attempt came to", "http_5xx: the receiver answered 503")
    attempts: int = described("How many there were", ge=1)


class ResetData(Shape):
    """Why the client must forget the states that it has."""

    reason: Literal[HISTORY_LOST, UNKNOWN_CURSOR] = described(  # type: ignore[valid-type]
        "`history_lost`: the log no longer has the events after the cursor; `unknown_cursor`: another log's cursor"
    )


class PositionData(Shape):
    """Where the stream stands: no news, only a cursor (the block's `id:`)."""

    sequence: str = described("The sequence of the last event considered", "42", pattern=r"^\d+$")


class ComeBackData(Shape):
    """Why a browser must reconnect later, after the block's `retry:`."""

    detail: str = described("For people", "This front end takes no more streams")


class TestData(Shape):
    """The endpoint that is tested."""

    endpoint_id: str = described("The endpoint's id", ENDPOINT_ID)


class _Envelope(Shape):
    """A CloudEvents 1.0 envelope."""

    id: str = described("Unique; for an event of the log also the cursor", EXAMPLE_ID)
    specversion: Literal["1.0"]
    source: str = described("`/bridge/` and the namespace", "/bridge/bridge")
    datacontenttype: Literal["application/json"]


class _Numbered(_Envelope):
    """An envelope with its place in the log."""

    subject: str = described("The CVM's canonical id", CVM_ID)
    sequence: str = described(
        "1, 2, 3 … over the whole log, padded to sort as text; a gap means that events were missed",
        "0000000000000042",
        pattern=r"^\d{16}$",
    )


class _Logged(_Numbered):
    time: str = time_field("When it was observed.")
    traceparent: str = described(
        "The W3C trace context in which it was observed (CloudEvents' distributed tracing extension)",
        TRACEPARENT,
        default_factory=str,
    )
    tracestate: str = described(
        "The `tracestate` of the caller who brought it; absent where there was none",
        "vendor=value",
        default_factory=str,
    )


class TransitionEvent(_Logged):
    """`status` changed."""

    type: Literal[TRANSITION]  # type: ignore[valid-type]
    data: CvmData


class StateEvent(_Logged):
    """First sight of a CVM, or a field other than `status` and `uptime` changed."""

    type: Literal[STATE]  # type: ignore[valid-type]
    data: CvmData


class ReadinessEvent(_Logged):
    """`ready` changed, or an operation began or ended."""

    type: Literal[READINESS]  # type: ignore[valid-type]
    data: ReadinessData


class StaleEvent(_Logged):
    """The bridge can no longer vouch for this CVM's state."""

    type: Literal[STALE]  # type: ignore[valid-type]
    data: StaleData


class FreshEvent(_Logged):
    """The bridge vouches for this CVM's state again."""

    type: Literal[FRESH]  # type: ignore[valid-type]
    data: WatchData


class DroppedEvent(_Logged):
    """The watch ended: no event of this CVM follows until it is watched again."""

    type: Literal[DROPPED]  # type: ignore[valid-type]
    data: WatchData


class _Notice(_Logged):
    subject: str = described("The endpoint's id", ENDPOINT_ID)
    time: str = time_field("When it was noticed.")


class EndpointFailingEvent(_Notice):
    """Every attempt at a webhook endpoint has failed for an hour."""

    type: Literal[ENDPOINT_FAILING]  # type: ignore[valid-type]
    data: NoticeData


class EndpointDisabledEvent(_Notice):
    """A webhook endpoint was disabled."""

    type: Literal[ENDPOINT_DISABLED]  # type: ignore[valid-type]
    data: EndpointDisabledData


class EndpointRecoveredEvent(_Notice):
    """A delivery to a webhook endpoint succeeded again after one of the two."""

    type: Literal[ENDPOINT_RECOVERED]  # type: ignore[valid-type]
    data: NoticeData


class DeliveryGivenUpEvent(_Notice):
    """A delivery was given up; at most one such event for each endpoint and hour."""

    type: Literal[DELIVERY_GIVEN_UP]  # type: ignore[valid-type]
    data: GivenUpData


class PhalaEvent(_Logged):
    """One of Phala Cloud's own webhooks; the types are an open set."""

    subject: str = described("The CVM's canonical id; the webhook's own id where it names no CVM", CVM_ID)
    type: str = described("`phala.` and Phala Cloud's name of the event", "phala.cvm.updated", pattern=r"^phala\.")
    time: str = time_field("When it reached the bridge.")
    data: PhalaNoticeData


AboutCvm = TransitionEvent | StateEvent | ReadinessEvent | StaleEvent | FreshEvent | DroppedEvent | PhalaEvent
Notice = EndpointFailingEvent | EndpointDisabledEvent | EndpointRecoveredEvent | DeliveryGivenUpEvent


class Event(RootModel[AboutCvm | Notice]):
    """An event of the log, told apart by `type`."""


class SnapshotEvent(_Numbered):
    """The last known state of one CVM, at the beginning of a stream; `id` is `<position>/<cvm_id>`."""

    type: Literal[SNAPSHOT]  # type: ignore[valid-type]
    time: str = time_field("When the state was last confirmed; absent until it is first seen.", default_factory=str)
    data: SnapshotData


class ResetEvent(_Envelope):
    """The client must forget the states that it has: snapshots follow, or a position."""

    type: Literal[RESET]  # type: ignore[valid-type]
    time: str = time_field("When the bridge noticed it.")
    data: ResetData


class TestEvent(_Logged):
    """A test of a webhook endpoint; it is not in the log."""

    type: Literal[TEST_TYPE]  # type: ignore[valid-type]
    data: TestData


AnyNoticeData = NoticeData | EndpointDisabledData | GivenUpData


class StandardBody(Shape):
    """Format `standard`: the body that Standard Webhooks defines."""

    type: str = described("The event's type", TRANSITION)
    timestamp: str = time_field("The event's time.")
    data: CvmData | ReadinessData | StaleData | WatchData | PhalaNoticeData | TestData | AnyNoticeData = described(
        "The event's `data`, character for character"
    )


class Workspace(Shape):
    """The namespace in place of the workspace, which the state route does not have."""

    id: str = described("The bridge's namespace", "bridge")
    name: str = described("The same", "bridge")


class PhalaData(Shape):
    """The `data` of Phala Cloud's own webhooks, and both statuses."""

    cvm_id: str = described("The CVM's canonical id", CVM_ID)
    cvm_name: str | None = described("Its name", "web-1")
    app_id: str | None = described("Its app, if upstream has told it", APP_ID)
    status: str | None = described("The status now", "running")
    error: Any = described("The state's `boot_error`, only with `cvm.create_failed`", default_factory=str)
    from_: str | None = described(
        "The status before; an addition of the bridge", "starting", alias="from", default_factory=str
    )
    to: str | None = described("The status now; an addition of the bridge", "running", default_factory=str)
    ready: bool | None = described("Only with `cvm.readiness`; an addition of the bridge", default_factory=bool)
    was_ready: bool | None = described("Only with `cvm.readiness`", default_factory=bool)
    reason: str = described("Only with `cvm.readiness`", "running", default_factory=str)


class PhalaBody(Shape):
    """Format `phala`: Phala Cloud's own webhook envelope, as the bridge makes it of an event."""

    id: str = described("`evt_` and the event's id", f"evt_{EXAMPLE_ID}")
    event: str = described(
        "`cvm.created`, `cvm.started`, `cvm.restarted`, `cvm.stopped`, `cvm.create_failed`, `cvm.deleted`, "
        "`cvm.transition`; of other events their type",
        "cvm.started",
    )
    version: Literal["1"]
    created_at: str = time_field("The event's time.")
    workspace: Workspace
    data: PhalaData | AnyNoticeData
