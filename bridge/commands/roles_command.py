"""`bridge up`, `web`, `upstream` and `dispatcher` on the command line."""

from __future__ import annotations

import os
import shutil
import sys
from typing import TYPE_CHECKING

import click

from bridge import __version__
from bridge.commands.shell import load, run

if TYPE_CHECKING:
    from bridge.process.signals import Body
    from bridge.process.startup import StartupInfo

SIMULATED = "SIMULATED: these CVMs are made up (set PHALA_CLOUD_API_KEY to follow yours)"


@click.command("up", short_help="Runs everything in one process.")
def up_command() -> None:
    """Runs everything in one process: front end, upstream and dispatcher.

    Without REDIS_URL it starts a Redis server, which keeps its data in your state directory. Without
    PHALA_CLOUD_API_KEY it starts a simulator in place of Phala Cloud. Without BRIDGE_TOKENS it needs no token and
    serves this machine alone. Ctrl-C ends it; the next start keeps the history.

    \b
    Examples:
      bridge up
      PORT=9000 bridge up
      PHALA_CLOUD_API_KEY=phak_… BRIDGE_CVMS=web-1,web-2 bridge up
    """
    from bridge.process.up import run_up

    settings = load(on_terminal="warning")  # so that the banner stays in sight
    _run(lambda stop: run_up(settings, lambda startup: click.echo(_banner(startup)), stop))


@click.command("web")
@click.option(
    "--workers",
    envvar="WEB_CONCURRENCY",
    default=1,
    type=click.IntRange(1, 64),
    help="Processes that share the port; use one per core. Default: WEB_CONCURRENCY, or 1.",
)
@click.option("--worker", is_flag=True, hidden=True, help="Internal: this process is a worker that its parent started.")
@click.option("--listener", type=int, hidden=True, help="Internal: the file of the worker's socket.")
def web_command(workers: int, worker: bool, listener: int | None) -> None:
    """Runs a front end: it serves SSE and HTTP from Redis. Run as many as you like.

    It needs REDIS_URL and BRIDGE_TOKENS (or BRIDGE_AUTH=off), and listens on HOST and PORT, by default 0.0.0.0:8000. It
    waits for a Redis that is not there yet; until then /readyz is 503. Limits on subscribers apply to each worker.

    \b
    Examples:
      REDIS_URL=redis://redis:6379/0 BRIDGE_TOKENS=me:a-long-secret:admin bridge web
      bridge web --workers 4
    """
    from bridge.process.web import run_web, run_web_workers

    settings = load()
    if workers > 1 and not worker:
        _run(lambda stop: run_web_workers(settings, workers, stop))
    else:
        _run(lambda stop: run_web(settings, stop, worker=worker, listener=listener))


@click.command("upstream")
def upstream_command() -> None:
    """Follows the CVMs at Phala Cloud and writes the log. One replica leads, the others stand by.

    It needs REDIS_URL and PHALA_CLOUD_API_KEY. On BRIDGE_PROBE_PORT it serves /healthz, /readyz and /metrics.

    \b
    Example:
      REDIS_URL=redis://redis:6379/0 PHALA_CLOUD_API_KEY=phak_… BRIDGE_CVMS='*' bridge upstream
    """

    from bridge.process.upstream import run_upstream

    settings = load()
    _run(lambda stop: run_upstream(settings, stop))


@click.command("dispatcher", short_help="Delivers events to webhooks, signed and in order.")
def dispatcher_command() -> None:
    """Delivers events to webhooks: signed, in order for each CVM, at least once. Run as many as you like.

    It needs REDIS_URL and the same BRIDGE_SECRET_KEY as `bridge web`. On BRIDGE_PROBE_PORT it serves /healthz, /readyz
    and /metrics. Ctrl-C ends it after the attempts in flight.

    \b
    Example:
      REDIS_URL=redis://redis:6379/0 BRIDGE_SECRET_KEY=… bridge dispatcher
    """
    from bridge.process.dispatcher import run_dispatcher

    settings = load(proxies=False)  # webhooks go through no proxy
    _run(lambda stop: run_dispatcher(settings, stop))


def _run(work: Body) -> None:
    """Runs a role, whose spans are exported where a collector is named."""
    from bridge.process.span_export import exporting

    with exporting():
        run(work)


def _banner(startup: StartupInfo) -> str:
    """Commands to paste, and where everything is. Printed once the front end listens."""
    from bridge.uvicorn_server import unix_path

    namespace, redis = startup.settings.namespace, startup.redis_url
    path = unix_path(startup.address)
    base = startup.address if path is None else f"--unix-socket {path} http://localhost"
    token = "" if startup.open_access else " --token $BRIDGE_TOKEN"
    bearer = "" if startup.open_access else '-H "Authorization: Bearer $BRIDGE_TOKEN" '
    lines = [
        ("address", startup.address),
        ("events", f"curl -N {bearer}{base}/v1/events"),
        ("webhooks", f"{_program()} listen --url {startup.address}{token}"),
        ("Redis", redis),
        ("channel", f"redis-cli -u {redis} SUBSCRIBE '{{{namespace}}}:events'"),
        ("log", f"redis-cli -u {redis} XRANGE '{{{namespace}}}:log' - + COUNT 10"),
        ("upstream", SIMULATED if startup.simulated else startup.settings.api_prefix),
        ("access", _access_line(startup)),
    ]
    if startup.embedded:
        lines.append(("data", str(startup.embedded.directory)))
    shown = "\n".join(f"  {name:<10}{text}" for name, text in lines)
    return f"bridge {__version__} is up (ctrl-C ends it)\n\n{shown}\n"


def _program() -> str:
    """How a shell finds this program: by its name if it is on the PATH, else as it was called."""
    called, found = sys.argv[0], shutil.which("bridge")
    is_command = os.path.basename(called) == "bridge"
    return called if is_command and os.path.realpath(found or "") != os.path.realpath(called) else "bridge"


def _access_line(startup: StartupInfo) -> str:
    if not startup.open_access:
        return f"by token: {', '.join(token.name for token in startup.settings.tokens)}"
    why = "BRIDGE_TOKENS is not set" if startup.settings.auth else "BRIDGE_AUTH=off"
    return f"OPEN, no token needed ({why})"
