"""The command line as a whole: what it loads, and what a shell completes."""

from __future__ import annotations

import io
import json
import subprocess
import sys

import pytest
from click.shell_completion import ShellComplete
from click.testing import CliRunner

from bridge.commands import shell
from bridge.commands.cli import main

#: Half a second of CPU that no help and no question to a bridge needs.
OF_THE_SERVER = ("bridge.web", "bridge.upstream", "bridge.store", "pydantic", "redis", "starlette", "uvicorn")

SCRIPT = """
import json, sys
from bridge.commands.cli import main
main(["cvms", "--help"], standalone_mode=False)
helped = list(sys.modules)
from bridge.commands import cvms, tail, wait, webhooks
print(json.dumps([helped, list(sys.modules)]))
"""


def test_help_and_questions_to_a_bridge_load_nothing_of_the_server() -> None:
    ran = subprocess.run([sys.executable, "-c", SCRIPT], check=True, capture_output=True, text=True)
    helped, asked = map(set, json.loads(ran.stdout.splitlines()[-1]))
    assert helped.isdisjoint({*OF_THE_SERVER, "httpx"})
    assert asked.isdisjoint(OF_THE_SERVER)
    assert "httpx" in asked


def test_a_narrow_terminal_shows_what_each_command_does_in_full() -> None:
    shown = CliRunner().invoke(main, ["--help"], terminal_width=80)
    assert shown.exit_code == 0
    assert "..." not in shown.stdout.partition("Commands:")[2]


@pytest.mark.parametrize(
    ("terminal", "level", "shown"), [(True, "", "warning"), (True, "info", "info"), (False, "", "info")]
)
def test_logs_leave_the_banner_in_sight_on_a_terminal(
    monkeypatch: pytest.MonkeyPatch, terminal: bool, level: str, shown: str
) -> None:
    levels: list[str] = []
    stderr = io.StringIO()
    monkeypatch.setattr(stderr, "isatty", lambda: terminal)
    monkeypatch.setattr(sys, "stderr", stderr)
    monkeypatch.setattr(shell, "log", lambda form, chosen: levels.append(chosen))
    monkeypatch.setenv("BRIDGE_LOG_LEVEL", level)
    shell.load(on_terminal="warning")
    assert levels == [shown]


def test_a_shell_completes_commands_and_options() -> None:
    def completed(arguments: list[str], begun: str) -> list[str]:
        found = ShellComplete(main, {}, "bridge", "_BRIDGE_COMPLETE").get_completions(arguments, begun)
        return [each.value for each in found]

    assert completed([], "w") == ["wait", "web", "webhooks"]
    assert completed(["webhooks"], "re") == ["recover", "remove", "retry"]
    assert completed(["webhooks", "add", "--format"], "s") == ["standard", "slack"]
