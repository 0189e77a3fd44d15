"""`bridge simulate` on the command line."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from bridge.commands.shell import HOST, log, run
from bridge.process.signals import until

if TYPE_CHECKING:
    from bridge.simulator.server import Running


@click.command("simulate", short_help="Runs a simulated Phala Cloud.")
@HOST
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
def simulate_command(host: str, port: int, seed: int, cvms: int, time_scale: float) -> None:
    """Runs a simulated Phala Cloud: CVMs that change by themselves, the state route, five streams per user.

    It accepts any API key. Under /control you set CVM states, cut or silence streams, and make answers fail or hang:
    see docs/simulator.md.

    \b
    Examples:
      bridge simulate --seed 7
      curl -H 'X-API-Key: any' 'http://127.0.0.1:8088/api/v1/cvms/paginated'
      curl -X PATCH http://127.0.0.1:8088/control/cvms/web-1 -d '{"status": "error"}'
    """
    from bridge.clock import SystemClock
    from bridge.simulator.server import run_simulator
    from bridge.simulator.world import World

    log()
    world = World(seed, cvms, now=SystemClock().time())
    work = run_simulator(host, port, world, time_scale=time_scale, announce=_announce_simulator)
    run(lambda stop: until(stop, work))


def _announce_simulator(running: Running) -> None:
    click.echo(f"PHALA_CLOUD_API_PREFIX={running.api_prefix}\ncontrol: {running.control} (ctrl-C ends it)")
