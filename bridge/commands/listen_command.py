"""`bridge listen` on the command line."""

from __future__ import annotations

import sys

import click

from bridge.commands.shell import CVMS, FROM, HOST, TO, TOKEN, TYPES, URL, check_proxies, complain, log, run
from bridge.process.signals import until
from bridge.webhook_formats import FORMATS


@click.command("listen", short_help="Receives webhooks, verifies and prints them.")
@URL
@TOKEN
@HOST
@click.option("--port", default=0, type=click.IntRange(0, 65535), help="Port to listen on. Default: a free one.")
@click.option("--address", help="URL at which the bridge reaches this receiver. Default: host and port.")
@CVMS
@FROM
@TO
@TYPES
@click.option("--format", default="standard", show_default=True, type=click.Choice(tuple(FORMATS)))
@click.option("--status", type=click.IntRange(200, 599), help="Status of the answers. Default: 200.")
@click.option("--delay", default=0.0, type=click.FloatRange(0, 3600), help="Seconds before each answer.")
@click.option("--fail", default=0.0, type=click.FloatRange(0, 1), help="Share of answers that are 500 instead, 0 to 1.")
@click.option("--forward-to", help="URL to which each webhook is posted on; its answer is given. Not with --status.")
def listen_command(
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
    from bridge.commands.forwarding import is_forwardable
    from bridge.commands.listen import Received, Registration, Reply, listen, received_line
    from bridge.commands.terminal import write_line

    if forward_to is not None and (status is not None or not is_forwardable(forward_to)):
        raise click.UsageError("--forward-to takes an http or https URL, and excludes --status")
    check_proxies()
    fields = {name: value for name, value in filters.items() if value}  # options have the names of a body's fields
    registration = Registration(url=url.rstrip("/"), token=token, host=host, port=port, address=address, fields=fields)
    to_line = received_line if sys.stdout.isatty() else Received.to_json
    work = listen(
        registration, Reply(status or 200, delay, fail, forward_to), lambda each: write_line(to_line(each)), complain
    )
    log(level="warning")
    run(lambda stop: until(stop, work))
