"""Runs every benchmark but `hostile`, which takes minutes and tells promises, and prints its table."""

from __future__ import annotations

from benchmarks import batches, delivery_cost, freshness, hour, pace, planner, redis_cost, upstream_cost, webhooks
from benchmarks.fanout.run import run as fanout

planner.run()
batches.run()
hour.run()
pace.run()
upstream_cost.run()
freshness.run()
redis_cost.run()
delivery_cost.run()
webhooks.run()
fanout()
