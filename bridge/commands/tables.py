"""What the API's objects look like on a terminal: tables, and lines of names and values."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from bridge.commands.terminal import as_object, painted, status_colour
from bridge.printable import printable

NONE = "–"

_HEALTH = {"ok": 32, "disabled": 33}
_DELIVERY = {"delivered": 32, "given_up": 31, "skipped": 33}
"""Word → the number of its colour."""


class Cell(str):
    """A text of one line, with the number of its colour; 0 without one."""

    colour: int

    def __new__(cls, value: object, colour: int = 0) -> Cell:
        cell = super().__new__(cls, NONE if value in (None, "") else printable(str(value)))
        cell.colour = colour
        return cell


def table(head: Sequence[str], rows: Iterable[Sequence[Cell]]) -> list[str]:
    """Lines of columns as wide as they need to be, under dimmed heads."""
    every = [[Cell(each.upper(), 2) for each in head], *rows]
    widths = [max(map(len, column)) for column in zip(*every, strict=True)]
    widths[-1] = 0  # no spaces at the end of a line
    return ["  ".join(map(_padded, row, widths)) for row in every]


def _padded(cell: Cell, width: int) -> str:
    text = f"{cell:<{width}}"
    return painted(text, cell.colour) if cell.colour else text


def cvm_table(cvms: Iterable[Mapping[str, Any]]) -> list[str]:
    head = ("name", "status", "ready", "since", "followed by", "fresh", "id")
    return table(head, map(_cvm_row, cvms))


def _cvm_row(cvm: Mapping[str, Any]) -> list[Cell]:
    status, ready = cvm.get("status"), cvm.get("ready")
    operation = as_object(cvm.get("operation")).get("type")
    return [
        Cell(cvm.get("name"), 1),
        Cell(status or "not seen yet", status_colour(status)),
        Cell(None) if ready is None else Cell("yes", 32) if ready else Cell(operation or "no", 33),
        moment(cvm.get("since")),
        Cell(cvm.get("followed_by")),
        Cell("yes") if cvm.get("fresh") else Cell(cvm.get("stale_reason"), 35),
        Cell(cvm.get("cvm_id"), 2),
    ]


def moment(time: object) -> Cell:
    """An RFC 3339 time in UTC, to the second."""
    return Cell(str(time)[:19].replace("T", " ") if time else None)


def endpoint_table(endpoints: Iterable[Mapping[str, Any]]) -> list[str]:
    head = ("id", "health", "pending", "last success", "format", "description", "url")
    return table(head, map(_endpoint_row, endpoints))


def _endpoint_row(endpoint: Mapping[str, Any]) -> list[Cell]:
    health = endpoint.get("health")
    return [
        Cell(endpoint.get("id"), 1),
        Cell(health, _HEALTH.get(str(health), 31)),
        Cell(endpoint.get("pending")),
        moment(endpoint.get("last_success_at")),
        Cell(endpoint.get("format")),
        Cell(endpoint.get("description")),
        Cell(endpoint.get("url"), 2),
    ]


def endpoint_lines(endpoint: Mapping[str, Any]) -> list[str]:
    """A line for each field that has a value, named as in the API."""
    told = {name: value for name, value in endpoint.items() if value is False or value not in (None, "", [], {})}
    width = max(map(len, told), default=0)
    return [f"{painted(f'{printable(name):<{width}}', 2)}  {_plain(value)}" for name, value in told.items()]


def _plain(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(map(_plain, value))
    if isinstance(value, dict):
        return ", ".join(f"{printable(str(name))}: {_plain(each)}" for name, each in value.items() if each is not None)
    return printable("yes" if value is True else "no" if value is False else str(value))


def delivery_table(deliveries: Iterable[Mapping[str, Any]]) -> list[str]:
    return table(("delivery", "status", "queued", "event", "attempts", "last"), map(_delivery_row, deliveries))


def delivery_line(delivery: Mapping[str, Any]) -> str:
    return "  ".join(_padded(cell, 0) for cell in _delivery_row(delivery))


def _delivery_row(delivery: Mapping[str, Any]) -> list[Cell]:
    status, event = delivery.get("status"), as_object(delivery.get("event"))
    attempts = delivery.get("attempts") or []
    last = as_object(attempts[-1]) if attempts else {}
    return [
        Cell(delivery.get("id"), 1),
        Cell(status, _DELIVERY.get(str(status), 36)),
        moment(delivery.get("created_at")),
        Cell(event.get("type")),
        Cell(len(attempts)),
        Cell(last.get("error") or last.get("status_code")),
    ]
