"""The tables of the documents, for tests that compare them with the code."""

from __future__ import annotations

import re
from pathlib import Path

from markdown_it import MarkdownIt

ROOT = Path(__file__).parents[1]


def rows(page: str, *head: str) -> list[list[str]]:
    """The rows of all tables of the page that have this head; each cell as it is written. There is one at least."""
    found: list[list[str]] = []
    table: list[list[str]] = []
    for token in MarkdownIt().enable("table").parse((ROOT / page).read_text("utf-8")):
        if token.type == "table_open":
            table = []
        elif token.type == "tr_open":
            table.append([])
        elif token.type == "inline" and table:
            table[-1].append(token.content)
        elif token.type == "table_close":
            found += table[1:] if tuple(table[0]) == head else []
            table = []
    assert found, f"{page} has no table {head}"
    return found


def names(cell: str) -> list[str]:
    """What stands in backticks."""
    return re.findall(r"`([^`]+)`", cell)
