"""Plays rehearsals, some at a time, under one Prometheus."""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from tests.alerts.rules import SCRAPED_EVERY, longest, read_rules, shortened
from tests.alerts.stage import Stage
from tests.alerts.waiting import until
from tests.prometheus import Prometheus, prometheus
from tests.servers import RealServer


@dataclass(frozen=True, kw_only=True)
class Rehearsal:
    """`steps` yields three times: when the bridge is well, when it is broken, and never or when it is mended."""

    alert: str
    broken: str
    mended: str
    steps: Callable[[Stage], Generator[None, None, None]]
    beside: tuple[str, ...] = ()
    """Other alerts that rightly fire too."""


WELL = Rehearsal(alert="none", broken="nothing", mended="", steps=lambda _: (_ for _ in ()))


@dataclass
class Outcome:
    rehearsal: Rehearsal
    fired: float | None = None
    resolved: float | None = None
    """Seconds since it was broken, or mended."""
    fault: str = ""


class Watched:
    """One bridge's alerts in Prometheus."""

    def __init__(self, server: Prometheus, namespace: str) -> None:
        self._server = server
        self._namespace = namespace

    def states(self) -> dict[str, str]:
        """`firing` or `pending`, by alert."""
        found: Iterable[dict[str, Any]] = self._server.get("alerts")["alerts"]
        return {
            each["labels"]["alertname"]: each["state"]
            for each in found
            if each["labels"].get("namespace") == self._namespace
        }

    def fired_since(self, begun_at: float) -> set[str]:
        """Since this moment, monotonic."""
        seconds = math.ceil(time.monotonic() - begun_at)
        chosen = f'ALERTS{{alertstate="firing",namespace="{self._namespace}"}}[{seconds}s]'
        query = f"count by (alertname) (count_over_time({chosen}))"
        return {each["metric"]["alertname"] for each in self._server.get("query", query=query)["result"]}

    def is_scraped(self) -> bool:
        return not self._server.query(f'up{{namespace="{self._namespace}"}} == 0') and self._server.query(
            f'count_over_time(up{{namespace="{self._namespace}"}}[5m]) >= 3'
        )


def play(rehearsals: list[Rehearsal], home: Path, times: float, at_once: int) -> list[Outcome]:
    """In their order."""
    rules, targets, durations = home / "rules.json", home / "targets", longest(read_rules())
    rules.write_text(json.dumps(shortened(read_rules(), times)))  # JSON is YAML
    targets.mkdir()
    scraped = {"file_sd_configs": [{"files": [f"{targets}/*.json"], "refresh_interval": "1s"}]}
    (home / "prometheus").mkdir()
    with prometheus(home / "prometheus", rules, scraped, SCRAPED_EVERY / times) as server:
        patience = 60 + 5400 / times  # the longest window, and half of it

        def rehearse(number: int, rehearsal: Rehearsal) -> Outcome:
            outcome = Outcome(rehearsal)
            own = home / f"{number}"
            own.mkdir()
            try:
                _rehearse(outcome, Watched(server, f"{number}"), own, targets, patience)
            except (AssertionError, OSError, httpx.HTTPError) as error:
                outcome.fault = outcome.fault or f"{type(error).__name__}: {error}"
            print(_line(outcome), file=sys.stderr, flush=True)
            return outcome

        longest_first = sorted(range(len(rehearsals)), key=lambda each: -durations[rehearsals[each].alert])
        with _well(Watched(server, "well"), home, targets) as well, ThreadPoolExecutor(at_once) as pool:
            begun = {each: pool.submit(rehearse, each, rehearsals[each]) for each in longest_first}
            done = [begun[each].result() for each in range(len(rehearsals))]
        return [*done, well]


@contextmanager
def _well(watched: Watched, home: Path, targets: Path) -> Iterator[Outcome]:
    """A bridge that is well all the time: none of its alerts may fire, and it hides none of the others'."""
    own, outcome = home / "well", Outcome(WELL)
    own.mkdir()
    with RealServer(tcp=True) as server, closing(Stage("well", own, targets, server)) as stage:
        stage.start_all()
        begun_at = time.monotonic()
        yield outcome
        if fired := watched.fired_since(begun_at):
            outcome.fault = f"fired: {', '.join(sorted(fired))}"


def _rehearse(outcome: Outcome, watched: Watched, home: Path, targets: Path, patience: float) -> None:
    rehearsal = outcome.rehearsal
    with RealServer(tcp=True) as server:
        stage = Stage(home.name, home, targets, server)
        steps = rehearsal.steps(stage)
        try:
            next(steps)
            until(lambda: watched.is_scraped() and not watched.states(), "a bridge without alerts")
            broken_at = time.monotonic()
            next(steps)
            until(lambda: watched.states().get(rehearsal.alert) == "firing", "the alert", patience)
            outcome.fired = time.monotonic() - broken_at
            mended_at = time.monotonic()
            next(steps, None)
            until(lambda: rehearsal.alert not in watched.states(), "its end", patience)
            outcome.resolved = time.monotonic() - mended_at
            stage.until_well()
            assert watched.states().get(rehearsal.alert) != "firing", "it fires again"
            others = watched.fired_since(broken_at) - {rehearsal.alert, *rehearsal.beside}
            assert not others, f"fired too: {', '.join(sorted(others))}"
        except AssertionError as error:
            raise AssertionError(f"{error} {watched.states()}") from error
        finally:
            steps.close()
            stage.close()


def _line(outcome: Outcome) -> str:
    def seconds(value: float | None) -> str:
        return "" if value is None else f"{value:.0f} s"

    rehearsal = outcome.rehearsal
    cells = [rehearsal.alert, rehearsal.broken, seconds(outcome.fired), rehearsal.mended, seconds(outcome.resolved)]
    return f"| {' | '.join([*cells, outcome.fault])} |"


def table(outcomes: list[Outcome]) -> str:
    head = "| alert | provoked by | fired after | mended by | resolved after | fault |"
    return "\n".join([head, "| --- | --- | --- | --- | --- | --- |", *map(_line, outcomes)])
