"""`bridge wait` on the command line: its arguments, its output, its exit status."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

import click

from bridge import reference_sets
from bridge.clock import rfc3339
from bridge.commands.shell import TOKEN, URL, checked, complain, discard_output, duration, require_proxies
from bridge.events import entry_key
from bridge.process.signals import CommandError, execute, until
from bridge.waiting import Goal, Member

if TYPE_CHECKING:
    from bridge.commands.wait import Order


def _cursor(text: str | None) -> str:
    """Empty without one. An empty text is refused: a shell's variable that was not set must not mean "no cursor"."""
    try:
        if text is not None:
            entry_key(text)
    except ValueError:
        raise ValueError("a cursor is the id of an event, as 1795536119319-0") from None
    return text or ""


def _reference(text: str) -> str:
    reference_sets.parse(text)
    return text


@click.command("wait")
@click.argument("references", nargs=-1, required=True, metavar="REF...", callback=checked(_reference))
@click.option(
    "--to", "goal", default="ready", show_default=True, callback=checked(Goal.parse), help="ready, or STATUS[,STATUS…]."
)
@click.option(
    "--timeout", default="10m", show_default=True, callback=checked(duration), help="As 90s, 10m or 2h; 0 only looks."
)
@click.option("--after", callback=checked(_cursor), help="Only what comes after this cursor counts.")
@click.option("--any", "any_of", is_flag=True, help="One CVM is enough.")
@URL
@TOKEN
def wait_command(
    references: tuple[str, ...], goal: Goal, timeout: float, after: str, any_of: bool, url: str, token: str | None
) -> None:
    """Waits until CVMs are ready, or have a status. REF is a CVM, or a set: app_…, 'name:web-*', '*'.

    All CVMs of a set must be there at the same moment, at least one. It ends at once when it can no longer come true.
    On a terminal it shows the progress; in a pipe it prints one JSON object at the end, with the cursor for --after.

    \b
    Exit status:
      0  it has come true
      1  it can no longer come true: error, a boot_error, deleted, or no such CVM
      2  wrong arguments
      3  the time is over
      4  the bridge cannot tell: it did not vouch for the state when the time was over, could not be reached, refused
         the token, or has lost the events after the cursor; or a signal ended the command

    \b
    Examples:
      bridge wait web-1
      bridge wait app_4d6a4bd2 --to running --timeout 5m
      cursor=$(bridge wait web-1 --timeout 0 | jq -r .cursor)
      phala deploy … && bridge wait web-1 --after "$cursor"
    """
    from bridge.commands.wait import Order

    require_proxies()
    order = Order(
        url=url.rstrip("/"), token=token, references=references, goal=goal, timeout=timeout, after=after, any_of=any_of
    )
    sys.exit(_run(order))


def _run(order: Order) -> int:
    """Waits, prints the verdict, and returns the exit status."""
    from bridge.commands.terminal import progress_line, write_line
    from bridge.commands.wait import Code, Verdict, wait

    is_terminal = sys.stdout.isatty()
    # A signal ends it without a verdict, and must not look like success.
    found = Verdict(code=Code.CANNOT_TELL, reason="interrupted", cursor=order.after)

    def show(member: Member) -> None:
        if is_terminal:
            write_line(progress_line(member, rfc3339(time.time())))

    async def work() -> None:
        nonlocal found
        found = await wait(order, show, complain)

    try:
        execute(lambda stop: until(stop, work()))
        write_line(found.to_line(order.goal) if is_terminal else found.to_json(order.goal))
    except CommandError as error:
        complain(str(error))
        return Code.USAGE.value
    except BrokenPipeError:
        discard_output()
    except OSError as error:  # a full disk: the verdict is not where it should be
        complain(error.strerror or str(error))
        return Code.CANNOT_TELL.value
    except KeyboardInterrupt:
        pass  # it came before our signal handlers
    return found.code.value
