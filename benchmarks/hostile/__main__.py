"""`python -m benchmarks.hostile`: a table of promises; the exit status is 1 if one was not kept."""

from __future__ import annotations

import argparse
import asyncio
import sys

from benchmarks.hostile.promises import judged
from benchmarks.hostile.scenario import Plan, play


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.hostile", description=play.__doc__)
    parser.add_argument("--seconds", type=float, default=Plan.seconds)
    parser.add_argument("--rate", type=float, default=Plan.rate, help="events a second")
    parser.add_argument("--neighbours", type=int, default=Plan.neighbours)
    parser.add_argument("--hostile", type=int, default=Plan.hostile)
    parser.add_argument("--every", type=float, default=Plan.every, help="seconds between two kills, on average")
    parser.add_argument("--seed", type=int, default=Plan.seed, help="of what is done to dispatchers, and when")
    plan = Plan(**vars(parser.parse_args()))
    promises = judged(asyncio.run(play(plan)))
    print(f"| {plan.neighbours} neighbours of {plan.hostile} hostile endpoints, {plan.seconds:g} s | seen | |")
    print("| --- | --- | --- |")
    for each in promises:
        print(f"| {each.text} | {each.seen} | {'' if each.kept is None else 'kept' if each.kept else 'BROKEN'} |")
    return int(any(each.kept is False for each in promises))


if __name__ == "__main__":
    sys.exit(main())
