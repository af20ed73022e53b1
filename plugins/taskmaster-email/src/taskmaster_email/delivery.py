"""The two ways a message goes: to an SMTP server, or into a folder."""

from __future__ import annotations

import asyncio
import os
import socket
import tempfile
from email.message import EmailMessage
from pathlib import Path
from typing import Protocol

import aiosmtplib

from taskmaster_email.message import checked_id
from taskmaster_email.settings import Server
from taskmaster_sdk import Fatal, JobContext

__all__ = ["Delivery", "DeliveryFailed", "DeliveryUnknown", "Outbox", "Smtp"]

#: Seconds for each step of the conversation with a server, connecting included; less when the attempt's deadline is nearer.
STEP_S = 15.0


class DeliveryFailed(Exception):
    """The server could not be reached or asked to come back later, and surely has not taken the message: worth another attempt."""


class DeliveryUnknown(Exception):
    """The connection broke with the message on its way: the server may have taken it."""


class Delivery(Protocol):
    """Somewhere to put a message."""

    async def deliver(self, message: EmailMessage, ctx: JobContext) -> dict[str, str]:
        """Put *message* there for good; the answer says where.

        Raises:
            Fatal: it will never be taken.
            Exception: it was not taken this time.
        """


class Smtp:
    """Hands messages to a server, over one connection for each, made when needed and closed after.

    A message goes out once, whatever crashes: the guard `smtp` outlives attempts and replays. When the server takes it and then fails to
    say so, nobody knows; the next attempt ends the job with reason `effect_unknown`, and a person looks for the Message-ID in the
    server's log.
    """

    def __init__(self, server: Server) -> None:
        self._server = server
        self._client_name = socket.gethostname().encode("ascii", "ignore").decode() or "localhost"

    async def deliver(self, message: EmailMessage, ctx: JobContext) -> dict[str, str]:
        """Send it, unless an earlier attempt has.

        Raises:
            Fatal: the server refuses the sender, the recipient or the message for good (5xx).
            DeliveryFailed: no connection, no log-in, or 4xx.
            DeliveryUnknown: the connection broke, or the time was up, after it had been made.
            EffectUnknown: so it was at an earlier attempt.
        """
        async with ctx.once("smtp", unless=(DeliveryFailed, Fatal)) as effect:
            if effect.is_new:
                await self._send(message, ctx)
        return {"delivered": "smtp"}

    async def _send(self, message: EmailMessage, ctx: JobContext) -> None:
        server = self._server
        try:
            await aiosmtplib.send(
                message,
                hostname=server.host,
                port=server.port,
                username=server.user,
                password=server.password,
                use_tls=server.security == "tls",
                start_tls={"tls": False, "starttls": True, "opportunistic": None}[server.security],
                timeout=max(0.1, min(STEP_S, ctx.remaining_s)),
                local_hostname=self._client_name,
            )
        except (aiosmtplib.SMTPException, OSError) as error:
            answer = _answer(error)
            if answer is not None and answer[0] >= 500:
                raise Fatal(f"refused by {server.host}: {answer[0]} {answer[1]}") from error
            failed = DeliveryUnknown if _may_be_taken(error) else DeliveryFailed
            raise failed(f"{server.host}:{server.port}: {error}") from error


def _may_be_taken(error: BaseException) -> bool:
    """Whether the trouble came when the message may have been on its way; else there was no connection, or the server said no."""
    broken = aiosmtplib.SMTPServerDisconnected | aiosmtplib.SMTPReadTimeoutError
    return isinstance(error, broken) or not isinstance(error, aiosmtplib.SMTPException)


def _answer(error: BaseException) -> tuple[int, str] | None:
    """What the server said about this very message; None when the trouble is with the connection or the log-in, which others can mend."""
    if isinstance(error, aiosmtplib.SMTPRecipientsRefused) and error.recipients:
        error = error.recipients[0]
    if isinstance(error, aiosmtplib.SMTPAuthenticationError | aiosmtplib.SMTPConnectError | aiosmtplib.SMTPHeloError):
        return None
    return (error.code, error.message) if isinstance(error, aiosmtplib.SMTPResponseException) else None


class Outbox:
    """Writes messages as `.eml` files, one for each job and its retries and replays."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    async def deliver(self, message: EmailMessage, ctx: JobContext) -> dict[str, str]:
        """Write `<root id>.eml`: whole and on the disk, or not at all. The same job again replaces its file.

        Raises:
            ValueError: the id cannot be a file name; `compose` refused it before.
            OSError: the disk.
        """
        path = self._folder / f"{checked_id(ctx.root_id)}.eml"
        await asyncio.to_thread(_write, path, message.as_bytes())
        return {"delivered": "outbox", "path": str(path)}


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    number, draft = tempfile.mkstemp(prefix=".", suffix=".draft", dir=path.parent)
    try:
        with os.fdopen(number, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, path)
    except BaseException:
        Path(draft).unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
