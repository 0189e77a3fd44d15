"""The command line (docs/contract.md#commands).

Each `*_command` module has a command's arguments and help, and imports what the command does when it runs: help,
completion and questions to a bridge load nothing of the server.
"""

from __future__ import annotations

import click

from bridge import __version__
from bridge.commands.check_command import check_command
from bridge.commands.cvms_command import cvms_command
from bridge.commands.keys_command import keygen_command, keys_command
from bridge.commands.listen_command import listen_command
from bridge.commands.roles_command import dispatcher_command, up_command, upstream_command, web_command
from bridge.commands.simulate_command import simulate_command
from bridge.commands.tail_command import tail_command
from bridge.commands.wait_command import wait_command
from bridge.commands.webhooks_command import webhooks_command


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
      export BRIDGE_SECRET_KEY=…  # of `bridge keygen`, once
      BRIDGE_TOKENS=me:a-long-secret:admin  bridge web
      PHALA_CLOUD_API_KEY=phak_…            bridge upstream
      bridge dispatcher

    Settings come from the environment and from a .env file in the working directory. `bridge check` shows and tests
    them.
    """


for command in (
    *(up_command, web_command, upstream_command, dispatcher_command),
    *(cvms_command, tail_command, wait_command, webhooks_command, listen_command),
    *(simulate_command, keygen_command, keys_command, check_command),
):
    main.add_command(command)
