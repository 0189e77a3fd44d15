from __future__ import annotations

from typing import Any
from xml.etree import ElementTree

from benchmarks.fanout.figures import Herd, Round, Summary, delays, faults, goals, since_sent, spread
from benchmarks.fanout.report import goal_table, plot, table

MS = 1_000_000


def event(sent: int, first: int, step: float) -> dict[str, Any]:
    """As `load.c` reports one: receipts evenly spread, `step` milliseconds from one percent to the next."""
    return {"sent": sent * MS, "first": first * MS, "curve": [int(step * percent * MS) for percent in range(101)]}


def summary(name: str, *rounds: Round) -> Summary:
    return Summary(name, list(rounds))


def a_round(p99: float, **rest: Any) -> Round:
    return Round(spread=[p99 * percent / 99 for percent in range(101)], **rest)


def test_a_spread_is_the_median_event_from_its_first_receipt() -> None:
    events = [event(0, 2, 1.0), event(10, 13, 3.0), event(20, 21, 2.0)]
    assert spread(events)[50] == 100.0
    assert delays(events, 0) == [2.0, 3.0, 1.0]
    assert since_sent(events)[0] == 2.0


def test_an_event_that_nobody_received_has_no_times() -> None:
    lost = {"sent": 0, "first": 0, "curve": []}
    assert spread([lost, event(0, 1, 1.0)])[100] == 100.0
    assert delays([lost], 50) == []
    assert spread([lost]) == []


def test_every_kind_of_wrong_receipt_is_a_fault() -> None:
    assert faults({"missing": 1, "duplicates": 2, "disordered": 3, "lost": 4}) == 10


def test_a_fault_in_one_round_is_not_hidden_by_the_median() -> None:
    herd = Herd(served_s=2, unserved=1, live_p50=1, live_max=2, live_events=3, log_reads=0, overflows=0, faults=0)
    found = summary("bridge", a_round(100), a_round(100, faults=1), a_round(100, herd=herd))
    assert found.faults == 2


def test_a_herd_is_served_when_its_last_is_and_live_events_are_as_late_as_their_last_receipt() -> None:
    served = {
        "connections": 3,
        "all": 2,
        "served": [1_000 * MS, 2_500 * MS],
        "duplicates": 0,
        "disordered": 1,
        "lost": 0,
    }
    nobody = {"sent": 0, "first": 0, "received": 0, "curve": []}
    events = [event(0, 2, 0.1) | {"received": 4}, event(10, 11, 0.5) | {"received": 3}, nobody]
    heard = {"connections": 4, "events": events, "duplicates": 0, "disordered": 0, "lost": 0}
    herd = Herd.of(served, heard, 7, 0)
    assert (herd.served_s, herd.unserved, herd.live_max, herd.live_events) == (2.5, 1, 51.0, 2)
    assert herd.faults == 2


def test_goals_compare_the_medians_of_one_run() -> None:
    found = {
        "bridge": summary("bridge", a_round(60, connect_s=1.0, bytes_each=5000), a_round(90), a_round(70)),
        "nchan": summary("nchan", a_round(120), a_round(90), a_round(100)),
    }
    verdicts = {goal.what: goal for goal in goals(found)}
    nchan = verdicts["first to last receipt, p99, to nchan's"]
    assert (nchan.seen, nchan.met) == ("0.70 ×", True)
    assert verdicts["first to last receipt, p99, to the bare loop's"].met is None


def test_what_was_not_measured_is_a_dash_and_no_verdict() -> None:
    found = {"bridge": summary("bridge", a_round(60))}
    assert "–" in table(found.values())
    assert "not measured" in goal_table(found)


def test_the_plot_is_well_formed_and_names_everybody() -> None:
    drawing = plot({"bridge": [float(at) for at in range(101)], "slow": [20.0 * at for at in range(101)], "none": []})
    texts = [element.text for element in ElementTree.fromstring(drawing).iter() if element.text]  # noqa: S314
    assert "bridge" in texts
    assert "slow" in texts
    assert "none" not in texts
