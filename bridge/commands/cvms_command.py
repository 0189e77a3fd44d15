"""`bridge cvms` on the command line."""

from __future__ import annotations

import click

from bridge.commands.shell import CVMS, TOKEN, URL


@click.command("cvms", short_help="Lists the watched CVMs.")
@CVMS
@click.option("--status", "statuses", multiple=True, help="Only CVMs with this status; repeat for several.")
@click.option("--ready/--not-ready", default=None, help="Only CVMs that are ready, or that are not.")
@URL
@TOKEN
def cvms_command(
    cvms: tuple[str, ...], statuses: tuple[str, ...], ready: bool | None, url: str, token: str | None
) -> None:
    """Lists the watched CVMs: a table on a terminal, one JSON object per line in a pipe, as the API has it.

    \b
    Exit status:
      0  they are listed, or there is none
      1  there is no such CVM
      2  wrong arguments
      4  the bridge cannot be reached, or refuses the token; or a signal ended the command

    \b
    Examples:
      bridge cvms
      bridge cvms --cvm 'name:web-*' --not-ready
      bridge cvms --status error | jq -r .cvm_id
    """
    from bridge.commands.asking import ask
    from bridge.commands.cvms import Selection, list_cvms

    selection = Selection(references=cvms, statuses=statuses, ready=ready)
    ask("cvms", url, token, lambda bridge, output: list_cvms(bridge, output, selection))
