"""The table, the goals beside what was seen, and the plot: a small SVG by hand, so that nothing need be installed."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path

from benchmarks.fanout.figures import Curve, Summary, goals

RESULTS = Path(__file__).parent / "results"

Cell = Callable[[Summary], "float | None"]


def _figure(name: str, scale: float = 1) -> Cell:
    def value(summary: Summary) -> float | None:
        found = summary.figure(name)
        return None if found is None else found / scale

    return value


def _spread(percent: int) -> Cell:
    return lambda summary: summary.spread(percent)


def _since_sent(percent: int) -> Cell:
    return lambda summary: summary.since_sent(percent)


COLUMNS: list[tuple[str, str, Cell]] = [
    ("p50 ms", ".0f", _spread(50)),
    ("p90 ms", ".0f", _spread(90)),
    ("p99 ms", ".0f", _spread(99)),
    ("last ms", ".0f", _spread(100)),
    ("sent→first ms", ".2f", _since_sent(0)),
    ("sent→p99 ms", ".0f", _since_sent(99)),
    ("connects s", ".2f", _figure("connect_s")),
    ("kB each", ".1f", _figure("bytes_each", 1000)),
    ("idle %", ".1f", _figure("idle_percent")),
    ("herd s", ".2f", _figure("herd.served_s")),
    ("live p50 ms", ".0f", _figure("herd.live_p50")),
    ("live max ms", ".0f", _figure("herd.live_max")),
    ("log reads", ".0f", _figure("herd.log_reads")),
    ("overflows", ".0f", _figure("herd.overflows")),
    ("server CPU ms", ".0f", _figure("server_ms")),
    ("client CPU ms", ".0f", _figure("client_ms")),
    ("faults", ".0f", lambda summary: float(summary.faults)),
]


def table(found: Iterable[Summary]) -> str:
    """In Markdown; read as it is, too."""
    rows = [["server", *(title for title, _, _ in COLUMNS)]]
    rows += [[summary.name, *(_shown(cell(summary), form) for _, form, cell in COLUMNS)] for summary in found]
    return _aligned(rows)


def _shown(value: float | None, form: str) -> str:
    return "–" if value is None else format(value, form)


def _aligned(rows: list[list[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    rule = ["-" * width for width in widths]
    return "\n".join(
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |"
        for row in (rows[0], rule, *rows[1:])
    )


def goal_table(found: dict[str, Summary]) -> str:
    if "bridge" not in found:
        return ""
    verdicts = {True: "met", False: "MISSED", None: "not measured"}
    rows = [[goal.what, goal.goal, goal.seen, verdicts[goal.met]] for goal in goals(found)]
    return _aligned([["figure of bridge", "goal", "seen", ""], *rows])


def write(found: dict[str, Summary], heading: str, directory: Path = RESULTS) -> None:
    """fanout.md, fanout.svg and fanout.json (every round)."""
    directory.mkdir(parents=True, exist_ok=True)
    text = f"{heading}\n\n{table(found.values())}\n\n{goal_table(found)}\n"
    (directory / "fanout.md").write_text(text, encoding="utf-8")
    (directory / "fanout.svg").write_text(plot({name: each.curve for name, each in found.items()}), encoding="utf-8")
    rounds = {name: [asdict(each) for each in summary.rounds] for name, summary in found.items()}
    (directory / "fanout.json").write_text(json.dumps(rounds, indent=1), encoding="utf-8")


COLOURS = ("#1f77b4", "#2ca02c", "#d62728", "#9467bd")
WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 720, 400, 60, 150, 30, 50


def plot(curves: dict[str, Curve]) -> str:
    """Which share of the subscribers had an event how long after it was sent; as wide as the second slowest needs."""
    drawn = {name: curve for name, curve in curves.items() if curve}
    longest = sorted((curve[-1] for curve in drawn.values()), reverse=True)
    span = max(1.0, longest[1 if len(longest) > 2 else 0] * 1.15) if longest else 1.0
    parts = [_axes(span)]
    for number, (name, curve) in enumerate(drawn.items()):
        parts.append(_line(name, curve, span, COLOURS[number % len(COLOURS)], number))
    body = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" '
        f'font-size="12">\n<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>\n{body}\n</svg>\n'
    )


def _x(milliseconds: float, span: float) -> float:
    return LEFT + (WIDTH - LEFT - RIGHT) * milliseconds / span


def _y(percent: float) -> float:
    return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * percent / 100


def _axes(span: float) -> str:
    step = next(step for step in (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10**9) if span / step <= 8)
    lines = []
    for percent in (0, 25, 50, 75, 100):
        y = _y(percent)
        lines.append(f'<path d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}" stroke="#ddd"/>')
        lines.append(f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{percent} %</text>')
    for at in range(0, int(span) + 1, step):
        x = _x(at, span)
        lines.append(f'<path d="M{x:.1f} {TOP}V{HEIGHT - BOTTOM}" stroke="#ddd"/>')
        lines.append(f'<text x="{x:.1f}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">{at}</text>')
    middle = (LEFT + WIDTH - RIGHT) / 2
    lines.append(f'<text x="{middle}" y="{HEIGHT - 10}" text-anchor="middle">ms after it was sent</text>')
    lines.append(f'<text x="{LEFT}" y="{TOP - 12}">share of the subscribers who have the event, medians</text>')
    return "\n".join(lines)


def _line(name: str, curve: Curve, span: float, colour: str, number: int) -> str:
    shown = [(at, percent) for percent, at in enumerate(curve) if at <= span]
    points = " ".join(f"{_x(at, span):.1f},{_y(percent):.1f}" for at, percent in shown)
    x, y = WIDTH - RIGHT + 14, TOP + 40 * number + 10
    return (
        f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>\n'
        f'<path d="M{x} {y}h18" stroke="{colour}" stroke-width="2"/><text x="{x + 24}" y="{y + 4}">{name}</text>\n'
        f'<text x="{x + 24}" y="{y + 19}" fill="#777">p99 {curve[99]:.0f} ms</text>'
    )
