from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from prometheus_client import REGISTRY, Gauge

from bridge.process.up import run_up
from bridge.process.worker_metrics import forget_worker, metrics_directory, used
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


def test_of_a_worker_that_has_ended_the_counters_stay_and_the_gauges_go(tmp_path: Path) -> None:
    for name in ("counter_7", "gauge_livesum_7", "gauge_livemin_7", "gauge_livesum_77"):
        (tmp_path / f"{name}.db").touch()
    forget_worker(tmp_path, 7)
    assert {each.stem for each in tmp_path.iterdir()} == {"counter_7", "gauge_livesum_77"}


def test_no_gauge_outlives_its_worker() -> None:
    assert callable(run_up)  # it brings every role along
    metrics.position()
    gauges = {each for each in REGISTRY._collector_to_names if isinstance(each, Gauge)}
    assert {each for each in gauges if not each._multiprocess_mode.startswith("live")} == set()
