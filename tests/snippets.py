"""The fenced blocks of README.md and docs/, and what comes out of their commands (tests/real/test_snippets.py)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from markdown_it import MarkdownIt

ROOT = Path(__file__).parents[1]

PAGES = ("README.md", *sorted(str(each.relative_to(ROOT)) for each in (ROOT / "docs").rglob("*.md")))

ANY = "…"
"""What a page leaves out: a part of a line, or, alone on a line, some lines."""

MASKS = (
    (r"\x1b\[[0-9;]*[A-Za-z]|\r", ""),
    (r"(?m)^:\d*\n", ""),  # a heartbeat, which a slow machine gets before the first event
    (r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", "<id>"),
    (r"\b\w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d GMT", "<date>"),
    (r"\b\d{4}-\d\d-\d\dT[\d:.]+Z?", "<time>"),
    (r"\b\d\d:\d\d:\d\d\b", "<time>"),
    (r"\b\d{13}-\d+", "<cursor>"),
    (r"\b\d{10}\.\d+|\b\d+\.\d{6}\b", "<seconds>"),
    (r"\b127\.0\.0\.1:[1-6]\d{4}\b", "127.0.0.1:<port>"),
    (r"/\S+/\.local/", "/home/me/.local/"),
    (r"\b(evt_|wh_|whsec_|sha256=)[\w/+=]{12,}", r"\1<made>"),
)
"""What is another at each run."""

LIVES = (
    (r", (not )?ready\b| \(\w+\)", ""),
    (r"\b[a-z]+-\d+\b", "<name>"),
    (r"\b(running|starting|stopping|stopped|restarting|exited|error|deleted)\b", "<status>"),
)
"""What the simulator's lives decide."""


@dataclass(frozen=True)
class Block:
    page: str
    line: int
    language: str
    title: str
    """The file that the reader makes of it."""
    text: str

    @property
    def place(self) -> str:
        return f"{self.page}:{self.line}"

    @property
    def first(self) -> str:
        return self.text.partition("\n")[0]


@dataclass(frozen=True)
class Step:
    """A command with what it prints; or, without a command, what the last one that still runs prints next."""

    command: str
    output: str


def blocks(page: str) -> list[Block]:
    text = (ROOT / page).read_text(encoding="utf-8")
    return [
        _block(page, token.map[0] + 1, token.info, token.content)
        for token in MarkdownIt().parse(text)
        if token.type == "fence" and token.map
    ]


def _block(page: str, line: int, info: str, text: str) -> Block:
    language, _, rest = info.strip().partition(" ")
    found = re.search(r'title="([^"]+)"', rest)
    return Block(page, line, language, found[1] if found else "", text)


def steps(block: Block) -> Iterator[Step]:
    """The commands of a `console` block; a line that ends with a backslash goes on."""
    command, output = "", ""
    for line in block.text.splitlines():
        if line.startswith("$ "):
            if command or output:
                yield Step(command, output)
            command, output = line[2:], ""
        elif command.endswith("\\") and not output:
            command += "\n" + line
        else:
            output += line + "\n"
    yield Step(command, output)


def masked(text: str, *, lives: bool) -> str:
    """Without what is another at each run."""
    for pattern, instead in (*MASKS, *(LIVES if lives else ())):
        text = re.sub(pattern, instead, text)
    return re.sub(r"[ \t]+", " ", text)


def expected(output: str, *, lives: bool) -> re.Pattern[str]:
    """What a command prints that begins as the page has it."""
    made = ""
    for line in masked(output, lives=lives).splitlines():
        if line.strip() == ANY:
            made += r"(?:.*\n)*?"
        else:
            made += "[^\n]*".join(re.escape(part) for part in line.rstrip().split(ANY)) + r" *\n"
    return re.compile(made)
