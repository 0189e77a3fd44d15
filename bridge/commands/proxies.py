"""Proxy settings of the environment that curl accepts and httpx does not, found before a client fails over them."""

from __future__ import annotations

import ipaddress
import os
import urllib.request

import httpx


def proxy_faults() -> list[str]:
    """One line for each variable that httpx cannot use. It shows no value: a proxy's URL may hold a password."""
    found = urllib.request.getproxies_environment()
    bypassed = [entry.strip() for entry in found.get("no", "").split(",")]
    if "*" in bypassed:
        return []
    proxies = ((scheme, _fault_of_proxy(found.get(scheme, ""))) for scheme in ("http", "https", "all"))
    faults = [f"{_variable(scheme)} {fault}" for scheme, fault in proxies if fault]
    if wrong := [number for number, entry in enumerate(bypassed, 1) if not _is_usable(entry)]:
        faults.append(
            f"{_variable('no')} must hold host names, IPv4 networks and addresses; entry {wrong[0]} is none of these "
            "(write an IPv6 address without brackets, and no IPv6 network)"
        )
    return faults


def _variable(scheme: str) -> str:
    """As it is written: in lower case it wins."""
    name = f"{scheme}_proxy"
    return name if os.environ.get(name) else name.upper()


def _fault_of_proxy(url: str) -> str:
    if not url:
        return ""
    try:
        httpx.AsyncHTTPTransport(verify=False, proxy=url if "://" in url else f"http://{url}")
    except ImportError:
        return "names a SOCKS proxy: use an HTTP one, or install the package socksio"
    except (ValueError, httpx.InvalidURL):
        return "must be the URL of an HTTP proxy, http://host:port"
    return ""


def _is_usable(host: str) -> bool:
    """Whether httpx makes a URL pattern of it; see its `get_environment_proxies`."""
    try:
        is_v6 = ipaddress.ip_address(host).version == 6
    except ValueError:
        is_v6 = False
    pattern = host if "://" in host else f"all://[{host}]" if is_v6 else f"all://*{host}"
    try:
        httpx.URL(pattern)
    except httpx.InvalidURL:
        return False
    return True
