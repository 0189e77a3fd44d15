"""The routes of webhook deliveries (`docs/contract.md#webhooks`): their attempts, and ways to deliver again."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from functools import partial

from starlette.responses import Response

from bridge import tracing
from bridge.clock import Clock, rfc3339
from bridge.store.deliveries import DELIVERY_STATUSES, Deliveries, Delivery
from bridge.store.delivery_search import DeliveryQuery, DeliverySearch
from bridge.store.endpoint_record import ID_PATTERN, Endpoint
from bridge.store.endpoints import Endpoints
from bridge.store.errors import BrokenEndpointError, UnknownDeliveryError, UnknownEndpointError
from bridge.store.lanes import TEST_TYPE
from bridge.web.api import answers, envelopes
from bridge.web.api.endpoint_owners import may_have
from bridge.web.api.idempotency import IDEMPOTENCY_KEY, idempotency_key
from bridge.web.api.webhook_models import EmptyBody, RecoveryPeriod
from bridge.web.http.access import Principal
from bridge.web.http.operations import DELIVERIES, LOCATION, Call, Resource, json_answer
from bridge.web.http.page_turns import PAGE_BYTES, PageTurns
from bridge.web.http.parameters import (
    AFTER,
    EXAMPLE_ID,
    LIMIT,
    Parameter,
    chosen,
    in_path,
    last,
    moment,
    time_parameter,
)
from bridge.web.http.problems import ProblemType, invalid
from bridge.web.http.responses import Verbatim, json_response, page_response

ENDPOINT_ID = in_path(
    "id", "The endpoint's id", envelopes.ENDPOINT_ID, {"type": "string", "pattern": ID_PATTERN}, shared_as="endpoint_id"
)
DELIVERY_ID = in_path("id", "The delivery's id", f"{envelopes.ENDPOINT_ID}-{EXAMPLE_ID}", shared_as="delivery_id")
STATUS = chosen("status", "Only deliveries with this status", tuple(DELIVERY_STATUSES))
EVENT = Parameter("event", "Only deliveries of the event with this id", last, example=EXAMPLE_ID)
CVM = Parameter(
    "cvm",
    "Only events of the CVM with this id, or that had this name then; nobody is asked",
    last,
    shared_as="delivery_cvm",
)
SINCE = time_parameter(
    "since", "Only deliveries that were queued (last) at this time or later", shared_as="delivery_since"
)
UNTIL = time_parameter("until", "Only deliveries that were queued (last) at this time or earlier")

ENDPOINT = Resource("/v1/webhooks/{id}", DELIVERIES, (ENDPOINT_ID,), (ProblemType.NO_SUCH_ENDPOINT,))
EVERY = Resource("/v1/deliveries", DELIVERIES)
DELIVERY = Resource("/v1/deliveries/{id}", DELIVERIES, (DELIVERY_ID,), (ProblemType.NO_SUCH_DELIVERY,))


@dataclass(frozen=True, slots=True)
class DeliveryRoutes:
    """For a token that is limited to CVMs there are the deliveries of its own endpoints that are about these CVMs."""

    endpoints: Endpoints
    deliveries: Deliveries
    search: DeliverySearch
    clock: Clock
    page_turns: PageTurns

    @ENDPOINT(
        "GET /deliveries",
        {200: json_answer("A page", answers.DeliveryPage)},
        scope="read",
        parameters=(STATUS, LIMIT, AFTER),
    )
    async def list_deliveries(self, call: Call) -> Response:
        """Deliveries of an endpoint, newest first."""
        status = call.get(STATUS)
        await self._endpoint(call)
        return await self._page(call, partial(self.deliveries.page, call.path("id"), status=status))

    @ENDPOINT(
        "POST /test",
        {202: json_answer("It is queued", answers.Delivery, LOCATION)},
        ProblemType.ENDPOINT_BROKEN,
        ProblemType.ENDPOINT_DISABLED,
        scope="admin",
        parameters=(IDEMPOTENCY_KEY,),
        body=EmptyBody,
        body_required=False,
    )
    async def test_endpoint(self, call: Call) -> Response:
        """Send a test event.

        One attempt; its result is at the answer's `Location`. The same `Idempotency-Key` again is the same test.
        """
        key = idempotency_key(call)
        await call.body(EmptyBody)
        if (await self._endpoint(call)).broken:
            raise BrokenEndpointError
        now, number = rfc3339(self.clock.time()), key.id_part(16) if key else ""
        delivery_id = await self.deliveries.test(call.path("id"), now, number, tracing.current.get())
        delivery = await self.deliveries.get(delivery_id)
        if delivery is None:  # the endpoint was removed meanwhile
            raise UnknownEndpointError
        return json_response(_shown(delivery), 202, {"Location": f"/v1/deliveries/{delivery_id}"})

    @ENDPOINT(
        "POST /recover",
        {202: json_answer("They are queued", answers.Recovered)},
        ProblemType.ENDPOINT_BROKEN,
        ProblemType.ENDPOINT_DISABLED,
        scope="admin",
        body=RecoveryPeriod,
    )
    async def recover_deliveries(self, call: Call) -> Response:
        """Deliver the events of a period again.

        Every event of the log in this time that the endpoint wants and that was not delivered; with `all`, what was
        delivered too, each with the header `bridge-replay: 1`.
        """
        period = await call.body(RecoveryPeriod)
        await self._endpoint(call)
        since = moment("since", period.since)
        until = None if period.until is None else moment("until", period.until)
        _require_order(since, until)
        found = await self.deliveries.recover(call.path("id"), since, until, all=period.all)
        shown = answers.Recovered(queued=found.queued, complete=found.complete, next=found.next)
        return json_response(shown, 202)

    @EVERY(
        "GET",
        {200: json_answer("A page", answers.DeliveryPage)},
        scope="read all",
        parameters=(EVENT, CVM, STATUS, SINCE, UNTIL, LIMIT, AFTER),
    )
    async def search_deliveries(self, call: Call) -> Response:
        """Deliveries of all endpoints, newest first.

        A page with `cvm` looks at a bounded number of deliveries, and may be empty with a `next`.
        """
        since, until = call.get(SINCE), call.get(UNTIL)
        _require_order(since, until)
        query = DeliveryQuery(
            event=call.get(EVENT), cvm=call.get(CVM), status=call.get(STATUS), since_ms=since, until_ms=until
        )
        return await self._page(call, partial(self.search.page, query))

    @DELIVERY("GET", {200: json_answer("The delivery", answers.Delivery)}, scope="read")
    async def get_delivery(self, call: Call) -> Response:
        """One delivery with every attempt."""
        return json_response(_shown(await self._delivery(call)))

    @DELIVERY(
        "POST /retry",
        {202: json_answer("It is queued", answers.Delivery)},
        ProblemType.NO_SUCH_ENDPOINT,
        ProblemType.ENDPOINT_DISABLED,
        ProblemType.ALREADY_PENDING,
        scope="admin",
        body=EmptyBody,
        body_required=False,
    )
    async def retry_delivery(self, call: Call) -> Response:
        """Try a delivery again, or now.

        A finished one is queued at the end of its lane. One that waits for an attempt is due at once, if it is the next
        of its lane.
        """
        await call.body(EmptyBody)
        known = await self._delivery(call)
        return json_response(_shown(await self.deliveries.retry(known.id)), 202)

    @DELIVERY(
        "POST /cancel",
        {200: json_answer("It is skipped", answers.Delivery)},
        ProblemType.BEING_ATTEMPTED,
        ProblemType.DELIVERY_FINISHED,
        scope="admin",
        body=EmptyBody,
        body_required=False,
    )
    async def cancel_delivery(self, call: Call) -> Response:
        """Cancel a pending delivery.

        The next of its lane is due. May be repeated.
        """
        await call.body(EmptyBody)
        known = await self._delivery(call)
        return json_response(_shown(await self.deliveries.cancel(known.id)))

    async def _page(self, call: Call, read: Callable[..., Awaitable[tuple[list[Delivery], str | None]]]) -> Response:
        """Of what `read` finds, as `Deliveries.page` does, the deliveries that the caller may see."""
        size, after = call.get(LIMIT), call.get(AFTER)
        async with self.page_turns.take():
            try:
                found, following = await read(after=after, limit=size, most_bytes=PAGE_BYTES)
            except ValueError:
                raise invalid("after", "the `next` of an earlier page") from None
            return page_response([_shown(each) for each in found if _may_see(call.principal, each)], following)

    async def _endpoint(self, call: Call) -> Endpoint:
        """Raises UnknownEndpointError, also if it is not the caller's."""
        found = await self.endpoints.get(call.path("id"))
        if found is None or not may_have(call.principal, found[0]):
            raise UnknownEndpointError
        return found[0]

    async def _delivery(self, call: Call) -> Delivery:
        """Raises UnknownDeliveryError, also if it is of an endpoint or about a CVM that the caller must not see."""
        found = await self.deliveries.get(call.path("id"))
        if found is None or not _may_see(call.principal, found):
            raise UnknownDeliveryError
        if call.principal.cvms is not None:
            endpoint = await self.endpoints.get(found.endpoint_id)
            if endpoint is None or not may_have(call.principal, endpoint[0]):
                raise UnknownDeliveryError
        return found


def _require_order(since: int | None, until: int | None) -> None:
    """Raises ProblemError 422."""
    if since is not None and until is not None and until < since:
        raise invalid("until", "it must not be before since")


def _may_see(principal: Principal, delivery: Delivery) -> bool:
    return delivery.event.type == TEST_TYPE or principal.may_see(delivery.event)


def _shown(delivery: Delivery) -> answers.Delivery:
    return answers.Delivery.model_construct(**{**asdict(delivery), "event": Verbatim(delivery.event.json)})
