"""The whole benchmark: contestants in turns, round by round, so that a change of the machine's mood meets them all."""

from __future__ import annotations

import asyncio
import tempfile
from dataclasses import dataclass, field, replace
from pathlib import Path

from benchmarks.fanout import report
from benchmarks.fanout.bridge_web import bridge
from benchmarks.fanout.contestants import Start, bare, nchan, sse_starlette
from benchmarks.fanout.figures import Round, Summary
from benchmarks.fanout.load import load_client
from benchmarks.fanout.machine import Cores, MissingError, allow_files, compiled
from benchmarks.fanout.race import Plan, Race

CONTESTANTS: dict[str, Start] = {"bridge": bridge, "nchan": nchan, "sse-starlette": sse_starlette, "bare": bare}


@dataclass(frozen=True)
class Programme:
    """What is run. The idle time is measured in the last round alone: it takes half a minute for each server."""

    plan: Plan = field(default_factory=lambda: Plan(idle=30.0, backlog=100))
    rounds: int = 5
    names: tuple[str, ...] = tuple(CONTESTANTS)
    results: Path | None = report.RESULTS


def run(programme: Programme | None = None) -> None:
    """Prints the table, and writes it with the plot. What this machine lacks is said in a line and left out."""
    chosen = programme or Programme()
    try:
        cores = Cores.choose()
        allow_files(chosen.plan.subscribers)
        with tempfile.TemporaryDirectory() as directory, cores.beside_the_client():
            client = compiled("load", Path(directory))
            found = asyncio.run(_rounds(chosen, client, cores))
    except MissingError as error:
        print(f"fan-out: left out: {error}")
        return
    heading = _heading(chosen)
    print(f"\n{heading}\n\n{report.table(found.values())}\n\n{report.goal_table(found)}")
    if chosen.results:
        report.write(found, heading, chosen.results)
        print(f"\nwritten: {chosen.results}/fanout.md, fanout.svg, fanout.json")


def _heading(programme: Programme) -> str:
    plan = programme.plan
    return (
        f"fan-out: {plan.subscribers} subscribers, {plan.events} events at {plan.rate:g}/s, "
        f"medians of {programme.rounds} rounds; times from the first subscriber's receipt"
    )


async def _rounds(programme: Programme, client: Path, cores: Cores) -> dict[str, Summary]:
    found = {name: Summary(name, []) for name in programme.names}
    for number in range(1, programme.rounds + 1):
        last = number == programme.rounds
        plan = programme.plan if last else replace(programme.plan, idle=0.0)
        for name in list(found):
            try:
                measured = await _one(CONTESTANTS[name], client, cores, plan)
            except MissingError as error:
                print(f"{name}: left out: {error}")
                del found[name]
                continue
            found[name].rounds.append(measured)
            print(f"round {number} {name:<14}{_line(measured)}", flush=True)
    return found


async def _one(start: Start, program: Path, cores: Cores, plan: Plan) -> Round:
    async with start(cores.server) as contestant, load_client(program, cores.client) as client:
        return await Race(contestant, client, plan).run()


def _line(measured: Round) -> str:
    p99 = f"{measured.spread[99]:.0f}" if measured.spread else "–"
    herd = f", herd {measured.herd.served_s:.2f} s" if measured.herd else ""
    return f"p99 {p99} ms, connects {measured.connect_s:.2f} s, {measured.bytes_each / 1000:.1f} kB each{herd}"
