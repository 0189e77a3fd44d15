"""What a process imports before it forks `bridge` commands, so that none of them spends time on it."""

from __future__ import annotations

import gc
import importlib
import pkgutil
import ssl

import certifi

from bridge import commands
from tests import authorities

for each in pkgutil.iter_modules(commands.__path__, "bridge.commands."):
    importlib.import_module(each.name)
for name in (
    *("bridge.process.up", "bridge.process.web", "bridge.process.upstream", "bridge.process.dispatcher"),
    *("bridge.process.logs", "bridge.process.span_export", "bridge.simulator.server"),
    *("anyio._backends._asyncio", "httpcore", "uvicorn.lifespan.on", "uvloop"),
):
    importlib.import_module(name)
authorities.read_once()
ssl.create_default_context(cafile=certifi.where())
gc.collect()
gc.freeze()
