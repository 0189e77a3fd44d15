"""`python -m tests.alerts`: breaks a bridge once for every alert, sees it fire, mends the bridge, sees it resolve.

Each alert has a bridge of its own. One real Prometheus scrapes all of them, and evaluates the real rules with shortened
durations. The exit status is 1 if an alert did not fire, fired elsewhere, or did not resolve.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from tests.alerts.faults import REHEARSALS
from tests.alerts.play import play, table
from tests.alerts.rules import longest, read_rules


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.alerts", description="Breaks a bridge once for every alert.")
    parser.add_argument("--only", action="append", metavar="ALERT", choices=[*longest(read_rules())])
    parser.add_argument("--times", type=float, default=20, help="how many times as fast the rules' durations pass")
    parser.add_argument("--at-once", type=int, default=4, help="bridges")
    given = parser.parse_args()
    chosen = [each for each in REHEARSALS if not given.only or each.alert in given.only]
    with tempfile.TemporaryDirectory(prefix="br-") as home:
        outcomes = play(chosen, Path(home), given.times, given.at_once)
    print(table(outcomes))
    return int(any(each.fault for each in outcomes))


if __name__ == "__main__":
    sys.exit(main())
