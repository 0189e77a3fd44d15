"""Reads the fields of a stored record. All raise TypeError or ValueError for values that no bridge wrote there."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

from bridge.events import entry_key

Choice = TypeVar("Choice", bound=str)


def text_of(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError
    value.encode()  # raises ValueError for half of a surrogate pair
    return value


def texts_of(value: object) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise TypeError
    return tuple(map(text_of, value))


def texts_by_name(value: object) -> dict[str, str]:
    if not isinstance(value, dict):
        raise TypeError
    return {text_of(name): text_of(text) for name, text in value.items()}


def choice_of(value: object, choices: Iterable[Choice]) -> Choice:
    for each in choices:
        if each == value:
            return each
    raise ValueError


MOST_NUMBER = 1e15
"""Of a limit; the bridge writes far smaller ones, and JSON's integers may be larger than any float."""


def number_of(value: object) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < MOST_NUMBER:
        raise TypeError
    return value


def whole_of(value: object) -> int | None:
    number = number_of(value)
    if number is not None and not isinstance(number, int):
        raise TypeError
    return number


def position_of(value: object) -> str:
    entry_key(text_of(value))
    return text_of(value)
