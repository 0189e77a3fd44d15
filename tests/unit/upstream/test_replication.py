"""Which writes count while replicas of Redis follow, are silent, or are gone."""

from __future__ import annotations

import pytest

from bridge.store.replicas import Copies
from bridge.upstream.replication import CONFIRM_MS, EXPECTED_FOR, IGNORED_AFTER, Replication

WELL = Copies(1, 1, "one")
SILENT = Copies(0, 1, "one")
ALONE = Copies(0, 0, "one")


def seen(*looks: Copies) -> Replication:
    """One look a second, from 0 on."""
    replication = Replication()
    for now, copies in enumerate(looks):
        replication.observe(copies, float(now))
    return replication


def test_without_replicas_everything_counts_and_nothing_waits() -> None:
    replication = seen(ALONE)
    assert replication.counts(0)
    assert not replication.is_missing(0)
    assert (replication.renewal_waits(10), replication.take_waits(0)) == (0, 0)


def test_a_renewal_counts_once_the_replica_has_it() -> None:
    assert seen(Copies(None, 1, "one")).counts(0), "nobody asked yet"
    replication = seen(WELL)
    assert (replication.renewal_waits(10), replication.renewal_waits(1)) == (CONFIRM_MS, 250)
    replication.observe(SILENT, 1)
    assert not replication.counts(1)
    assert replication.take_waits(1)
    replication.observe(WELL, 2)
    assert replication.counts(2)


def test_a_replica_that_never_confirms_is_ignored_after_a_while() -> None:
    replication = seen(SILENT)
    assert replication.take_waits(0)
    assert not replication.counts(0)
    replication.observe(SILENT, IGNORED_AFTER + 1)
    assert replication.counts(IGNORED_AFTER + 1)
    assert not replication.take_waits(IGNORED_AFTER + 1)


def test_after_the_last_replica_went_the_lease_goes_on_and_no_stream_is_opened() -> None:
    replication = seen(WELL, ALONE)
    assert replication.counts(1)
    assert replication.is_missing(1)
    assert replication.take_waits(1)
    replication.observe(ALONE, EXPECTED_FOR)
    assert not replication.is_missing(EXPECTED_FOR)
    assert not replication.take_waits(EXPECTED_FOR)


def test_a_promoted_replica_is_another_primary_and_may_be_alone() -> None:
    replication = seen(WELL, Copies(0, 0, "two"))
    assert replication.counts(1)
    assert not replication.is_missing(1)
    assert not replication.take_waits(1)


def test_each_trouble_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    seen(Copies(), Copies(), WELL, SILENT, SILENT, WELL, ALONE, ALONE, WELL, SILENT)
    said = [record.message.split(":")[0] for record in caplog.records]
    assert said == [
        "Redis does not tell whether it has replicas",
        "no replica of Redis confirms what is written",
        "Redis lost its replicas",
        "no replica of Redis confirms what is written",
    ]
