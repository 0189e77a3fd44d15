"""What the API's objects look like on a terminal: tables, and lines of names and values."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from bridge.commands.terminal import as_object, painted, status_colour
from bridge.printable import printable

NONE = "–"


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
