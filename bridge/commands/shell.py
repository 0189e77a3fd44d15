"""What every command does on a command line: its common options, one line for an error, the exit status."""

from __future__ import annotations

import logging
import os
import re
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NoReturn

import click

from bridge.process.signals import Body, CommandError, execute

if TYPE_CHECKING:
    from bridge.config import Settings
    from bridge.process import logs

LONGEST = 24 * 3600
"""Seconds."""

_DURATION = re.compile(r"(\d{1,6})(s|m|h|)", re.ASCII)
_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600}

URL = click.option(
    "--url",
    default="http://127.0.0.1:8000",
    show_default=True,
    envvar="BRIDGE_URL",
    help="URL of the bridge (or unix:/path).",
)

TOKEN = click.option(
    "--token",
    envvar="BRIDGE_TOKEN",
    help="A token of the bridge. Default: BRIDGE_TOKEN, which is better: others see a process's arguments.",
)

CVMS = click.option(
    "--cvm", "cvms", multiple=True, help="Only this CVM: an id, a name, app_… or 'name:web-*'; repeat for several."
)
FROM = click.option("--from", "from", multiple=True, help="Only transitions from this status; repeat for several.")
TO = click.option("--to", multiple=True, help="Only transitions to this status; repeat for several.")
TYPES = click.option(
    "--type", "types", multiple=True, help="Only this type; repeat for several. Default: cvm.transition."
)
"""The filters of an endpoint, under the names of the fields of its body."""

HOST = click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")


def checked(read: Callable[[Any], Any]) -> Callable[[click.Context, click.Parameter, Any], Any]:
    """A callback of an argument or option whose text `read` turns into a value, or refuses with a ValueError."""

    def callback(context: click.Context, parameter: click.Parameter, value: Any) -> Any:
        try:
            return tuple(map(read, value)) if isinstance(value, tuple) else read(value)
        except ValueError as error:
            raise click.BadParameter(str(error)) from None

    return callback


def duration(text: str) -> float:
    """Seconds. Raises ValueError."""
    match = _DURATION.fullmatch(text)
    seconds = int(match[1]) * _SECONDS[match[2]] if match else -1
    if not 0 <= seconds <= LONGEST:
        raise ValueError("from 0 to 24h, as 90s, 10m or 2h")
    return float(seconds)


def check_proxies() -> None:
    """Ends the process with one line per variable that no request could be made with."""
    if faults := _proxy_faults():
        end("\n".join(faults))


def require_proxies() -> None:
    """As `check_proxies`, with the exit status of wrong arguments. Raises click.UsageError."""
    if faults := _proxy_faults():
        raise click.UsageError("\n".join(faults))


def _proxy_faults() -> list[str]:
    from bridge.commands.proxies import proxy_faults

    return proxy_faults()


def end(message: str) -> NoReturn:
    click.echo(message, err=True)
    sys.exit(1)


def run(body: Body) -> None:
    """Runs until a signal. An error is one line and exit status 1; a pipe whose reader is gone is no error."""
    try:
        execute(body)
    except BrokenPipeError:
        discard_output()
    except CommandError as error:
        end(str(error))
    except OSError as error:
        end(error.strerror or str(error))
    except KeyboardInterrupt:
        sys.exit(0)  # it came before our signal handlers


def discard_output() -> None:
    """Of stdout, whose reader is gone: the flush at exit must not fail again."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def complain(line: str) -> None:
    click.echo(line, err=True)


def load(*, quiet: bool = False, proxies: bool = True, on_terminal: str = "info") -> Settings:
    """The settings in force; `quiet` leaves logging alone. Ends the process with one line per wrong variable.

    `on_terminal`: the level of logs there, if none is set.
    """
    from bridge.config import SettingsError, load_settings

    try:
        settings = load_settings()
    except SettingsError as error:
        end(str(error))
    if proxies:
        check_proxies()
    if not quiet:
        log(settings.log_format, settings.log_level or (on_terminal if sys.stderr.isatty() else "info"))
    for warning in settings.warnings:
        click.echo(f"warning: {warning}", err=True)
    return settings


def log(form: logs.Format | None = None, level: str = "info") -> None:
    """Logs to stderr. uvicorn's own lines about starting and stopping are left out: the banner and the roles do it."""
    from bridge.process import logs

    logs.configure(form, level)
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
