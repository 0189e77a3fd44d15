"""`BRIDGE_TOKENS_FILE` that changes while the front end runs, in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.config import Token
from bridge.secret_files import SecretFileError, Version
from bridge.web.http.tokens_file import TokensFile
from tests.virtual import VirtualClock, run_virtual

ONE, TWO, BROKEN, MISSING = "a:one:read", "a:one:read\nb:two:read", "a:canary", ""


class FakeFile:
    """`changes_in_read`: what somebody writes into it while it is read."""

    def __init__(self, content: str) -> None:
        self.content = content
        self.number = 0
        self.reads = 0
        self.changes_in_read: list[str] = []

    def write(self, content: str) -> None:
        self.content, self.number = content, self.number + 1

    def version(self) -> Version | None:
        return (self.number,) if self.content else None

    def read(self) -> str:
        self.reads += 1
        content = self.content
        if self.changes_in_read:
            self.write(self.changes_in_read.pop())
        if not content:
            raise SecretFileError("the file cannot be read (No such file or directory)")
        return content


class Front:
    """What follows the file."""

    def __init__(self) -> None:
        self.file = FakeFile(ONE)
        self.got: list[str] = []
        self.followed = TokensFile(self.file, self._change)

    def _change(self, tokens: tuple[Token, ...]) -> None:
        self.got.append("\n".join(f"{each.name}:{each.secret.get_secret_value()}:{each.scope}" for each in tokens))


def played(scenario: Callable[[Front], Awaitable[None]]) -> None:
    async def whole() -> None:
        front = Front()
        running = asyncio.create_task(front.followed.run(VirtualClock()))
        await scenario(front)
        running.cancel()
        await asyncio.wait([running])

    run_virtual(whole())


def test_a_change_counts_within_five_seconds_and_is_read_once() -> None:
    async def scenario(front: Front) -> None:
        await asyncio.sleep(60)
        front.file.write(TWO)
        await asyncio.sleep(5)
        assert front.got[-1] == TWO
        await asyncio.sleep(60)
        assert (front.got, front.file.reads) == ([ONE, TWO], 2)

    played(scenario)


def test_what_changed_between_the_settings_and_the_first_look_counts() -> None:
    async def scenario(front: Front) -> None:
        front.file.content = TWO
        await asyncio.sleep(5)
        assert front.got == [TWO]

    played(scenario)


def test_a_file_that_is_being_written_is_not_taken() -> None:
    async def scenario(front: Front) -> None:
        await asyncio.sleep(10)
        for part in ("c:three:read", f"c:three:read {ONE}", f"c:three:read {TWO}"):
            front.file.write(part)
            await asyncio.sleep(0.9)
        await asyncio.sleep(5)
        assert front.got == [ONE, f"c:three:read\n{TWO}"]
        front.file.changes_in_read = [TWO]
        front.file.write("c:three:read")
        await asyncio.sleep(5)
        assert front.got[2:] == [TWO]

    played(scenario)


@pytest.mark.parametrize("content", [BROKEN, MISSING, "a:one:read a:canary:read"])
def test_a_broken_file_changes_nothing_and_is_one_error_line_for_each_change(
    content: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario(front: Front) -> None:
        for _ in range(2):
            front.file.write(content)
            await asyncio.sleep(100)
            assert (front.got, front.followed.is_broken) == ([], True)
        front.file.write(TWO)
        await asyncio.sleep(5)
        assert (front.got, front.followed.is_broken) == ([TWO], False)

    played(scenario)
    errors = [each for each in caplog.records if each.levelname == "ERROR"]
    assert len(errors) == (1 if content == MISSING else 2)
    assert "canary" not in str([vars(each) for each in errors])


@given(st.lists(st.tuples(st.sampled_from([ONE, TWO, BROKEN, MISSING]), st.sampled_from([0.2, 0.9, 1.1, 5.0]))))
def test_the_last_usable_content_that_stood_for_five_seconds_is_in_force(writes: list[tuple[str, float]]) -> None:
    async def scenario(front: Front) -> None:
        for content, seconds in writes:
            front.file.write(content)
            await asyncio.sleep(seconds)
            if seconds == 5.0:
                assert front.followed.is_broken == (content in (BROKEN, MISSING))
                assert front.followed.is_broken or front.got[-1] == content

    played(scenario)
