"""Options that say which dead letters or jobs are meant, and who acts and why."""

from __future__ import annotations

import getpass
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec
import rich_click as click

if TYPE_CHECKING:
    from taskmaster.engine.orders import OrderFilter

__all__ = ["actor_options", "filter_from", "filter_options", "user"]

C = TypeVar("C", bound=Callable[..., Any])

_LETTERS = {
    "type": "Of this job type.",
    "queue": "Of this queue.",
    "fingerprint": "Of this group.",
    "reason_is": "Dead for this reason, such as attempts_exhausted or worker_lost.",
    "failed_after": "Failed at this instant or later, such as 2027-01-31T09:00:00Z.",
    "failed_before": "Failed earlier than this instant.",
    "text": "With this text in the error's class or message, in any case.",
    "plugin_version": "Last run by this version of the plugin.",
}


def filter_options(command: C) -> C:
    """Options for every filter on dead letters; the command gets their texts as keyword arguments, for `filter_from`."""
    for name, words in reversed(_LETTERS.items()):
        command = click.option(f"--{name.replace('_', '-')}", name, default=None, help=words)(command)
    return command


def filter_from(given: dict[str, Any], **more: Any) -> OrderFilter:
    """The filter; its options are taken out of *given*.

    Raises:
        click.UsageError: one of them makes no sense.
    """
    from taskmaster.engine.orders import OrderFilter

    texts = {name: given.pop(name) for name in _LETTERS}
    texts["reason"] = texts.pop("reason_is")
    wanted = {_camel(name): text for name, text in (texts | more).items() if text is not None}
    try:
        return msgspec.convert(wanted, OrderFilter)
    except msgspec.ValidationError as error:
        raise click.UsageError(str(error)) from error


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(part.title() for part in rest)


def actor_options(command: C) -> C:
    """`--reason` and `--by`."""
    command = click.option("--by", default=None, help="Who does it (default: the user of this shell).")(command)
    return click.option("--reason", default="", help="Why; kept with what is done.")(command)


def user(by: str | None) -> str:
    """Who acts."""
    return by or getpass.getuser()
