"""The plugin's settings, read once from the environment."""

from __future__ import annotations

import difflib
import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field
from email.headerregistry import Address
from email.utils import getaddresses
from typing import Literal
from urllib.parse import unquote, urlsplit

from taskmaster_email.message import checked_address, checked_name

__all__ = ["PREFIX", "Server", "Settings"]

PREFIX = "TASKMASTER_PLUGIN_EMAIL_"
_URL = f"{PREFIX}SMTP_URL"
_FROM = f"{PREFIX}FROM"
_DEFAULT_FROM = "TaskMaster <no-reply@localhost>"
_Security = Literal["opportunistic", "starttls", "tls"]
#: By URL scheme: how the connection is protected, and the usual port.
_SCHEMES: dict[str, tuple[_Security, int]] = {"smtp": ("opportunistic", 25), "smtp+starttls": ("starttls", 587), "smtps": ("tls", 465)}


@dataclass(frozen=True, slots=True)
class Server:
    """An SMTP server.

    Attributes:
        host: name or address.
        port: of the server.
        security: `tls` from the first byte, `starttls` or no mail, or STARTTLS only if offered.
        user: None without a log-in.
        password: never shown.
    """

    host: str
    port: int
    security: _Security
    user: str | None = None
    password: str | None = field(default=None, repr=False)

    @property
    def sends_password_in_clear(self) -> bool:
        """Whether a server that offers no STARTTLS would get the password over an open network."""
        return self.password is not None and self.security == "opportunistic" and not _is_loopback(self.host)


@dataclass(frozen=True, slots=True)
class Settings:
    """Where mail comes from and where it goes.

    Attributes:
        sender: the From header.
        smtp: None writes to the outbox.
    """

    sender: Address
    smtp: Server | None

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> Settings:
        """The settings that *environ* has. An empty value is as good as none.

        Raises:
            ValueError: an unknown name with the plugin's prefix, or a value that cannot be; never shows the URL, which may hold a password.
        """
        known = (_URL, _FROM)
        for name in environ:
            if name.startswith(PREFIX) and name not in known:
                near = difflib.get_close_matches(name, known, n=1, cutoff=0.0)[0]
                raise ValueError(f"unknown setting {name}; did you mean {near}?")
        url = environ.get(_URL, "").strip()
        return cls(sender=_sender(environ.get(_FROM, "").strip() or _DEFAULT_FROM), smtp=_server(url) if url else None)


def _sender(text: str) -> Address:
    parsed = getaddresses([text])
    if len(parsed) != 1 or not parsed[0][1]:
        raise ValueError(f"{_FROM} is {text!r}: one address is meant, as in {_DEFAULT_FROM!r}")
    name, address = parsed[0]
    try:
        user, domain = checked_address(address)
        return Address(display_name=checked_name(name), username=user, domain=domain)
    except ValueError as error:
        raise ValueError(f"{_FROM} is {text!r}: {error}") from error


def _server(url: str) -> Server:
    try:
        parts = urlsplit(url)
        host, port, scheme = parts.hostname, parts.port, parts.scheme
    except ValueError:
        raise ValueError(f"{_URL} is not a URL: use smtp://, smtp+starttls:// or smtps://, then [user:password@]host[:port]") from None
    if scheme not in _SCHEMES:
        raise ValueError(f"{_URL} begins with {scheme!r}: use smtp://, smtp+starttls:// or smtps://")
    if not host or parts.path not in ("", "/") or parts.query or parts.fragment:
        raise ValueError(f"{_URL}: after {scheme}:// comes [user:password@]host[:port] and nothing else; write special characters as %XX")
    if (parts.username is None) != (parts.password is None):
        raise ValueError(f"{_URL}: give user and password, or neither")
    security, usual = _SCHEMES[scheme]
    user = unquote(parts.username) if parts.username is not None else None
    password = unquote(parts.password) if parts.password is not None else None
    return Server(host, port or usual, security, user, password)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
