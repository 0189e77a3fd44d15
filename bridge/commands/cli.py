"""The command line (docs/contract.md#commands): arguments, help, banners. What the commands do is elsewhere."""

from __future__ import annotations

import asyncio
import logging
import sys

import click

from bridge import __version__
from bridge.clock import SystemClock
from bridge.commands.check import run_check
from bridge.commands.cvms_command import cvms_command
from bridge.commands.forwarding import is_forwardable
from bridge.commands.keys import run_forget, run_rotate
from bridge.commands.listen import Received, Registration, Reply, received_line
from bridge.commands.listen import listen as receive
from bridge.commands.shell import TOKEN, URL, check_proxies, complain, end, run
from bridge.commands.tail import Request, follow
from bridge.commands.terminal import event_line, write_line
from bridge.commands.wait_command import wait_command
from bridge.commands.webhooks_command import webhooks_command
from bridge.config import Settings, SettingsError, load_settings
from bridge.process import logs
from bridge.process.dispatcher import run_dispatcher
from bridge.process.signals import until
from bridge.process.startup import StartupInfo
from bridge.process.up import run_up
from bridge.process.upstream import run_upstream
from bridge.process.web import run_web, run_web_workers
from bridge.sealing import new_key
from bridge.simulator.server import Running, run_simulator
from bridge.simulator.world import World
from bridge.uvicorn_server import unix_path
from bridge.webhook_formats import FORMATS

SIMULATED = "SIMULATED: these CVMs are made up (set PHALA_CLOUD_API_KEY to follow yours)"

_HOST = click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="bridge")
def main() -> None:
    """Follows Phala Cloud CVMs over at most five upstream streams, writes each change once into a numbered Redis log,
    and serves it to any number of subscribers.

    \b
    Try it without an account (a simulator takes the place of Phala Cloud):
      bridge up
      curl -N http://127.0.0.1:8000/v1/events
      bridge tail

    \b
    With your account:
      PHALA_CLOUD_API_KEY=phak_… BRIDGE_CVMS='*' bridge up

    \b
    In production, run any number of each:
      export REDIS_URL=redis://redis:6379/0
      BRIDGE_TOKENS=me:a-long-secret:admin  bridge web
      PHALA_CLOUD_API_KEY=phak_…            bridge upstream

    Settings come from the environment and from a .env file in the working directory. `bridge check` shows and tests
    them.
    """


@main.command()
def up() -> None:
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
    settings = _settings()
    run(lambda stop: run_up(settings, lambda startup: click.echo(_banner(startup)), stop))


@main.command()
@click.option(
    "--workers",
    envvar="WEB_CONCURRENCY",
    default=1,
    type=click.IntRange(1, 64),
    help="Processes that share the port; use one per core. Default: WEB_CONCURRENCY, or 1.",
)
@click.option("--worker", is_flag=True, hidden=True, help="Internal: this process is a worker that its parent started.")
@click.option("--listener", type=int, hidden=True, help="Internal: the file of the worker's socket.")
def web(workers: int, worker: bool, listener: int | None) -> None:
    """Runs a front end: it serves SSE and HTTP from Redis. Run as many as you like.

    It needs REDIS_URL and BRIDGE_TOKENS (or BRIDGE_AUTH=off), and listens on HOST and PORT, by default 0.0.0.0:8000. It
    waits for a Redis that is not there yet; until then /readyz is 503. Limits on subscribers apply to each worker.

    \b
    Examples:
      REDIS_URL=redis://redis:6379/0 BRIDGE_TOKENS=me:a-long-secret:admin bridge web
      bridge web --workers 4
    """
    settings = _settings()
    if workers > 1 and not worker:
        run(lambda stop: run_web_workers(settings, workers, stop))
    else:
        run(lambda stop: run_web(settings, stop, worker=worker, listener=listener))


@main.command()
def upstream() -> None:
    """Follows the CVMs at Phala Cloud and writes the log. One replica leads, the others stand by.

    It needs REDIS_URL and PHALA_CLOUD_API_KEY. On BRIDGE_PROBE_PORT it serves /healthz, /readyz and /metrics.

    \b
    Example:
      REDIS_URL=redis://redis:6379/0 PHALA_CLOUD_API_KEY=phak_… BRIDGE_CVMS='*' bridge upstream
    """
    settings = _settings()
    run(lambda stop: run_upstream(settings, stop))


@main.command()
def dispatcher() -> None:
    """Delivers events to webhooks: signed, in order for each CVM, at least once. Run as many as you like.

    It needs REDIS_URL and the same BRIDGE_SECRET_KEY as `bridge web`. On BRIDGE_PROBE_PORT it serves /healthz, /readyz
    and /metrics. Ctrl-C ends it after the attempts in flight.

    \b
    Example:
      REDIS_URL=redis://redis:6379/0 BRIDGE_SECRET_KEY=… bridge dispatcher
    """
    settings = _settings(proxies=False)  # webhooks go through no proxy
    run(lambda stop: run_dispatcher(settings, stop))


@main.command()
@_HOST
@click.option("--port", default=8088, show_default=True, type=click.IntRange(0, 65535), help="0 takes a free one.")
@click.option("--seed", default=0, show_default=True, help="The same seed gives the same CVMs and the same changes.")
@click.option("--cvms", default=12, show_default=True, type=click.IntRange(0, 10_000), help="Number of CVMs.")
@click.option(
    "--time-scale",
    default=1.0,
    show_default=True,
    type=click.FloatRange(0.001, 1000),
    help="Real seconds per simulated second; 0.1 is ten times faster.",
)
def simulate(host: str, port: int, seed: int, cvms: int, time_scale: float) -> None:
    """Runs a simulated Phala Cloud: CVMs that change by themselves, the state route, five streams per user.

    It accepts any API key. Under /control you set CVM states, cut or silence streams, and make answers fail or hang:
    see docs/simulator.md.

    \b
    Examples:
      bridge simulate --seed 7
      curl -H 'X-API-Key: any' 'http://127.0.0.1:8088/api/v1/cvms/paginated'
      curl -X PATCH http://127.0.0.1:8088/control/cvms/web-1 -d '{"status": "error"}'
    """
    _log()
    world = World(seed, cvms, now=SystemClock().time())
    work = run_simulator(host, port, world, time_scale=time_scale, announce=_announce_simulator)
    run(lambda stop: until(stop, work))


@main.command()
@click.argument("cvms", nargs=-1, metavar="[CVM]...")
@URL
@TOKEN
@click.option("--since", help="Begin with the events since this time (RFC 3339).")
@click.option("--type", "types", multiple=True, help="Only this type; repeat for several. Default: all about CVMs.")
def tail(cvms: tuple[str, ...], url: str, token: str | None, since: str | None, types: tuple[str, ...]) -> None:
    """Prints events as they happen: coloured lines on a terminal, one JSON envelope per line in a pipe.

    CVM is an id, a name, app_… (all CVMs of that app) or 'name:web-*' (all whose name fits); those of an app or a
    pattern come and go meanwhile. What is named is watched from now on. Without CVM it follows every watched CVM. After
    a broken connection it resumes without a gap.

    \b
    Examples:
      bridge tail
      bridge tail web-1 --since 2026-11-24T16:00:00Z
      bridge tail app_4d6a4bd2a5f1ec4a1a1ee43c2b3c4e5f60718293 'name:api-*'
      bridge tail --type endpoint.failing --type endpoint.recovered
      bridge tail | jq -r 'select(.type == "cvm.transition") | .data.name'
    """
    check_proxies()
    to_line = event_line if sys.stdout.isatty() else str
    request = Request(url.rstrip("/"), cvms, token, since, types)
    work = follow(request, lambda event: write_line(to_line(event)), complain)
    run(lambda stop: until(stop, work))


@main.command()
@URL
@click.option("--token", envvar="BRIDGE_TOKEN", help="A token of scope admin. Default: BRIDGE_TOKEN.")
@_HOST
@click.option("--port", default=0, type=click.IntRange(0, 65535), help="Port to listen on. Default: a free one.")
@click.option("--address", help="URL at which the bridge reaches this receiver. Default: host and port.")
@click.option(
    "--cvm", "cvms", multiple=True, help="Only this CVM: an id, a name, app_… or 'name:web-*'; repeat for several."
)
@click.option("--from", "from", multiple=True, help="Only transitions from this status; repeat for several.")
@click.option("--to", multiple=True, help="Only transitions to this status; repeat for several.")
@click.option("--type", "types", multiple=True, help="Only this type; repeat for several. Default: cvm.transition.")
@click.option("--format", default="standard", show_default=True, type=click.Choice(tuple(FORMATS)))
@click.option("--status", type=click.IntRange(200, 599), help="Status of the answers. Default: 200.")
@click.option("--delay", default=0.0, type=click.FloatRange(0, 3600), help="Seconds before each answer.")
@click.option("--fail", default=0.0, type=click.FloatRange(0, 1), help="Share of answers that are 500 instead, 0 to 1.")
@click.option("--forward-to", help="URL to which each webhook is posted on; its answer is given. Not with --status.")
def listen(
    url: str,
    token: str | None,
    host: str,
    port: int,
    address: str | None,
    status: int | None,
    delay: float,
    fail: float,
    forward_to: str | None,
    **filters: object,
) -> None:
    """Receives webhooks: registers itself at the bridge, verifies each webhook and prints it; ctrl-C unregisters it.

    It prints coloured lines on a terminal, and one JSON object per line in a pipe. It can answer slowly or with errors,
    to show what the bridge does then. With --forward-to it passes what it verified on, headers and body as they came,
    answers as the other receiver answers, and tells the secret of the signatures.

    \b
    Examples:
      bridge listen
      bridge listen --to running --format phala
      bridge listen --fail 0.5 --delay 3
      bridge listen --forward-to http://127.0.0.1:3000/hook
      bridge listen | jq .body.data.to
    """
    if forward_to is not None and (status is not None or not is_forwardable(forward_to)):
        raise click.UsageError("--forward-to takes an http or https URL, and excludes --status")
    check_proxies()
    fields = {name: value for name, value in filters.items() if value}  # options have the names of a body's fields
    registration = Registration(url=url.rstrip("/"), token=token, host=host, port=port, address=address, fields=fields)
    to_line = received_line if sys.stdout.isatty() else Received.to_json
    work = receive(
        registration, Reply(status or 200, delay, fail, forward_to), lambda each: write_line(to_line(each)), complain
    )
    _log(level="warning")
    run(lambda stop: until(stop, work))


@main.command()
def keygen() -> None:
    """Prints a new key for BRIDGE_SECRET_KEY, which seals webhook secrets in Redis.

    Every `bridge web` and `bridge dispatcher` needs the same key. `bridge keys rotate --help` tells how to change it.

    \b
    Example:
      export BRIDGE_SECRET_KEY=$(bridge keygen)
    """
    click.echo(new_key())


@main.group()
def keys() -> None:
    """Changes the keys that seal webhooks in Redis. It needs REDIS_URL, or uses the server of `bridge up`."""


@keys.command()
@click.option("--dry-run", is_flag=True, help="Only count.")
def rotate(dry_run: bool) -> None:
    """Seals everything anew with the first key of BRIDGE_SECRET_KEY, and counts what still needs another one.

    It is safe beside running processes. The exit status is 1 while something still needs another key.

    \b
    To change the key without a gap:
      1. append the new key to BRIDGE_SECRET_KEY, after a comma, in every place; restart
      2. put it in front in every place; restart
      3. bridge keys rotate
      4. remove the old key in every place
    """
    settings = _settings(proxies=False)
    run(lambda stop: until(stop, run_rotate(settings, click.echo, dry_run=dry_run)))


@keys.command()
@click.option("--yes", is_flag=True, help="Do not ask.")
def forget(yes: bool) -> None:
    """Deletes the webhooks that no key of BRIDGE_SECRET_KEY opens, because their key is lost."""
    settings = _settings(proxies=False)
    sure = (lambda question: True) if yes else click.confirm
    run(lambda stop: until(stop, run_forget(settings, click.echo, sure)))


@main.command()
def check() -> None:
    """Shows the settings in force, tests Redis and upstream, and tells how to correct what is wrong.

    The exit status is 1 if something is wrong. Secrets are masked.
    """
    settings = _settings(quiet=True)
    sys.exit(0 if asyncio.run(run_check(settings, click.echo)) else 1)


for command in (cvms_command, wait_command, webhooks_command):
    main.add_command(command)


def _settings(*, quiet: bool = False, proxies: bool = True) -> Settings:
    """The settings in force; `quiet` leaves logging alone. Ends the process with one line per wrong variable."""
    try:
        settings = load_settings()
    except SettingsError as error:
        end(str(error))
    if proxies:
        check_proxies()
    if not quiet:
        _log(settings.log_format, settings.log_level)
    for warning in settings.warnings:
        click.echo(f"warning: {warning}", err=True)
    return settings


def _log(form: logs.Format | None = None, level: str = "info") -> None:
    """Logs to stderr. uvicorn's own lines about starting and stopping are left out: the banner and the roles do it."""
    logs.configure(form, level)
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)


def _banner(startup: StartupInfo) -> str:
    """Commands to paste, and where everything is. Printed once the front end listens."""
    namespace, redis = startup.settings.namespace, startup.redis_url
    path = unix_path(startup.address)
    base = startup.address if path is None else f"--unix-socket {path} http://localhost"
    token = "" if startup.open_access else " --token $BRIDGE_TOKEN"
    bearer = "" if startup.open_access else '-H "Authorization: Bearer $BRIDGE_TOKEN" '
    lines = [
        ("address", startup.address),
        ("events", f"curl -N {bearer}{base}/v1/events"),
        ("webhooks", f"bridge listen --url {startup.address}{token}"),
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


def _access_line(startup: StartupInfo) -> str:
    if not startup.open_access:
        return f"by token: {', '.join(token.name for token in startup.settings.tokens)}"
    why = "BRIDGE_TOKENS is not set" if startup.settings.auth else "BRIDGE_AUTH=off"
    return f"OPEN, no token needed ({why})"


def _announce_simulator(running: Running) -> None:
    click.echo(f"PHALA_CLOUD_API_PREFIX={running.api_prefix}\ncontrol: {running.control} (ctrl-C ends it)")
