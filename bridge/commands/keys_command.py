"""`bridge keygen` and `bridge keys` on the command line."""

from __future__ import annotations

import click

from bridge.commands.shell import load, run
from bridge.process.signals import until


@click.command("keygen", short_help="Prints a new key for BRIDGE_SECRET_KEY.")
def keygen_command() -> None:
    """Prints a new key for BRIDGE_SECRET_KEY, which seals webhook secrets in Redis.

    Every `bridge web` and `bridge dispatcher` needs the same key. `bridge keys rotate --help` tells how to change it.

    \b
    Example:
      export BRIDGE_SECRET_KEY=$(bridge keygen)
    """
    from bridge.sealing import new_key

    click.echo(new_key())


@click.group("keys")
def keys_command() -> None:
    """Changes the keys that seal webhooks in Redis. It needs REDIS_URL, or uses the server of `bridge up`."""


@keys_command.command()
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
    from bridge.commands.keys import run_rotate

    settings = load(proxies=False)
    run(lambda stop: until(stop, run_rotate(settings, click.echo, dry_run=dry_run)))


@keys_command.command()
@click.option("--yes", is_flag=True, help="Do not ask.")
def forget(yes: bool) -> None:
    """Deletes the webhooks that no key of BRIDGE_SECRET_KEY opens, because their key is lost."""
    from bridge.commands.keys import run_forget

    settings = load(proxies=False)
    sure = (lambda question: True) if yes else click.confirm
    run(lambda stop: until(stop, run_forget(settings, click.echo, sure)))
