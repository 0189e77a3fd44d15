"""Which addresses and URLs a webhook may reach."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from yarl import URL

from bridge.addresses import UrlRefusedError, check_url, is_permitted, is_public, parse_url, with_loopback
from bridge.config_values import Allowlist, allowlist

NOTHING = Allowlist()


def allow(text: str) -> Allowlist:
    found = allowlist(text)
    assert isinstance(found, Allowlist)
    return found


PUBLIC = [
    "1.1.1.1",
    "8.8.8.8",
    "100.63.255.255",
    "100.128.0.0",
    "172.15.255.255",
    "172.32.0.0",
    "192.167.255.255",
    "198.17.255.255",
    "198.20.0.0",
    "223.255.255.255",
    "2606:4700:4700::1111",
    "2a00:1450:4001:81b::200e",
    "2001:4860:4860::8888",
    "64:ff9b::808:808",
]

NOT_PUBLIC = [
    "0.0.0.0",  # noqa: S104 - it is refused
    "0.1.2.3",
    "10.0.0.1",
    "100.64.0.1",
    "100.100.100.200",
    "127.0.0.1",
    "127.255.255.255",
    "168.63.129.16",
    "169.254.169.254",
    "172.16.0.1",
    "172.31.255.255",
    "192.0.0.192",
    "192.0.2.1",
    "192.88.99.1",
    "192.168.1.1",
    "198.18.0.1",
    "198.19.255.255",
    "198.51.100.1",
    "203.0.113.1",
    "224.0.0.1",
    "239.255.255.250",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::7f00:1",
    "::8.8.8.8",
    "::ffff:127.0.0.1",
    "::ffff:8.8.8.8",
    "::ffff:0:127.0.0.1",
    "64:ff9b::7f00:1",
    "64:ff9b::a9fe:a9fe",
    "64:ff9b:1::808:808",
    "100::1",
    "2001::1",
    "2001:0:4136:e378:8000:63bf:3fff:fdd2",
    "2001:2::1",
    "2001:10::1",
    "2001:20::1",
    "2001:db8::1",
    "2002:7f00:1::",
    "2002:808:808::",
    "3fff::1",
    "4000::1",
    "5f00::1",
    "fc00::1",
    "fd00:ec2::254",
    "fe80::1",
    "fe80::1%eth0",
    "2606:4700:4700::1111%eth0",
    "fec0::1",
    "ff02::1",
]


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses_are_public(address: str) -> None:
    assert is_public(address)
    assert is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize("address", NOT_PUBLIC)
def test_every_other_address_is_not(address: str) -> None:
    assert not is_public(address)
    assert not is_permitted(address, NOTHING)


@pytest.mark.parametrize("text", ["", "localhost", "2130706433", "0x7f.1", "127.1", "0177.0.0.1", "1.1.1.1 ", "[::1]"])
def test_what_is_no_address_is_not_public(text: str) -> None:
    assert not is_public(text)


def disguises(ip: ipaddress.IPv4Address) -> list[ipaddress.IPv6Address]:
    number = int(ip)
    nat64, local = int(ipaddress.IPv6Address("64:ff9b::")), int(ipaddress.IPv6Address("64:ff9b:1::"))
    forms = [
        number,  # compatible
        0xFFFF << 32 | number,  # mapped
        0xFFFF << 48 | number,  # translated
        0x2002 << 112 | number << 80,  # 6to4
        0x2002 << 112 | number << 80 | 1,
        0x20010000 << 96 | number << 64,  # Teredo server
        0x20010000 << 96 | number ^ 0xFFFFFFFF,  # Teredo client
        nat64 | number,
        local | number,
        local | (number >> 16) << 48 | (number & 0xFFFF) << 24,  # with a shorter prefix
    ]
    return [ipaddress.IPv6Address(form) for form in forms]


@given(
    st.one_of(
        *[
            st.ip_addresses(network=network)
            for network in ("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16")
        ],
        *[st.ip_addresses(network=network) for network in ("172.16.0.0/12", "192.168.0.0/16", "224.0.0.0/3")],
        st.ip_addresses(v=4),
    )
)
def test_no_disguise_makes_an_address_public(ip: ipaddress.IPv4Address) -> None:
    if not is_public(ip):
        assert [form for form in disguises(ip) if is_public(form)] == []


@given(st.ip_addresses())
def test_nothing_that_the_standard_library_calls_private_is_public(
    ip: ipaddress.IPv4Address | ipaddress.IPv6Address,
) -> None:
    if ip.is_private or ip.is_loopback or ip.is_link_local or ip.is_multicast or ip.is_reserved or ip.is_unspecified:
        assert not is_public(ip) or ip in ipaddress.ip_network("64:ff9b::/96")


def test_the_allowlist_opens_networks_and_names_and_nothing_else() -> None:
    opened = allow("10.1.0.0/16, fd00::/8, hooks.internal")
    assert is_permitted("10.1.2.3", opened)
    assert is_permitted("fd00::1", opened)
    assert is_permitted("192.168.0.1", opened, host="Hooks.Internal")
    for address in ("10.2.0.1", "::ffff:10.1.2.3", "64:ff9b::a01:203", "192.168.0.1", "127.0.0.1", "fe80::1"):
        assert not is_permitted(address, opened), address
    assert not is_permitted("192.168.0.1", opened, host="other.hooks.internal")


def test_bridge_up_adds_this_machine() -> None:
    opened = with_loopback(allow("10.1.0.0/16"))
    assert all(is_permitted(address, opened) for address in ("127.0.0.1", "127.9.9.9", "::1", "10.1.0.1"))
    assert is_permitted("127.0.0.1", opened, host="localhost")
    assert not is_permitted("169.254.169.254", opened)
    assert with_loopback(opened) == opened


@pytest.mark.parametrize(
    ("url", "host", "port", "literal"),
    [
        ("https://example.com/hook?x=1&y=%2F", "example.com", 443, False),
        ("http://example.com", "example.com", 80, False),
        ("HTTPS://Example.COM:8443/", "example.com", 8443, False),
        ("https://xn--bcher-kva.example/", "xn--bcher-kva.example", 443, False),
        ("https://a_b.example.com/", "a_b.example.com", 443, False),
        ("http://localhost:9/", "localhost", 9, False),
        ("http://1.1.1.1:8080/", "1.1.1.1", 8080, True),
        ("http://[2606:4700:4700:0::1111]/", "2606:4700:4700::1111", 80, True),
        ("http://[::1]:1/", "::1", 1, True),
        ("https://1e100.net/", "1e100.net", 443, False),
        ("https://0x7f.example/", "0x7f.example", 443, False),
        ("https://example.com/a@b:c", "example.com", 443, False),
    ],
)
def test_plain_urls_are_taken_apart(url: str, host: str, port: int, literal: bool) -> None:
    target = parse_url(url)
    assert (target.host, target.port, target.literal) == (host, port, literal)


@pytest.mark.parametrize(
    "host",
    [
        "2130706433",
        "0x7f000001",
        "0x7f.1",
        "0X7F.0.0.1",
        "017700000001",
        "0177.0.0.1",
        "127.1",
        "127.0.1",
        "127.0.0.1.",
        "127.00.0.1",
        "127.0.0.0x1",
        "0",
        "0x",
        "1.1.1.1.",
        "256.1.1.1",
        "1.2.3.4.5",
        "foo.1",
        "[::ffff:127.0.0.1]",
        "[::ffff:8.8.8.8]",
        "[::127.0.0.1]",
        "[64:ff9b::8.8.8.8]",
        "[64:ff9b:1::1]",
        "[2002:7f00:1::]",
        "[2001:0:4136:e378:8000:63bf:3fff:fdd2]",
        "[fe80::1%eth0]",
        "[fe80::1%25eth0]",
    ],
)
def test_disguised_addresses_are_refused_also_where_loopback_is_allowed(host: str) -> None:
    with pytest.raises(UrlRefusedError) as caught:
        parse_url(f"http://{host}/")
    assert caught.value.word == "refused_address"


@pytest.mark.parametrize(
    "url",
    [
        "",
        "example.com/hook",
        "//example.com/",
        "http:example.com",
        "http:/example.com",
        "http://",
        "http:///path",
        "http://:80/",
        "ftp://example.com/",
        "file:///etc/passwd",
        "gopher://example.com/",
        "unix:///tmp/s",
        "javascript:alert(1)",
        "https://user@example.com/",
        "https://user:password@example.com/",
        "https://@example.com/",
        "http://1.1.1.1@127.0.0.1/",
        "http://example.com\\@127.0.0.1/",
        "http://example.com/ path",
        "http://example.com/\n",
        "\thttp://example.com/",
        "http://exa\tmple.com/",
        "http://exämple.com/",
        "http://１２７.0.0.1/",
        "http://127。0。0。1/",
        "http://127%2e0%2e0%2e1/",
        "http://example%00.com/",
        "http://example.com:0/",
        "http://example.com:65536/",
        "http://example.com:http/",
        "http://example.com:-1/",
        "http://exa mple.com/",
        "http://-example.com/",
        "http://example-.com/",
        "http://example..com/",
        "http://example.com./",
        "http://.example.com/",
        "http://[1.1.1.1]/",
        "http://[::1/",
        "http://::1/",
        "http://[v1.x]/",
        "http://[::1]x/",
        "https://example.com/#fragment",
        "https://example.com/#",
        "https://example.com/" + "a" * 2048,
        "https://" + "a" * 64 + ".com/",
        "https://" + "a." * 130 + "com/",
    ],
)
def test_what_is_no_plain_http_url_is_refused_in_words_that_do_not_quote_it(url: str) -> None:
    with pytest.raises(UrlRefusedError) as caught:
        parse_url(url)
    assert caught.value.word == "refused_url"
    assert "example" not in caught.value.reason
    assert "password" not in caught.value.reason.removeprefix("it must have no user name or password")


HOSTS = st.text("0123456789abcdefxX.:[]%-_@/\\?#", max_size=24)


@given(st.sampled_from(["http://", "https://", "http:", "//"]), HOSTS, st.sampled_from(["", "/", ":80/", "/x?y"]))
def test_what_connects_reads_a_url_as_it_was_checked(scheme: str, host: str, rest: str) -> None:
    url = scheme + host + rest
    try:
        target = parse_url(url)
    except UrlRefusedError:
        return
    seen = URL(url, encoded=True)
    assert seen.port == target.port
    assert seen.host is not None
    assert target.literal == _is_address(seen.host)
    assert seen.host.lower() == target.host or (
        target.literal and ipaddress.ip_address(seen.host) == _address(target.host)
    )


def _is_address(text: str) -> bool:
    try:
        return bool(_address(text))
    except ValueError:
        return False


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    return ipaddress.ip_address(text)


class Names:
    """A resolver with these answers alone."""

    def __init__(self, **known: Sequence[str]) -> None:
        self.known = {name.replace("_", "."): addresses for name, addresses in known.items()}
        self.asked: list[tuple[str, int]] = []

    async def __call__(self, host: str, port: int) -> Sequence[str]:
        self.asked.append((host, port))
        if host not in self.known:
            raise OSError("no such name")
        return self.known[host]


async def refusal(url: str, opened: Allowlist, names: Names) -> str | None:
    try:
        await check_url(url, opened, names)
    except UrlRefusedError as error:
        return error.word
    return None


async def test_a_name_is_refused_unless_all_of_its_addresses_may_be_reached() -> None:
    names = Names(
        good_example=["1.1.1.1", "2606:4700:4700::1111"],
        mixed_example=["1.1.1.1", "10.0.0.1"],
        inner_example=["10.0.0.1"],
        mapped_example=["::ffff:1.1.1.1"],
        zoned_example=["fe80::1%2"],
        empty_example=[],
    )
    answers = {name: await refusal(f"https://{name}/", NOTHING, names) for name in names.known}
    assert answers == {
        "good.example": None,
        "mixed.example": "refused_address",
        "inner.example": "refused_address",
        "mapped.example": "refused_address",
        "zoned.example": "refused_address",
        "empty.example": "dns",
    }
    assert await refusal("https://unknown.example/", NOTHING, names) == "dns"
    assert await refusal("https://inner.example/", allow("10.0.0.0/24"), names) is None
    assert await refusal("https://mixed.example/", allow("mixed.example"), names) is None
    assert await refusal("https://unknown.example/", allow("unknown.example"), names) == "dns"


async def test_an_address_in_the_url_needs_no_resolver() -> None:
    names = Names()
    assert await refusal("http://1.1.1.1:8080/", NOTHING, names) is None
    assert await refusal("http://127.0.0.1/", NOTHING, names) == "refused_address"
    assert await refusal("http://[::1]/", NOTHING, names) == "refused_address"
    assert await refusal("http://[::1]/", with_loopback(NOTHING), names) is None
    assert names.asked == []
