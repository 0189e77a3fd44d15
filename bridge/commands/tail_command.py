"""`bridge tail` on the command line."""

from __future__ import annotations

import sys

import click

from bridge.commands.shell import TOKEN, URL, check_proxies, complain, run
from bridge.process.signals import until


@click.command("tail", short_help="Prints events as they happen.")
@click.argument("cvms", nargs=-1, metavar="[CVM]...")
@URL
@TOKEN
@click.option("--since", help="Begin with the events since this time (RFC 3339).")
@click.option("--type", "types", multiple=True, help="Only this type; repeat for several. Default: all about CVMs.")
def tail_command(cvms: tuple[str, ...], url: str, token: str | None, since: str | None, types: tuple[str, ...]) -> None:
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
    from bridge.commands.tail import Request, follow
    from bridge.commands.terminal import event_line, write_line

    check_proxies()
    to_line = event_line if sys.stdout.isatty() else str
    request = Request(url.rstrip("/"), cvms, token, since, types)
    work = follow(request, lambda event: write_line(to_line(event)), complain)
    run(lambda stop: until(stop, work))
