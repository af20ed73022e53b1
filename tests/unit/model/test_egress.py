"""Which URLs may be meant, and which addresses may be called."""

from __future__ import annotations

import pytest

from taskmaster.model.egress import Target, is_public, parse_allowed, target_of


@pytest.mark.parametrize(
    ("url", "target"),
    [
        ("https://example.com", Target("https", "example.com", 443, "/")),
        ("HTTP://Example.COM:8080/a/b?c=d&e", Target("http", "example.com", 8080, "/a/b?c=d&e")),
        ("https://[2606:4700::1111]/", Target("https", "2606:4700::1111", 443, "/")),
        ("http://93.184.215.14?x", Target("http", "93.184.215.14", 80, "/?x")),
        ("https://xn--bcher-kva.example./", Target("https", "xn--bcher-kva.example.", 443, "/")),
    ],
)
def test_what_a_url_names(url: str, target: Target) -> None:
    assert target_of(url) == target


@pytest.mark.parametrize(
    "url",
    [
        "",
        "example.com",
        "//example.com/",
        "ftp://example.com/",
        "file:///etc/passwd",
        "gopher://127.0.0.1:6379/_FLUSHALL",
        "javascript:alert(1)",
        "https://",
        "https:///path",
        "https://user@example.com/",
        "https://user:password@example.com/",
        "https://example.com@127.0.0.1/",
        "https://example.com:0/",
        "https://example.com:65536/",
        "https://example.com:port/",
        "https://example.com/#fragment",
        "https://example.com/a b",
        "https://example.com/\r\nX-Evil: 1",
        "https://example.com\\@127.0.0.1/",
        "https://exämple.com/",
        "https://ⓔxample.com/",
        "https://127.0.0.1%00.example.com/",
        "https://exa%6dple.com/",
        "https://-example.com/",
        "https://example..com/",
        "https://[fe80::1%25eth0]/",
        "https://[::1/",
        "https://[example.com]/",
        "http://2130706433/",
        "http://0x7f000001/",
        "http://0x7f.0.0.1/",
        "http://0177.0.0.1/",
        "http://127.1/",
        "http://127.0.0.01/",
        "http://127.0.0.1.2/",
        "http://256.0.0.1/",
        "http://example.0x1/",
        "http://017700000001/",
        "https://" + "a" * 64 + ".example/",
        "https://example.com/" + "a" * 2_048,
    ],
)
def test_what_cannot_be_meant_is_refused_without_being_shown(url: str) -> None:
    with pytest.raises(ValueError, match=r".+") as refused:
        target_of(url)

    assert "password" not in str(refused.value).replace("no user or password may", "")
    assert "Evil" not in str(refused.value)


@pytest.mark.parametrize("address", ["8.8.8.8", "93.184.215.14", "2606:4700:4700::1111", "2a00:1450:4001::200e"])
def test_public_addresses(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize(
    "address",
    [
        "0.0.0.0",
        "0.1.2.3",
        "10.0.0.1",
        "100.64.0.1",
        "100.100.100.200",
        "127.0.0.1",
        "127.255.255.254",
        "168.63.129.16",
        "169.254.169.254",
        "172.16.0.1",
        "172.31.255.255",
        "192.0.0.192",
        "192.0.2.1",
        "192.168.1.1",
        "198.18.0.1",
        "198.51.100.7",
        "203.0.113.9",
        "224.0.0.1",
        "239.255.255.255",
        "240.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "::127.0.0.1",
        "::ffff:127.0.0.1",
        "::ffff:8.8.8.8",
        "::ffff:169.254.169.254",
        "64:ff9b::7f00:1",
        "64:ff9b::808:808",
        "64:ff9b:1::1",
        "2001::1",
        "2001:db8::1",
        "2002:7f00:1::",
        "2002:808:808::1",
        "fc00::1",
        "fd00:ec2::254",
        "fe80::1",
        "fe80::1%eth0",
        "fec0::1",
        "ff02::1",
        "ff0e::1",
    ],
)
def test_addresses_that_are_not(address: str) -> None:
    assert not is_public(address)


def test_what_is_named_may_be_called() -> None:
    """A host by its name whatever its address, an address or network whatever the name; all else must be public."""
    allowed = parse_allowed(["Hooks.Internal", "10.1.0.0/16", "127.0.0.1", "fd00::/8", "[::1]"])

    assert allowed.permits("hooks.internal", "192.168.0.1")
    assert allowed.permits("HOOKS.internal.", "192.168.0.1")
    assert allowed.permits("other.example", "10.1.2.3")
    assert allowed.permits("localhost", "127.0.0.1")
    assert allowed.permits("localhost", "::1")
    assert allowed.permits("x.example", "fd12::1")
    assert allowed.permits("x.example", "8.8.8.8")
    assert not allowed.permits("evil.hooks.internal", "192.168.0.1")
    assert not allowed.permits("other.example", "10.2.0.1")
    assert not allowed.permits("localhost", "127.0.0.2")
    assert not allowed.permits("localhost", "::ffff:127.0.0.1")


@pytest.mark.parametrize("entry", ["10.0.0.0/33", "a b", "http://example.com", "0x7f000001", "127.1", "*.example.com", "host:80", ""])
def test_what_names_nothing_is_refused(entry: str) -> None:
    with pytest.raises(ValueError, match="no host, address or network"):
        parse_allowed([entry])
