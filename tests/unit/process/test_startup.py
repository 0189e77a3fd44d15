"""What is told of an address that cannot be had."""

from __future__ import annotations

import errno

import pytest

from bridge.process.signals import CommandError
from bridge.process.startup import named_address


@pytest.mark.parametrize(
    ("host", "number", "told"),
    [
        ("127.0.0.1", errno.EADDRINUSE, "127.0.0.1:80 is in use: set PORT to another port"),
        ("127.0.0.1", errno.EACCES, "127.0.0.1:80 is not available (Permission denied): set PORT to another port"),
        (
            "192.0.2.1",
            errno.EADDRNOTAVAIL,
            "192.0.2.1:80 is not available (Cannot assign requested address): set HOST to an address of this machine",
        ),
        (
            "unix:/run/b.sock",
            errno.EACCES,
            "unix:/run/b.sock is not available (Permission denied): set HOST to another path",
        ),
    ],
)
def test_an_address_that_cannot_be_had_is_one_line_with_its_mend(host: str, number: int, told: str) -> None:
    with pytest.raises(CommandError) as caught, named_address(host, 80, "PORT"):
        raise OSError(number, "what (while attempting to bind on address ('127.0.0.1', 80))")
    assert str(caught.value) == told
