"""What every command does on a command line: its common option, one line for an error, the exit status."""

from __future__ import annotations

import os
import sys
from typing import NoReturn

import click

from bridge.commands.proxies import proxy_faults
from bridge.process.signals import Body, CommandError, execute

URL = click.option(
    "--url",
    default="http://127.0.0.1:8000",
    show_default=True,
    envvar="BRIDGE_URL",
    help="URL of the bridge (or unix:/path).",
)


def check_proxies() -> None:
    """Ends the process with one line per variable that no request could be made with."""
    if faults := proxy_faults():
        end("\n".join(faults))


def end(message: str) -> NoReturn:
    click.echo(message, err=True)
    sys.exit(1)


def run(body: Body) -> None:
    """Runs until a signal. An error is one line and exit status 1; a pipe whose reader is gone is no error."""
    try:
        execute(body)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the flush at exit must not fail again
    except CommandError as error:
        end(str(error))
    except OSError as error:
        end(error.strerror or str(error))
    except KeyboardInterrupt:
        sys.exit(0)  # it came before our signal handlers


def complain(line: str) -> None:
    click.echo(line, err=True)
