"""The commands (contract section 5): arguments and words for people; what they run is in `roles`, `tail`, `check`."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from typing import NoReturn

import click

from bridge import __version__
from bridge.commands.check import run_check
from bridge.commands.listen import Received, Registration, Reply, colourful_line
from bridge.commands.listen import listen as receive
from bridge.commands.tail import GivenUpError, Request, colourful, follow
from bridge.config import Settings, SettingsError, load_settings
from bridge.process import logs
from bridge.process.dispatcher import run_dispatcher
from bridge.process.errors import StartError
from bridge.process.signals import Body, execute, until
from bridge.process.startup import StartupInfo
from bridge.process.up import run_up
from bridge.process.upstream import run_upstream
from bridge.process.web import run_web, run_web_workers
from bridge.sealing import new_key
from bridge.simulator.server import Running, run_simulator
from bridge.store.endpoints import FORMATS

CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


@click.group(context_settings=CONTEXT)
@click.version_option(__version__, prog_name="bridge")
def main() -> None:
    """Follows Phala Cloud CVMs over at most five upstream streams, writes each change once into a numbered Redis log,
    and serves it to any number of subscribers.

    \b
    Try it, with nothing set up (a simulator plays Phala Cloud):
      bridge up
      curl -N http://127.0.0.1:8000/v1/events
      bridge tail

    \b
    With your account:
      PHALA_CLOUD_API_KEY=phak_… BRIDGE_CVMS='*' bridge up

    \b
    In production, any number of each:
      export REDIS_URL=redis://redis:6379/0
      BRIDGE_TOKENS=me:a-long-secret:admin  bridge web
      PHALA_CLOUD_API_KEY=phak_…            bridge upstream

    Settings come from the environment and from a .env file here; `bridge check` shows and tries them.
    """


@main.command()
def up() -> None:
    """Everything in one process: front end, upstream, and what is missing.

    Without REDIS_URL it starts a Redis server that keeps its data in your state directory; without
    PHALA_CLOUD_API_KEY a simulator plays Phala Cloud, and says so. Without BRIDGE_TOKENS it is open, to this machine
    alone. Ctrl-C ends it; history is there again at the next start.

    \b
    Examples:
      bridge up
      PORT=9000 bridge up
      PHALA_CLOUD_API_KEY=phak_… BRIDGE_CVMS=web-1,web-2 bridge up
    """
    settings = _settings()
    _execute(lambda stop: run_up(settings, lambda startup: click.echo(_banner(startup)), stop))


@main.command()
@click.option(
    "--workers",
    envvar="WEB_CONCURRENCY",
    default=1,
    show_default=True,
    type=click.IntRange(1, 64),
    help="Processes on the one port, one a core. Also: WEB_CONCURRENCY.",
)
@click.option("--worker", is_flag=True, hidden=True, help="One of them; its parent starts it.")
def web(workers: int, worker: bool) -> None:
    """One front end: SSE and HTTP from what is in Redis. Run as many as you like.

    Needs REDIS_URL and BRIDGE_TOKENS (or BRIDGE_AUTH=off). Listens on HOST and PORT, 0.0.0.0:8000. A Redis that is
    not there yet is waited for; until then /readyz is 503. Limits on subscribers hold for each worker.

    \b
    Examples:
      REDIS_URL=redis://redis:6379/0 BRIDGE_TOKENS=me:a-long-secret:admin bridge web
      bridge web --workers 4
    """
    settings = _settings()
    if workers > 1 and not worker:
        _execute(lambda stop: run_web_workers(settings, workers, stop))
    else:
        _execute(lambda stop: run_web(settings, stop, worker=worker))


@main.command()
def upstream() -> None:
    """Follows the CVMs at Phala Cloud and writes the log. One replica leads, the others stand by.

    Needs REDIS_URL and PHALA_CLOUD_API_KEY. BRIDGE_PROBE_PORT serves /healthz, /readyz and /metrics.

    \b
    Example:
      REDIS_URL=redis://redis:6379/0 PHALA_CLOUD_API_KEY=phak_… BRIDGE_CVMS='*' bridge upstream
    """
    settings = _settings()
    _execute(lambda stop: run_upstream(settings, stop))


@main.command()
def dispatcher() -> None:
    """Delivers events to webhooks: signed, in order for each CVM, at least once. Run as many as you like.

    Needs REDIS_URL and the BRIDGE_SECRET_KEY that `bridge web` has. BRIDGE_PROBE_PORT serves /healthz, /readyz and
    /metrics. Ctrl-C finishes what is in flight first.

    \b
    Example:
      REDIS_URL=redis://redis:6379/0 BRIDGE_SECRET_KEY=… bridge dispatcher
    """
    settings = _settings()
    _execute(lambda stop: run_dispatcher(settings, stop))


@main.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Where to listen.")
@click.option("--port", default=8088, show_default=True, type=click.IntRange(0, 65535), help="0: any free port.")
@click.option("--seed", default=0, show_default=True, help="The same seed gives the same CVMs and lives.")
@click.option("--cvms", default=12, show_default=True, type=click.IntRange(0, 10_000), help="How many CVMs there are.")
@click.option(
    "--time-scale", default=1.0, show_default=True, type=click.FloatRange(0.001, 1000), help="0.1: 10× faster."
)
def simulate(host: str, port: int, seed: int, cvms: int, time_scale: float) -> None:
    """A simulated Phala Cloud alone: the state route in both modes, the limit of five streams, lives worth watching.

    Any API key is good. Tests steer it over HTTP under /control.

    \b
    Examples:
      bridge simulate --seed 7
      curl -H 'X-API-Key: any' 'http://127.0.0.1:8088/api/v1/cvms/paginated'
    """
    _log()
    work = run_simulator(host, port, seed, cvms=cvms, time_scale=time_scale, announce=_announce_simulator)
    _execute(lambda stop: until(stop, work))


@main.command()
@click.argument("cvms", nargs=-1, metavar="[CVM]...")
@click.option("--url", default="http://127.0.0.1:8000", show_default=True, envvar="BRIDGE_URL", help="The bridge.")
@click.option("--token", envvar="BRIDGE_TOKEN", help="Default: the variable BRIDGE_TOKEN.")
@click.option("--since", help="Begin with what happened since then: an RFC 3339 time.")
def tail(cvms: tuple[str, ...], url: str, token: str | None, since: str | None) -> None:
    """Follows events: coloured lines on a terminal, one JSON envelope a line in a pipe.

    A broken connection is taken up where it ended. Without CVM, every watched one; a single CVM that nobody watches
    yet is watched from now on.

    \b
    Examples:
      bridge tail
      bridge tail web-1 --since 2026-11-24T16:00:00Z
      bridge tail | jq -r 'select(.type == "cvm.transition") | .data.name'
    """
    dress = colourful if sys.stdout.isatty() else str
    request = Request(url.rstrip("/"), cvms, token, since)
    work = follow(request, lambda event: _write(dress(event)), lambda trouble: click.echo(trouble, err=True))
    _execute(lambda stop: until(stop, work))


@main.command()
@click.option("--url", default="http://127.0.0.1:8000", show_default=True, envvar="BRIDGE_URL", help="The bridge.")
@click.option("--token", envvar="BRIDGE_TOKEN", help="Of scope admin. Default: the variable BRIDGE_TOKEN.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Where to listen.")
@click.option("--port", default=0, type=click.IntRange(0, 65535), help="Default: any free port.")
@click.option("--address", help="Where the bridge reaches this receiver. Default: where it listens.")
@click.option("--cvm", "cvms", multiple=True, help="Only this CVM; repeat for several.")
@click.option("--from", "from_", multiple=True, help="Only transitions from this status; repeat for several.")
@click.option("--to", multiple=True, help="Only transitions to this status; repeat for several.")
@click.option("--type", "types", multiple=True, help="Events of this type; repeat. Default: cvm.transition.")
@click.option(
    "--format", "form", default="standard", show_default=True, type=click.Choice(tuple(FORMATS)), help="Of bodies."
)
@click.option("--status", default=200, show_default=True, type=click.IntRange(200, 599), help="Answer with this.")
@click.option("--delay", default=0.0, type=click.FloatRange(0, 3600), help="Seconds to wait before an answer.")
@click.option("--fail", default=0.0, type=click.FloatRange(0, 1), help="Share of answers that are 500 instead.")
def listen(
    url: str,
    token: str | None,
    host: str,
    port: int,
    address: str | None,
    cvms: tuple[str, ...],
    from_: tuple[str, ...],
    to: tuple[str, ...],
    types: tuple[str, ...],
    form: str,
    status: int,
    delay: float,
    fail: float,
) -> None:
    """Receives webhooks here: registers itself at the bridge, verifies signatures, prints; ctrl-C unregisters it.

    Coloured lines on a terminal, one JSON object a line in a pipe. It can answer slowly or with errors, to see what the
    bridge then does.

    \b
    Examples:
      bridge listen
      bridge listen --to running --format phala
      bridge listen --fail 0.5 --delay 3
      bridge listen | jq .body.data.to
    """
    fields: dict[str, object] = {"cvms": cvms, "from": from_, "to": to, "format": form}
    registration = Registration(
        url.rstrip("/"), token, host, port, address, fields | ({"types": types} if types else {})
    )
    dress = colourful_line if sys.stdout.isatty() else Received.to_json
    reply = Reply(status, delay, fail)
    work = receive(registration, reply, lambda each: _write(dress(each)), lambda line: click.echo(line, err=True))
    _log(level="warning")
    _execute(lambda stop: until(stop, work))


@main.command()
def keygen() -> None:
    """Prints a new key for BRIDGE_SECRET_KEY, which seals webhook secrets in Redis.

    Every `bridge web` and `bridge dispatcher` needs the same. To change it, put the new one in front of the old one,
    separated by a comma, everywhere; the first seals, all of them open.

    \b
    Example:
      export BRIDGE_SECRET_KEY=$(bridge keygen)
    """
    click.echo(new_key())


@main.command()
def check() -> None:
    """Shows the settings in force, tries Redis and upstream, and says what is wrong and how to mend it.

    Exit status 1 where something is wrong. Secrets are masked.
    """
    settings = _settings(quiet=True)
    healthy = asyncio.run(run_check(settings, click.echo))
    sys.exit(0 if healthy else 1)


def _settings(*, quiet: bool = False) -> Settings:
    """In force, with logging as they say; ends the process with a line per variable where they are wrong."""
    try:
        settings = load_settings()
    except SettingsError as error:
        _end(str(error))
    if not quiet:
        _log(settings.log_format, settings.log_level)
    for warning in settings.warnings:
        click.echo(f"warning: {warning}", err=True)
    return settings


def _log(form: logs.Format | None = None, level: str = "info") -> None:
    """To stderr. The servers' own starting and stopping is told by the banner and by the roles."""
    logs.configure(form, level)
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)


def _end(message: str) -> NoReturn:
    click.echo(message, err=True)
    sys.exit(1)


def _execute(body: Body) -> None:
    """Runs until a signal: exit status 0. A refusal is one line and exit status 1; a reader that went away is quiet."""
    try:
        execute(body, GivenUpError, OSError)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the flush at exit must not fail again
    except (StartError, GivenUpError) as error:
        _end(str(error))
    except OSError as error:
        _end(error.strerror or str(error))
    except KeyboardInterrupt:
        sys.exit(0)  # before the signals were ours


def _write(line: str) -> None:
    """At once, also into a pipe. Raises BrokenPipeError where nobody reads any more."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def _banner(startup: StartupInfo) -> str:
    """What to paste where. Printed once the front end listens."""
    namespace, redis = startup.settings.namespace, startup.redis_url
    bearer = "" if startup.open_access else '-H "Authorization: Bearer $BRIDGE_TOKEN" '
    lines = [
        ("address", startup.address),
        ("events", f"curl -N {bearer}{startup.address}/v1/events"),
        (
            "webhooks",
            f"bridge listen --url {startup.address}{'' if startup.open_access else ' --token $BRIDGE_TOKEN'}",
        ),
        ("Redis", redis),
        ("channel", f"redis-cli -u {redis} SUBSCRIBE '{{{namespace}}}:events'"),
        ("log", f"redis-cli -u {redis} XRANGE '{{{namespace}}}:log' - + COUNT 10"),
        ("upstream", _upstream_line(startup)),
        ("access", _access_line(startup)),
    ]
    if startup.embedded:
        lines.append(("data", str(startup.embedded.directory)))
    shown = "\n".join(f"  {name:<10}{text}" for name, text in lines)
    return f"bridge {__version__} is up (ctrl-C ends it)\n\n{shown}\n"


def _upstream_line(startup: StartupInfo) -> str:
    if startup.simulated:
        return "SIMULATED: these CVMs are made up (set PHALA_CLOUD_API_KEY to follow yours)"
    return startup.settings.api_prefix


def _access_line(startup: StartupInfo) -> str:
    if not startup.open_access:
        return f"by token: {', '.join(token.name for token in startup.settings.tokens)}"
    why = "BRIDGE_TOKENS is not set" if startup.settings.auth else "BRIDGE_AUTH=off"
    return f"OPEN, no token needed ({why})"


def _announce_simulator(running: Running) -> None:
    click.echo(f"PHALA_CLOUD_API_PREFIX={running.api_prefix}\ncontrol: {running.control} (ctrl-C ends it)")
