"""Where an attempt never goes, whatever the URL, the name servers, the receiver or the environment say; and TLS."""

from __future__ import annotations

import asyncio

import pytest

from bridge.addresses import UrlRefusedError, check_url
from bridge.config_values import Allowlist, allowlist
from tests.posting import LOOPBACK, OK, Certified, fixed, names, post, poster, receiver, word
from tests.servers import free_port


@pytest.mark.parametrize("status", ["301 x", "302 x", "303 x", "307 x", "308 x"])
async def test_a_redirect_is_no_success_and_is_not_followed(status: str) -> None:
    async with receiver(OK) as canary, receiver(fixed(status, b"", f"Location: {canary.url()}")) as inner:
        assert word(await post(inner.url())) == "http_3xx"
        assert (canary.connections, len(inner.requests)) == (0, 1)


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "127.1", "2130706433", "0x7f.1", "0177.0.0.1", "[::ffff:127.0.0.1]", "[::127.0.0.1]", "localhost"],
)
async def test_loopback_in_any_spelling_is_not_reached(host: str) -> None:
    async with receiver(OK) as canary:
        assert word(await post(canary.url(host), poster(allow=Allowlist()))) == "refused_address"
        assert canary.connections == 0


async def test_a_name_that_is_public_at_registration_and_loopback_at_the_attempt_is_not_reached() -> None:
    async with receiver(OK) as canary:
        changing = names(["1.1.1.1"], ["127.0.0.1"])
        await check_url(canary.url("rebinding.test"), Allowlist(), changing)
        assert word(await post(canary.url("rebinding.test"), poster(allow=Allowlist(), resolve=changing))) == (
            "refused_address"
        )
        assert canary.connections == 0


async def test_a_name_that_changes_between_check_and_connection_changes_nothing() -> None:
    """Whatever the resolver answers the second time: only a checked address is connected to."""
    opened = allowlist("127.0.0.2")
    assert isinstance(opened, Allowlist)
    async with receiver(OK, host="127.0.0.2", port=free_port()) as good, receiver(OK, port=good.port) as canary:
        async with poster(allow=opened, resolve=names(["127.0.0.2"], ["127.0.0.1"])) as sender:
            outcomes = [await sender.post(good.url("rebinding.test"), {}, b"") for _ in range(3)]
        assert outcomes[0].ok
        assert canary.connections == 0
        assert good.connections >= 1


@pytest.mark.parametrize("addresses", [["127.0.0.2", "127.0.0.1"], ["127.0.0.1", "127.0.0.2"]])
async def test_one_address_that_is_not_allowed_refuses_the_whole_name(addresses: list[str]) -> None:
    opened = allowlist("127.0.0.2")
    assert isinstance(opened, Allowlist)
    async with receiver(OK, host="127.0.0.2", port=free_port()) as good, receiver(OK, port=good.port) as canary:
        outcome = await post(good.url("mixed.test"), poster(allow=opened, resolve=names(addresses)))
        assert word(outcome) == "refused_address"
        assert (good.connections, canary.connections) == (0, 0)


async def test_a_name_that_an_operator_allows_is_reached_wherever_it_is() -> None:
    opened = Allowlist(hosts=frozenset({"hooks.test"}))
    async with receiver(OK) as inner:
        chosen = names(["127.0.0.1"])
        assert (await post(inner.url("hooks.test"), poster(allow=opened, resolve=chosen))).ok
        assert word(await post(inner.url("other.test"), poster(allow=opened, resolve=chosen))) == "refused_address"
        assert inner.connections == 1


async def test_proxies_of_the_environment_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    async with receiver(OK) as canary, receiver(OK) as inner:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, canary.url(path=""))
        assert (await post(inner.url())).ok
        assert (canary.connections, inner.connections) == (0, 1)


async def test_a_receivers_cookies_are_not_sent_back() -> None:
    async with receiver(fixed("200 OK", b"", "Set-Cookie: a=b; Path=/")) as inner, poster() as sender:
        for _ in range(2):
            assert (await sender.post(inner.url(), {}, b"")).ok
        assert ["cookie" in request.headers for request in inner.requests] == [False, False]


# TLS


async def test_tls_is_verified_by_the_name_while_the_connection_goes_to_the_address(certified: Certified) -> None:
    async with receiver(OK, tls=certified.server) as inner:
        resolve = names(["127.0.0.1"])
        url = inner.url("hooks.test", scheme="https")
        assert (await post(url, poster(resolve=resolve, tls=certified.client))).ok
        assert inner.names == ["hooks.test"]
        assert inner.requests[0].headers["host"] == f"hooks.test:{inner.port}"


async def test_an_untrusted_certificate_or_one_for_another_name_is_tls_and_nothing_is_sent(
    certified: Certified,
) -> None:
    async with receiver(OK, tls=certified.server) as inner:
        resolve = names(["127.0.0.1"])
        unknown = await post(inner.url("hooks.test", scheme="https"), poster(resolve=resolve))
        wrong = await post(inner.url("else.test", scheme="https"), poster(resolve=resolve, tls=certified.client))
        plain = await post(inner.url("hooks.test"), poster(resolve=resolve))
        assert (word(unknown), word(wrong)) == ("tls", "tls")
        assert word(plain) in ("reset", "protocol")
        assert inner.requests == []


async def test_a_receiver_that_speaks_no_tls_is_tls() -> None:
    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(greet, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        assert word(await post(f"https://127.0.0.1:{port}/")) == "tls"


async def test_registration_and_attempt_refuse_the_same() -> None:
    resolve = names(["10.0.0.1"])
    for url in ("http://inner.test/", "http://10.0.0.1/", "http://127.1/", "ftp://inner.test/"):
        with pytest.raises(UrlRefusedError) as caught:
            await check_url(url, LOOPBACK, resolve)
        assert (await post(url, poster(resolve=resolve))).error == f"{caught.value.word}: {caught.value.reason}"
