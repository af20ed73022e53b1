"""Hooks and the handler: what to send, handed to whichever delivery is configured."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from taskmaster_email.delivery import Delivery, Outbox, Smtp
from taskmaster_email.message import compose
from taskmaster_email.settings import Settings
from taskmaster_sdk import Job, JobContext, PluginContext, hookimpl, job

__all__ = ["EmailPlugin", "Welcome", "plugin"]


@dataclass
class Welcome:
    """Whom to welcome.

    Attributes:
        email: one address, ASCII before the @.
        name: shown in the greeting and beside the address, at most 200 characters, no control characters.
        message: a paragraph of one's own, plain text.
    """

    email: str
    name: str
    message: str = ""


class EmailPlugin:
    """What the entry point names. `on_init` decides where mail goes."""

    def __init__(self) -> None:
        self._settings: Settings | None = None
        self._delivery: Delivery | None = None
        self.welcome_email = job(
            "welcome-email",
            queue="email-queue",
            attempts=5,
            timeout_s=30,
            example={"email": "albert@example.com", "name": "Albert", "message": "Congratulations!"},
        )(self._welcome_email)

    @hookimpl
    def register_jobs(self) -> list[Job]:
        """The one job type."""
        return [self.welcome_email]

    @hookimpl
    def on_init(self, context: PluginContext) -> None:
        """Read the settings and choose the delivery. No connection is made yet.

        Raises:
            ValueError: a setting is wrong; the message never shows the password.
        """
        settings = Settings.from_environ(context.environ)
        self._settings = settings
        if settings.smtp is None:
            self._delivery = Outbox(context.data_dir / "outbox")
            return
        if settings.smtp.sends_password_in_clear:
            context.logger.warning("email_password_in_clear", extra={"host": settings.smtp.host})
        self._delivery = Smtp(settings.smtp)

    async def _welcome_email(self, payload: Welcome, ctx: JobContext) -> dict[str, Any]:
        """Send a welcome e-mail."""
        if self._settings is None or self._delivery is None:
            raise RuntimeError("the plugin was not initialised: on_init has not run")
        text = f"Hello {payload.name},\n\nwelcome!\n"
        if payload.message:
            text += f"\n{payload.message}\n"
        message = compose(
            sender=self._settings.sender,
            address=payload.email,
            name=payload.name,
            subject=f"Welcome, {payload.name}!",
            text=text,
            root_id=ctx.root_id,
        )
        receipt = await self._delivery.deliver(message, ctx)
        return {"messageId": str(message["Message-ID"]), **receipt}


plugin = EmailPlugin()
