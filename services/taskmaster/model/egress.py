"""Where requests of ours may go when somebody else names the address: the form of a URL, and the addresses behind its host. Pure."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from typing import NamedTuple
from urllib.parse import urlsplit

__all__ = ["URL_MAX", "Allowed", "Target", "is_public", "parse_allowed", "target_of"]

URL_MAX = 2_048
Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_LABEL = r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_HOST = re.compile(rf"{_LABEL}(\.{_LABEL})*\.?")
#: What some resolvers take for an IPv4 address that is spelt otherwise: 2130706433, 0x7f.1, 0177.0.0.1.
_NUMBER = re.compile(r"(?i)\d+|0x[0-9a-f]*")
#: IPv6 addresses that stand for an IPv4 address: NAT64, Teredo, 6to4. Those that are mapped or compatible are no global ones anyway.
_EMBEDDING = tuple(ipaddress.ip_network(text) for text in ("::ffff:0:0/96", "64:ff9b::/96", "64:ff9b:1::/48", "2001::/32", "2002::/16"))
#: Special by the registries of IANA, whatever the release of Python knows of them.
_SPECIAL = tuple(ipaddress.ip_network(text) for text in ("192.0.0.0/24", "192.88.99.0/24", "100::/64", "3fff::/20", "5f00::/16"))
#: Services of clouds that tell a machine its secrets, at addresses that look public.
_METADATA = frozenset({ipaddress.ip_address("168.63.129.16")})


class Target(NamedTuple):
    """What a URL names. *path* with its query; *host* as it is spelt, in lower case, an IPv6 address without brackets."""

    scheme: str
    host: str
    port: int
    path: str


class Allowed(NamedTuple):
    """What may be called although it is not public: hosts by name, and networks."""

    hosts: frozenset[str] = frozenset()
    networks: tuple[Network, ...] = ()

    def permits(self, host: str, address: str) -> bool:
        """Whether *address*, to which *host* was resolved, may be called."""
        return host.lower().rstrip(".") in self.hosts or is_public(address) or self._names(address)

    def _names(self, address: str) -> bool:
        found = ipaddress.ip_address(address.partition("%")[0])
        return any(found in network for network in self.networks)


def parse_allowed(entries: Iterable[str]) -> Allowed:
    """Names of hosts, addresses and networks (`10.1.0.0/16`).

    Raises:
        ValueError: an entry is none of them; says which.
    """
    hosts, networks = set(), []
    for entry in entries:
        try:
            networks.append(ipaddress.ip_network(entry.strip("[]"), strict=False))
        except ValueError:
            if "/" in entry or ":" in entry or _is_numeric(entry) or not _HOST.fullmatch(entry):
                raise ValueError(f"{entry!r} is no host, address or network") from None
            hosts.add(entry.lower().rstrip("."))
    return Allowed(frozenset(hosts), tuple(networks))


def is_public(address: str) -> bool:
    """Whether an address (IPv4, or IPv6 with or without a zone) can be meant by somebody out there.

    Not loopback, private, link-local, shared (100.64.0.0/10), unique local, multicast, unspecified or reserved ones, nor a cloud's metadata
    service, nor any form of IPv6 address that stands for an IPv4 address.
    """
    found: Address = ipaddress.ip_address(address.partition("%")[0])
    if found in _METADATA or not found.is_global or found.is_multicast or found.is_reserved:
        return False
    if isinstance(found, ipaddress.IPv6Address) and found.is_site_local:
        return False
    return not any(found in network for network in (*_SPECIAL, *_EMBEDDING))


def target_of(url: str) -> Target:
    """What *url* names, if it has the form of something that may be called. Its host is not resolved.

    Raises:
        ValueError: it has not; says what is wrong, without the URL: its query may be somebody's secret.
    """
    if not isinstance(url, str) or not 1 <= len(url) <= URL_MAX:
        raise ValueError(f"a URL of 1 to {URL_MAX} characters is meant")
    if not url.isascii() or not url.isprintable() or re.search(r"[\s\\<>\"]", url):
        raise ValueError("only printable ASCII is taken, no spaces or backslashes: spell a host in Punycode, the rest percent-encoded")
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        raise ValueError("host or port cannot be read") from None
    if parts.scheme not in ("http", "https"):
        raise ValueError("http:// or https:// is meant")
    if "@" in parts.netloc:
        raise ValueError("no user or password may stand in it")
    if "#" in url:
        raise ValueError("no fragment may stand in it")
    if port == 0:
        raise ValueError("port 0 cannot be called")
    _check_host(host)
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return Target(parts.scheme, host, port or (443 if parts.scheme == "https" else 80), path)


def _check_host(host: str) -> None:
    if ":" in host:
        try:
            is_plain = "%" not in host and bool(ipaddress.IPv6Address(host))
        except ValueError:
            is_plain = False
        if not is_plain:
            raise ValueError("the IPv6 address cannot be read, or names a zone")
    elif _is_numeric(host):
        try:
            ipaddress.IPv4Address(host)
        except ValueError:
            raise ValueError("an IPv4 address is spelt as four decimal numbers without leading zeros") from None
    elif len(host) > 253 or not _HOST.fullmatch(host):
        raise ValueError("the host is no name")


def _is_numeric(host: str) -> bool:
    """Whether the host's last part is a number, so that it can only be meant as an address."""
    return bool(_NUMBER.fullmatch(host.rstrip(".").rpartition(".")[2]))
