"""Runs every benchmark and prints its table."""

from __future__ import annotations

from benchmarks import planner

planner.run()
