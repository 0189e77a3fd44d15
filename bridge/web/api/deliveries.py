"""The routes of webhook deliveries (contract section 6): what was attempted, and what is to be attempted again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from bridge.clock import Clock, rfc3339
from bridge.events import dumps
from bridge.store.deliveries import DELIVERY_STATUSES, Deliveries, Delivery, DeliveryStatus
from bridge.store.endpoints import Endpoints
from bridge.store.errors import (
    AlreadyPendingError,
    EndpointDisabledError,
    TooManyEndpointsError,
    UnknownDeliveryError,
    UnknownEndpointError,
)
from bridge.web.api.webhook_models import Nothing, Period
from bridge.web.http import queries
from bridge.web.http.access import Access, Principal
from bridge.web.http.problems import ProblemError, check_query, invalid, problem_response
from bridge.web.http.request_bodies import read_model


@dataclass(frozen=True, slots=True)
class DeliveryRoutes:
    """Reading is for every token that is not restricted to CVMs, the rest for `admin`."""

    access: Access
    endpoints: Endpoints
    deliveries: Deliveries
    clock: Clock

    def routes(self) -> list[Route]:
        endpoint, delivery = "/v1/webhooks/{id}", "/v1/deliveries/{id}"
        return [
            Route(f"{endpoint}/deliveries", self.list, methods=["GET"]),
            Route(f"{endpoint}/test", self.test, methods=["POST"]),
            Route(f"{endpoint}/recover", self.recover, methods=["POST"]),
            Route(delivery, self.get, methods=["GET"]),
            Route(f"{delivery}/retry", self.retry, methods=["POST"]),
        ]

    async def list(self, request: Request) -> Response:
        """Newest first."""
        require_all_cvms(self.access.reader(request))
        check_query(request, ("limit", "after", "status"))
        status, size, endpoint_id = _status(request), queries.limit(request), request.path_params["id"]
        if await self.endpoints.get(endpoint_id) is None:
            raise UnknownEndpointError
        try:
            found, following = await self.deliveries.page(
                endpoint_id, status=status, after=request.query_params.get("after", ""), limit=size
            )
        except ValueError:
            raise invalid("after", "the `next` of an earlier page") from None
        return json_answer(f'{{"items":[{",".join(map(delivery_json, found))}],"next":{dumps(following)}}}')

    async def get(self, request: Request) -> Response:
        require_all_cvms(self.access.reader(request))
        check_query(request, ())
        delivery = await self.deliveries.get(request.path_params["id"])
        if delivery is None:
            raise UnknownDeliveryError
        return json_answer(delivery_json(delivery))

    async def retry(self, request: Request) -> Response:
        await self._asked(request)
        return json_answer(delivery_json(await self.deliveries.retry(request.path_params["id"])), 202)

    async def test(self, request: Request) -> Response:
        """202 and the delivery; how it went is read at its Location."""
        await self._asked(request)
        delivery_id = await self.deliveries.test(request.path_params["id"], rfc3339(self.clock.time()))
        delivery = await self.deliveries.get(delivery_id)
        if delivery is None:  # the endpoint was removed meanwhile
            raise UnknownEndpointError
        return json_answer(delivery_json(delivery), 202, {"Location": f"/v1/deliveries/{delivery_id}"})

    async def _asked(self, request: Request) -> None:
        require_all_cvms(self.access.admin(request))
        check_query(request, ())
        await read_model(request, Nothing, optional=True)

    async def recover(self, request: Request) -> Response:
        """202 and how many deliveries were queued; `complete` false: ask again once some of them are delivered."""
        require_all_cvms(self.access.admin(request))
        check_query(request, ())
        period = await read_model(request, Period)
        since = queries.moment("since", period.since)
        until = None if period.until is None else queries.moment("until", period.until)
        if until is not None and until < since:
            raise invalid("until", "it must not be before since")
        found = await self.deliveries.recover(request.path_params["id"], since, until)
        return answer({"queued": found.queued, "complete": found.complete}, 202)


def _status(request: Request) -> DeliveryStatus | None:
    text = request.query_params.get("status")
    if text is None:
        return None
    for status in DELIVERY_STATUSES:
        if text == status:
            return status
    raise invalid("status", f"one of {', '.join(DELIVERY_STATUSES)}")


def delivery_json(delivery: Delivery) -> str:
    """The event as it is in the log, character for character."""
    head = {"id": delivery.id, "endpoint_id": delivery.endpoint_id, "status": delivery.status}
    rest = {
        "created_at": delivery.created_at,
        "finished_at": delivery.finished_at,
        "next_attempt_at": delivery.next_attempt_at,
        "attempts": [asdict(attempt) for attempt in delivery.attempts],
    }
    return f'{dumps(head)[:-1]},"event":{delivery.event.json},{dumps(rest)[1:]}'


def require_all_cvms(principal: Principal) -> Principal:
    """Whoever sees every CVM. Raises ProblemError 403."""
    if principal.cvms is not None:
        raise ProblemError(403, "forbidden", "This token sees some CVMs only, webhooks may be about all")
    return principal


def json_answer(text: str, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    return Response(text, status, {"Cache-Control": "no-store", **(headers or {})}, "application/json")


def answer(body: Mapping[str, object], status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    return json_answer(dumps(body), status, headers)


_PROBLEMS: Mapping[type[Exception], tuple[int, str, str]] = {
    UnknownEndpointError: (404, "no-such-endpoint", "There is no such webhook endpoint"),
    UnknownDeliveryError: (404, "no-such-delivery", "There is no such delivery, or it is no longer kept"),
    EndpointDisabledError: (409, "endpoint-disabled", "The endpoint is disabled: enable it first"),
    AlreadyPendingError: (409, "already-pending", "The delivery waits for its attempt already"),
    TooManyEndpointsError: (409, "too-many-endpoints", "There are as many webhook endpoints as the bridge keeps"),
}


async def _on_refusal(request: Request, error: Exception) -> Response:
    status, slug, title = _PROBLEMS[type(error)]
    return problem_response(ProblemError(status, slug, title))


HANDLERS = dict.fromkeys(_PROBLEMS, _on_refusal)
"""For the application: what the store refuses is no failure of Redis."""
