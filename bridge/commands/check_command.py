"""`bridge check` on the command line."""

from __future__ import annotations

import asyncio
import sys

import click

from bridge.commands.shell import load


@click.command("check", short_help="Tests settings, Redis and upstream; tells what to correct.")
def check_command() -> None:
    """Shows the settings in force, tests Redis and upstream, and tells how to correct what is wrong.

    The exit status is 1 if something is wrong. Secrets are masked.
    """
    from bridge.commands.check import run_check

    settings = load(quiet=True)
    sys.exit(0 if asyncio.run(run_check(settings, click.echo)) else 1)
