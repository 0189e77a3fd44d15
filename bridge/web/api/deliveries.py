"""The routes of webhook deliveries (`docs/contract.md#webhooks`): their attempts, and ways to deliver again."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from starlette.responses import Response

from bridge.clock import Clock, rfc3339
from bridge.store.deliveries import DELIVERY_STATUSES, Deliveries, Delivery
from bridge.store.delivery_search import DeliveryQuery, DeliverySearch
from bridge.store.endpoints import ID_PATTERN, Endpoints
from bridge.store.errors import BrokenEndpointError, UnknownDeliveryError, UnknownEndpointError
from bridge.web.api import answers
from bridge.web.api.webhook_models import EmptyBody, RecoveryPeriod
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
    "id", "The endpoint's id", answers.ENDPOINT_ID, {"type": "string", "pattern": ID_PATTERN}, shared_as="endpoint_id"
)
DELIVERY_ID = in_path("id", "The delivery's id", f"{answers.ENDPOINT_ID}-{EXAMPLE_ID}", shared_as="delivery_id")
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
    """A token that is limited to CVMs is refused, because a delivery may be about any CVM."""

    endpoints: Endpoints
    deliveries: Deliveries
    search: DeliverySearch
    clock: Clock
    page_turns: PageTurns

    @ENDPOINT(
        "GET /deliveries",
        {200: json_answer("A page", answers.DeliveryPage)},
        scope="read all",
        parameters=(STATUS, LIMIT, AFTER),
    )
    async def list_deliveries(self, call: Call) -> Response:
        """Deliveries of an endpoint, newest first."""
        status, size, after = call.get(STATUS), call.get(LIMIT), call.get(AFTER)
        if await self.endpoints.get(call.path("id")) is None:
            raise UnknownEndpointError
        try:
            async with self.page_turns.take():
                found, following = await self.deliveries.page(
                    call.path("id"), status=status, after=after, limit=size, most_bytes=PAGE_BYTES
                )
                return page_response(map(_shown, found), following)
        except ValueError:
            raise invalid("after", "the `next` of an earlier page") from None

    @ENDPOINT(
        "POST /test",
        {202: json_answer("It is queued", answers.Delivery, LOCATION)},
        ProblemType.ENDPOINT_BROKEN,
        ProblemType.ENDPOINT_DISABLED,
        scope="admin all",
        body=EmptyBody,
        body_required=False,
    )
    async def test_endpoint(self, call: Call) -> Response:
        """Send a test event.

        One attempt; its result is at the answer's `Location`.
        """
        await call.body(EmptyBody)
        known = await self.endpoints.get(call.path("id"))
        if known is not None and known[0].broken:
            raise BrokenEndpointError
        delivery_id = await self.deliveries.test(call.path("id"), rfc3339(self.clock.time()))
        delivery = await self.deliveries.get(delivery_id)
        if delivery is None:  # the endpoint was removed meanwhile
            raise UnknownEndpointError
        return json_response(_shown(delivery), 202, {"Location": f"/v1/deliveries/{delivery_id}"})

    @ENDPOINT(
        "POST /recover",
        {202: json_answer("They are queued", answers.Recovered)},
        ProblemType.ENDPOINT_BROKEN,
        ProblemType.ENDPOINT_DISABLED,
        scope="admin all",
        body=RecoveryPeriod,
    )
    async def recover_deliveries(self, call: Call) -> Response:
        """Deliver the events of a period again.

        Every event of the log in this time that the endpoint wants and that was not delivered.
        """
        period = await call.body(RecoveryPeriod)
        since = moment("since", period.since)
        until = None if period.until is None else moment("until", period.until)
        if until is not None and until < since:
            raise invalid("until", "it must not be before since")
        found = await self.deliveries.recover(call.path("id"), since, until)
        return json_response(answers.Recovered(queued=found.queued, complete=found.complete), 202)

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
        if since is not None and until is not None and until < since:
            raise invalid("until", "it must not be before since")
        query = DeliveryQuery(
            event=call.get(EVENT), cvm=call.get(CVM), status=call.get(STATUS), since_ms=since, until_ms=until
        )
        size, after = call.get(LIMIT), call.get(AFTER)
        try:
            async with self.page_turns.take():
                found, following = await self.search.page(query, after=after, limit=size, most_bytes=PAGE_BYTES)
                return page_response(map(_shown, found), following)
        except ValueError:
            raise invalid("after", "the `next` of an earlier page") from None

    @DELIVERY("GET", {200: json_answer("The delivery", answers.Delivery)}, scope="read all")
    async def get_delivery(self, call: Call) -> Response:
        """One delivery with every attempt."""
        delivery = await self.deliveries.get(call.path("id"))
        if delivery is None:
            raise UnknownDeliveryError
        return json_response(_shown(delivery))

    @DELIVERY(
        "POST /retry",
        {202: json_answer("It is queued", answers.Delivery)},
        ProblemType.NO_SUCH_ENDPOINT,
        ProblemType.ENDPOINT_DISABLED,
        ProblemType.ALREADY_PENDING,
        scope="admin all",
        body=EmptyBody,
        body_required=False,
    )
    async def retry_delivery(self, call: Call) -> Response:
        """Try a delivery again, or now.

        A finished one is queued at the end of its lane. One that waits for an attempt is due at once, if it is the next
        of its lane.
        """
        await call.body(EmptyBody)
        return json_response(_shown(await self.deliveries.retry(call.path("id"))), 202)

    @DELIVERY(
        "POST /cancel",
        {200: json_answer("It is skipped", answers.Delivery)},
        ProblemType.BEING_ATTEMPTED,
        ProblemType.DELIVERY_FINISHED,
        scope="admin all",
        body=EmptyBody,
        body_required=False,
    )
    async def cancel_delivery(self, call: Call) -> Response:
        """Cancel a pending delivery.

        The next of its lane is due. May be repeated.
        """
        await call.body(EmptyBody)
        return json_response(_shown(await self.deliveries.cancel(call.path("id"))))


def _shown(delivery: Delivery) -> answers.Delivery:
    return answers.Delivery.model_construct(**{**asdict(delivery), "event": Verbatim(delivery.event.json)})
