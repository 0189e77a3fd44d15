"""`bridge webhooks`: endpoints and deliveries, as the API has them."""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable, Sequence
from typing import Any
from urllib.parse import quote

from bridge.client import AnswerError, BridgeError, Client, RefusedError, UnavailableError, UnreachableError
from bridge.commands.asking import Exit, Output, exit_of
from bridge.commands.tables import delivery_line, delivery_table, endpoint_lines, endpoint_table
from bridge.commands.terminal import as_object
from bridge.events import dumps

MADE_AGAIN_AFTER = (1.0, 3.0)
"""Seconds before the second and the third try of what is made once by its idempotency key."""

LOOK_EVERY = 0.5
"""Seconds between two looks at a test's delivery."""

SHOWN_DELIVERIES = 10


def endpoint_path(endpoint_id: str) -> str:
    return f"/v1/webhooks/{quote(endpoint_id, safe='')}"


def delivery_path(delivery_id: str) -> str:
    return f"/v1/deliveries/{quote(delivery_id, safe='')}"


async def list_endpoints(bridge: Client, output: Output) -> Exit:
    """A table once all are known; in a pipe each as it comes. Raises BridgeError and BrokenPipeError, as all here."""
    found = []
    async for endpoint in bridge.items("/v1/webhooks"):
        if output.is_terminal:
            found.append(endpoint)
            output.progress = f"{len(found)} endpoints read"
        else:
            output.lines([dumps(endpoint)])
    if output.is_terminal:
        output.lines(endpoint_table(found) if found else ["there is no endpoint: `bridge webhooks add` makes one"])
    return Exit.DONE


async def show_endpoint(bridge: Client, output: Output, endpoint_id: str) -> Exit:
    """With its newest deliveries."""
    path = endpoint_path(endpoint_id)
    endpoint = as_object(await bridge.request("GET", path))
    page = as_object(await bridge.request("GET", f"{path}/deliveries", query=[("limit", SHOWN_DELIVERIES)]))
    deliveries = page.get("items") or []
    below = ["", *delivery_table(deliveries)] if deliveries else []
    output.answer({**endpoint, "deliveries": deliveries}, *endpoint_lines(endpoint), *below)
    return Exit.DONE


async def add_endpoint(bridge: Client, output: Output, body: dict[str, Any], endpoint_id: str | None) -> Exit:
    """Registers one; under an id of the caller's, it replaces what has it. The answer has the secret if it is new."""
    if endpoint_id is None:
        made = as_object(await _made_once(bridge, output, "/v1/webhooks", body))
    else:
        made = as_object(await bridge.request("PUT", endpoint_path(endpoint_id), body=body))
    keep = ["", "keep the secret: it is not shown again"] if "secret" in made else []
    output.answer(made, *endpoint_lines(made), *keep)
    return Exit.DONE


async def send_test(bridge: Client, output: Output, endpoint_id: str, timeout: float) -> Exit:
    """Sends a test event, and waits for its one attempt, for `timeout` seconds."""
    delivery = as_object(await _made_once(bridge, output, f"{endpoint_path(endpoint_id)}/test", {}))
    path, until = delivery_path(str(delivery.get("id"))), bridge.clock.monotonic() + timeout
    output.progress = "waiting for the attempt"
    while delivery.get("status") == "pending" and bridge.clock.monotonic() < until:
        await bridge.clock.sleep(LOOK_EVERY)
        delivery = as_object(await bridge.request("GET", path))
    output.answer(delivery, delivery_line(delivery))
    if delivery.get("status") == "pending":
        output.complain(f"no attempt within {timeout:.0f} s: does `bridge dispatcher` run? (`bridge check`)")
        return Exit.UNFINISHED
    return Exit.DONE if delivery.get("status") == "delivered" else Exit.REFUSED


async def recover_endpoint(bridge: Client, output: Output, endpoint_id: str, period: dict[str, object]) -> Exit:
    """Queues what it missed in a period."""
    found = as_object(await bridge.request("POST", f"{endpoint_path(endpoint_id)}/recover", body=period))
    output.answer(found, f"{found.get('queued')} deliveries queued")
    if not found.get("complete"):
        output.complain(f"too many deliveries wait: go on later with --since {found.get('next')}")
        return Exit.UNFINISHED
    return Exit.DONE


async def retry_deliveries(bridge: Client, output: Output, delivery_ids: Sequence[str]) -> Exit:
    async def retry(delivery_id: str) -> None:
        delivery = as_object(await bridge.request("POST", f"{delivery_path(delivery_id)}/retry"))
        output.answer(delivery, delivery_line(delivery))

    return await _each(delivery_ids, output, retry)


async def switch_endpoints(bridge: Client, output: Output, endpoint_ids: Sequence[str], *, on: bool) -> Exit:
    async def switch(endpoint_id: str) -> None:
        path = endpoint_path(endpoint_id)
        if on:
            endpoint = as_object(await bridge.request("POST", f"{path}/enable"))
        else:
            endpoint = as_object(await bridge.request("PATCH", path, body={"enabled": False}))
        output.answer(endpoint, f"{endpoint_id} is {'enabled' if endpoint.get('enabled') else 'disabled'}")

    return await _each(endpoint_ids, output, switch)


async def remove_endpoints(bridge: Client, output: Output, endpoint_ids: Sequence[str]) -> Exit:
    """In a pipe it writes nothing, as the API answers nothing."""

    async def remove(endpoint_id: str) -> None:
        await bridge.request("DELETE", endpoint_path(endpoint_id))
        output.lines([f"{endpoint_id} is removed"] if output.is_terminal else [])

    return await _each(endpoint_ids, output, remove)


async def _each(ids: Sequence[str], output: Output, act: Callable[[str], Awaitable[None]]) -> Exit:
    """One after the other, also after one that is refused; not where the next one would fare no better."""
    worst = Exit.DONE
    for each in ids:
        try:
            await act(each)
        except RefusedError as error:
            if exit_of(error) is Exit.CANNOT_TELL:
                raise
            output.complain(f"{each}: {error}")
            worst = max(worst, exit_of(error))
    return worst


async def _made_once(bridge: Client, output: Output, path: str, body: dict[str, Any]) -> Any:
    """The answer to a `POST` that makes something, which is tried again without making another one."""
    key = secrets.token_hex(16)
    for pause in MADE_AGAIN_AFTER:
        try:
            return await bridge.request("POST", path, body=body, idempotency_key=key)
        except (UnreachableError, UnavailableError) as error:
            output.progress = "trying again"
            await bridge.clock.sleep(max(pause, _asked(error)))
    return await bridge.request("POST", path, body=body, idempotency_key=key)


def _asked(error: BridgeError) -> float:
    """Seconds for which the bridge wants to be left alone; no longer than a person would wait."""
    return min(error.retry_after or 0.0, 15.0) if isinstance(error, AnswerError) else 0.0
