"""Whose page sends a request: a browser carries out what any page asks of it, and says where that page is from."""

from __future__ import annotations

from collections.abc import Iterable

from taskmaster.api.problems import CrossSite

__all__ = ["check"]

_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})


def check(method: str, headers: Iterable[tuple[bytes, bytes]]) -> None:
    """Whether a program, or a page of this very host, sends it. Of reading there is nothing to check: no other page is shown the answer.

    What `Sec-Fetch-Site` says holds, since no page can set it and proxies leave it alone; a browser that does not send it says its
    `Origin`, which is compared with `Host`. Programs send neither.

    Raises:
        CrossSite: a page of another site does.
    """
    if method in _SAFE:
        return
    site, origin, host = b"", b"", b""
    for name, value in headers:
        if name == b"sec-fetch-site":
            site = value
        elif name == b"origin":
            origin = value
        elif name == b"host":
            host = value
    if site in (b"same-origin", b"none") or not (site or origin):
        return
    if site or origin.partition(b"://")[2].lower() != host.lower():
        shown = origin.decode("latin-1")[:200]
        raise CrossSite(f"a page of another site ({shown or 'which does not say its origin'}) may not order anything here", origin=shown)
