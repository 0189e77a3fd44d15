"""What is broken for each alert, and how docs/operations.md mends it."""

from __future__ import annotations

from tests.alerts.front_end_faults import FRONT_END
from tests.alerts.redis_faults import REDIS
from tests.alerts.upstream_faults import UPSTREAM
from tests.alerts.webhook_faults import WEBHOOKS

REHEARSALS = [*UPSTREAM, *REDIS, *WEBHOOKS, *FRONT_END]
