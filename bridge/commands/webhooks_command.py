"""`bridge webhooks` on the command line."""

from __future__ import annotations

import json
from functools import partial
from typing import IO, Any

import click

from bridge.commands.shell import CVMS, FROM, TO, TOKEN, TYPES, URL, checked, duration
from bridge.webhook_formats import FORMATS

_ENDPOINT = click.argument("endpoint", metavar="ID")
_ENDPOINTS = click.argument("endpoints", metavar="ID...", nargs=-1, required=True)


@click.group("webhooks", short_help="Shows, makes, tests and mends webhook endpoints.")
def webhooks_command() -> None:
    """Shows, makes, tests and mends webhook endpoints; tables on a terminal, JSON in a pipe, as the API has it.

    All but list and show need a token of scope admin.

    \b
    Exit status:
      0  done
      1  the bridge refuses: there is no such endpoint or delivery, or it is disabled; or a test failed
      2  wrong arguments, or a value that the bridge refuses
      3  not finished: a test without an attempt, or a recovery that goes on later
      4  the bridge cannot be reached, or refuses the token; or a signal ended the command
    """


@webhooks_command.command("list")
@URL
@TOKEN
def list_(url: str, token: str | None) -> None:
    """Lists the endpoints."""
    from bridge.commands.asking import ask
    from bridge.commands.webhooks import list_endpoints

    ask("webhooks", url, token, list_endpoints)


@webhooks_command.command()
@_ENDPOINT
@URL
@TOKEN
def show(endpoint: str, url: str, token: str | None) -> None:
    """Shows an endpoint and its newest deliveries (in a pipe: as its `deliveries`)."""
    from bridge.commands.asking import ask
    from bridge.commands.webhooks import show_endpoint

    ask("webhooks", url, token, partial(show_endpoint, endpoint_id=endpoint))


@webhooks_command.command()
@click.argument("address", metavar="[URL]", required=False)
@click.option("--id", "endpoint_id", help="An id of your own; replaces the endpoint that has it.")
@click.option("--description", help="Your own description.")
@CVMS
@FROM
@TO
@click.option("--ready/--not-ready", default=None, help="Only events after which the CVM is ready, or is not.")
@TYPES
@click.option("--format", type=click.Choice(tuple(FORMATS)), help="The form of the body. Default: standard.")
@click.option("--fields", type=click.File(), help="JSON object with further fields of the API's body; - is stdin.")
@URL
@TOKEN
def add(
    address: str | None, endpoint_id: str | None, fields: IO[str] | None, url: str, token: str | None, **options: object
) -> None:
    """Registers URL. The signing secret is shown this once.

    Others see a process's arguments: a URL with a password in it, header values and a secret of your own belong into
    --fields.

    \b
    Examples:
      bridge webhooks add https://example.com/cvm --to running --to error
      bridge webhooks add --format slack --fields - <<< '{"url": "https://hooks.slack.com/…"}'
      secret=$(bridge webhooks add https://example.com/cvm | jq -r .secret)
    """
    from bridge.commands.asking import ask
    from bridge.commands.webhooks import add_endpoint

    given = {name: list(value) if isinstance(value, tuple) else value for name, value in options.items()}
    chosen = {name: value for name, value in {"url": address, **given}.items() if value not in (None, [])}
    body = {**_fields(fields), **chosen}
    if "url" not in body:
        raise click.UsageError("give a URL, or a `url` in --fields")
    ask("webhooks", url, token, partial(add_endpoint, body=body, endpoint_id=endpoint_id), scope="admin")


@webhooks_command.command()
@_ENDPOINT
@click.option(
    "--timeout", default="30s", show_default=True, callback=checked(duration), help="For the attempt, as 90s or 2m."
)
@URL
@TOKEN
def test(endpoint: str, timeout: float, url: str, token: str | None) -> None:
    """Sends a test event, and tells how its attempt ended."""
    from bridge.commands.asking import ask
    from bridge.commands.webhooks import send_test

    ask("webhooks", url, token, partial(send_test, endpoint_id=endpoint, timeout=timeout), scope="admin")


@webhooks_command.command()
@click.argument("deliveries", metavar="DELIVERY...", nargs=-1, required=True)
@URL
@TOKEN
def retry(deliveries: tuple[str, ...], url: str, token: str | None) -> None:
    """Tries deliveries again, or now; `show` tells their ids."""
    from bridge.commands.asking import ask
    from bridge.commands.webhooks import retry_deliveries

    ask("webhooks", url, token, partial(retry_deliveries, delivery_ids=deliveries), scope="admin")


@webhooks_command.command()
@_ENDPOINT
@click.option("--since", required=True, help="From this time on (RFC 3339).")
@click.option("--until", help="Up to this time. Default: now.")
@click.option("--all", is_flag=True, help="What was delivered too.")
@URL
@TOKEN
def recover(endpoint: str, url: str, token: str | None, **period: object) -> None:
    """Delivers the events of a period that the endpoint missed.

    \b
    Example:
      bridge webhooks recover wh_0196f2… --since 2026-11-24T16:00:00Z
    """
    from bridge.commands.asking import ask
    from bridge.commands.webhooks import recover_endpoint

    body = {name: value for name, value in period.items() if value is not None}
    ask("webhooks", url, token, partial(recover_endpoint, endpoint_id=endpoint, period=body), scope="admin")


@webhooks_command.command()
@_ENDPOINTS
@URL
@TOKEN
def enable(endpoints: tuple[str, ...], url: str, token: str | None) -> None:
    """Delivers to endpoints again."""
    _switch(endpoints, url, token, on=True)


@webhooks_command.command()
@_ENDPOINTS
@URL
@TOKEN
def disable(endpoints: tuple[str, ...], url: str, token: str | None) -> None:
    """Stops delivering to endpoints; what is pending is kept."""
    _switch(endpoints, url, token, on=False)


@webhooks_command.command()
@_ENDPOINTS
@click.option("--yes", is_flag=True, help="Do not ask.")
@URL
@TOKEN
def remove(endpoints: tuple[str, ...], yes: bool, url: str, token: str | None) -> None:
    """Removes endpoints with their deliveries."""
    from bridge.commands.asking import ask
    from bridge.commands.webhooks import remove_endpoints

    if not yes:
        click.confirm(f"Remove {', '.join(endpoints)} with all deliveries?", abort=True, err=True)
    ask("webhooks", url, token, partial(remove_endpoints, endpoint_ids=endpoints), scope="admin")


def _switch(endpoints: tuple[str, ...], url: str, token: str | None, *, on: bool) -> None:
    from bridge.commands.asking import ask
    from bridge.commands.webhooks import switch_endpoints

    work = partial(switch_endpoints, endpoint_ids=endpoints, on=on)
    ask("webhooks", url, token, work, scope="admin")


def _fields(file: IO[str] | None) -> dict[str, Any]:
    """Raises click.UsageError, which shows nothing of the file."""
    try:
        found = {} if file is None else json.load(file)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise click.UsageError("--fields must hold one JSON object")
    return found
