"""Requests to an API on this machine, each on a connection of its own: `httpx.get` and `httpx.post`, without what they cost."""

from __future__ import annotations

import functools
import ssl
from typing import Any

import httpx

__all__ = ["get", "post"]

#: One for all. httpx makes one for each call, also for plain HTTP: 60 ms of CPU to read the machine's certificates.
_tls = functools.cache(ssl.create_default_context)


def get(url: str, *, timeout: float = 20, **options: Any) -> httpx.Response:
    return httpx.get(url, timeout=timeout, verify=_tls(), **options)


def post(url: str, *, timeout: float = 20, **options: Any) -> httpx.Response:
    return httpx.post(url, timeout=timeout, verify=_tls(), **options)
