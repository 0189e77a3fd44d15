"""Proxy settings that would end a client in a traceback, and those that would not."""

from __future__ import annotations

import httpx
import pytest

from bridge.commands.proxies import proxy_faults

VARIABLES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")

VALUES = {
    "NO_PROXY": [
        *("[::1]", "::1", "[::1]:8080", "fd00::/8", "10.0.0.0/8", "*.example.com", ".example.com", "a:8080", "", "*"),
        *("a b", "http://x", "localhost,127.0.0.1", "one, [fe80::1%eth0]", "[::1],*", "é.com", "host/", "a,,b"),
    ],
    "HTTPS_PROXY": [
        *("proxy:3128", "http://proxy:3128", "socks5://p:1", "socks5h://p:1", "socks4://p:1", "ftp://p", "direct"),
        *("http://u:secret@p:1", "[::1]:3128", "::1", "proxy:port", "", "HTTP://p:1"),
    ],
}
VALUES["all_proxy"] = VALUES["HTTP_PROXY"] = VALUES["HTTPS_PROXY"]


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in VALUES.items() for value in values])
def test_exactly_what_httpx_cannot_use_is_a_fault_that_names_its_variable(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in VARIABLES:
        monkeypatch.delenv(variable, raising=False)
        monkeypatch.delenv(variable.lower(), raising=False)
    monkeypatch.setenv(name, value)
    try:
        httpx.AsyncClient()
        expected = 0
    except (ImportError, ValueError, httpx.InvalidURL):
        expected = 1
    faults = proxy_faults()
    assert len(faults) == expected
    assert all(fault.startswith(f"{name} ") and "secret" not in fault for fault in faults)
