"""`python -m benchmarks.fanout`: the whole comparison, or what the options leave of it."""

from __future__ import annotations

import argparse
from pathlib import Path

from benchmarks.fanout.race import Plan
from benchmarks.fanout.report import RESULTS
from benchmarks.fanout.run import CONTESTANTS, Programme, run


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fanout", description=run.__doc__)
    parser.add_argument("--subscribers", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--events", type=int, default=10, help="per round")
    parser.add_argument("--rate", type=float, default=2.0, help="events a second")
    parser.add_argument("--in-flight", type=int, default=250, help="connections that are being opened at a time")
    parser.add_argument("--rush", type=int, default=4000, help="the same for the reconnecting herd")
    parser.add_argument("--only", default=",".join(CONTESTANTS), help="contestants, comma separated")
    parser.add_argument("--idle", type=float, default=30.0, help="seconds of sitting idle in the last round; 0: none")
    parser.add_argument("--backlog", type=int, default=100, help="events that a reconnecting herd missed; 0: no herd")
    parser.add_argument("--results", type=Path, default=RESULTS, help="where table and plot go")
    parser.add_argument("--no-results", action="store_const", const=None, dest="results", help="print only")
    given = parser.parse_args()
    names = tuple(given.only.split(","))
    if unknown := set(names) - set(CONTESTANTS):
        parser.error(f"no such contestant: {', '.join(sorted(unknown))} (there are {', '.join(CONTESTANTS)})")
    plan = Plan(given.subscribers, given.events, given.rate, given.in_flight, given.rush, given.idle, given.backlog)
    run(Programme(plan, given.rounds, names, given.results))


if __name__ == "__main__":
    main()
