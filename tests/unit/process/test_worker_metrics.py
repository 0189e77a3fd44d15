from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from prometheus_client import REGISTRY, Gauge

from bridge.commands import cli
from bridge.process.worker_metrics import metrics_directory, used
from bridge.web import metrics


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_the_directory_of_a_parent_that_runs_stays_and_what_nobody_uses_is_removed(places: Path) -> None:
    with metrics_directory() as first:
        left = first.with_name(first.name + "-left")
        left.mkdir()
        (left / "counter_1.db").touch()
        with metrics_directory() as second:
            assert {first, second} == set(places.iterdir())
    assert list(places.iterdir()) == []


def test_the_last_one_that_uses_it_removes_it(places: Path) -> None:
    with metrics_directory() as directory:
        one, other = used(directory), used(directory)
        one.__enter__()
        other.__enter__()
    assert list(places.iterdir()) == [directory]
    one.__exit__(None, None, None)
    assert list(places.iterdir()) == [directory]
    other.__exit__(None, None, None)
    assert list(places.iterdir()) == []


def test_no_gauge_outlives_its_worker() -> None:
    assert callable(cli.main)
    metrics.position()
    gauges = {each for each in REGISTRY._collector_to_names if isinstance(each, Gauge)}
    assert {each for each in gauges if not each._multiprocess_mode.startswith("live")} == set()
