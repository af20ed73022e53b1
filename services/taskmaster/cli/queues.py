"""`taskmaster queues`: how queues stand, and orders to them."""

from __future__ import annotations

import getpass
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import rich_click as click

from taskmaster.cli.options import STORE, as_json, echo_json, pairs_of, settings_from, settings_options
from taskmaster.cli.store import connect
from taskmaster.errors import NotFound

if TYPE_CHECKING:  # the command line starts without the engine
    from taskmaster.api.flow_shapes import Queue
    from taskmaster.settings import Settings
    from taskmaster.store.call import Talk
    from taskmaster.store.client import SyncStore

__all__ = ["queues"]

C = TypeVar("C", bound=Callable[..., Any])
_CHANGEABLE = {
    "limits": "limits",
    "strict": "strict",
    "weights": "weights",
    "weight": "weight",
    "max-length": "maxLength",
    "concurrency": "concurrency",
    "sla-ms": "slaMs",
}


@click.group()
def queues() -> None:
    """Queues: list them, pause and resume them, change their settings while all runs."""


@queues.command("list")
@as_json
@settings_options(*STORE)
def list_(as_json: bool, **texts: str | None) -> None:
    """List all queues that ever had a job or a setting.

    Exit codes: 0 listed, 69 no store.
    """
    settings = settings_from(texts)
    store = connect(settings)
    try:
        found = _look(store, settings, "")
    finally:
        store.close()
    if as_json:
        echo_json(found)
        return
    for one in found:
        standing = "paused" if one.paused else "draining" if one.draining else ""
        counts = "  ".join(f"{one.counts[state]} {state}" for state in ("waiting", "delayed", "active", "completed", "failed"))
        click.echo(f"{one.name}  {counts}  {standing}".rstrip())
    if not found:
        click.echo("no queues", err=True)


@queues.command()
@click.argument("name")
@as_json
@settings_options(*STORE)
def show(name: str, as_json: bool, **texts: str | None) -> None:
    """Show the queue NAME; --json prints what GET /queues/NAME answers.

    Exit codes: 0 shown, 1 there is no such queue, 69 no store.
    """
    settings = settings_from(texts)
    _order(settings, name, None, as_json=as_json)


def _command(name: str, about: str) -> Callable[[C], C]:
    """A command that gives an order to one queue."""

    def decorate(command: C) -> C:
        for option in (
            settings_options(*STORE),
            as_json,
            click.option("--reason", default="", help="Why; shown as long as it is in force."),
        ):
            command = option(command)
        command = click.argument("name")(command)
        command.__doc__ = f"{about}\n\nExit codes: 0 done, 1 there is no such queue, or it cannot be, 2 wrong usage, 69 no store."
        return queues.command(name)(command)  # type: ignore[return-value]

    return decorate


@_command("pause", "Begin no job of the queue NAME until it is resumed. New ones are taken, and those that run go on.")
def pause(name: str, reason: str, as_json: bool, **texts: str | None) -> None:
    from taskmaster.engine.rules import set_pause

    settings = settings_from(texts)
    _order(settings, name, set_pause(f"q/{name}", "pause", settings.partitions, _word(reason)), as_json=as_json)


@_command("resume", "End a pause or a draining of the queue NAME.")
def resume(name: str, reason: str, as_json: bool, **texts: str | None) -> None:
    from taskmaster.engine.queue_rules import resume_queue

    settings = settings_from(texts)
    _order(settings, name, resume_queue(name, _word(reason), partitions=settings.partitions), as_json=as_json)


@_command("drain", "Take no new jobs for the queue NAME, and work off those it has.")
def drain(name: str, reason: str, as_json: bool, **texts: str | None) -> None:
    from taskmaster.engine.queue_rules import drain_queue

    settings = settings_from(texts)
    store = connect(settings)
    try:
        now_ms = store.now_ms()
    finally:
        store.close()
    _order(settings, name, drain_queue(name, _word(reason), partitions=settings.partitions, now_ms=now_ms), as_json=as_json)


@_command("set", "Change settings of the queue NAME, which need not have had a job yet. Workers follow within seconds.")
@click.option("--limit", "limits", multiple=True, metavar="NAME", help="A limiter that every job of it needs; may be repeated.")
@click.option("--strict/--by-turns", "strict", default=None, help="Always the highest priority first; or priorities take turns by weight.")
@click.option(
    "--weight", "weights", multiple=True, metavar="KEY=N", help="Turns of a fairness key, 1 where none is given; may be repeated."
)
@click.option("--queue-weight", type=int, metavar="N", help="Turns of the queue among those that share slots with it.")
@click.option("--max-length", type=int, metavar="N", help="Jobs that may wait or be delayed in it; more are refused.")
@click.option("--concurrency", type=int, metavar="N", help="Jobs of it that one worker process runs at once.")
@click.option("--sla-ms", type=int, metavar="MS", help="How long a job may wait in it, which health and alerts measure by.")
@click.option(
    "--default", "defaults", multiple=True, type=click.Choice(list(_CHANGEABLE)), help="Put this back to its default; may be repeated."
)
@click.option("--revision", type=int, metavar="N", help="Only if its settings still have this revision, as show --json tells it.")
def set_(name: str, reason: str, as_json: bool, **given: Any) -> None:
    wanted: dict[str, Any] = {_CHANGEABLE[one]: None for one in given.pop("defaults")}
    asked = {
        "limits": list(given.pop("limits")) or None,
        "strict": given.pop("strict"),
        "weights": pairs_of(given.pop("weights"), "--weight") or None,
        "weight": given.pop("queue_weight"),
        "maxLength": given.pop("max_length"),
        "concurrency": given.pop("concurrency"),
        "slaMs": given.pop("sla_ms"),
        "revision": given.pop("revision"),
    }
    wanted |= {field: value for field, value in asked.items() if value is not None}
    settings = settings_from(given)
    from taskmaster.engine import strict
    from taskmaster.engine.queue_rules import QueueChange, change_queue

    change = strict.convert(wanted, QueueChange)
    _order(settings, name, change_queue(name, change, _word(reason), partitions=settings.partitions), as_json=as_json, is_there=False)


def _word(reason: str) -> Any:
    from taskmaster.engine.rules import Word

    return Word(getpass.getuser()[:40], reason)


def _look(store: SyncStore, settings: Settings, name: str) -> list[Queue]:
    from taskmaster.api import views
    from taskmaster.engine import queries
    from taskmaster.engine.retention import kept_of
    from taskmaster.engine.rules import read_rules
    from taskmaster.settings import slots_of
    from taskmaster.store import reads

    rows = [row for partition in range(settings.partitions) for row in store.run(reads.queues(partition, queue=name))]
    rules = store.converse(read_rules(settings.partitions))
    found = queries.merge_queues(rows)
    return [views.queue_of(view, rules, slots_of(settings, view.name), kept_of(settings, view.name)) for view in found]


def _order(settings: Settings, name: str, talk: Talk[Any] | None, *, as_json: bool, is_there: bool = True) -> None:
    """Give the order, if there is one, to a queue that must be there already or not, and print the queue.

    Raises:
        NotFound: it is not.
    """
    store = connect(settings)
    try:
        if is_there and not (name and _look(store, settings, name)):
            raise NotFound(f"there is no queue {name!r}; `taskmaster queues list` names those that had a job", queue=name)
        if talk is not None:
            store.converse(talk)
        [shown] = _look(store, settings, name)
    finally:
        store.close()
    if as_json:
        echo_json(shown)
        return
    paused = f"by {shown.paused_by} since {shown.paused_at}{f': {shown.pause_reason}' if shown.pause_reason else ''}"
    drained = f"by {shown.drained_by} since {shown.drained_at}{f': {shown.drain_reason}' if shown.drain_reason else ''}"
    lines = {
        "queue": shown.name,
        "paused": paused if shown.paused else "",
        "draining": drained if shown.draining else "",
        "jobs": ", ".join(f"{count} {state}" for state, count in shown.counts.items() if count) or "none",
        "at once": f"{shown.concurrency} in each worker process",
        "limits": ", ".join(shown.limits),
        "priorities": "always the highest first" if shown.strict else "",
        "weights": ", ".join(f"{key}: {weight}" for key, weight in shown.weights.items()),
        "turns": "" if shown.weight == 1 else f"{shown.weight} among queues that share its slots",
        "max length": "" if shown.max_length is None else str(shown.max_length),
        "SLA": "" if shown.sla_ms is None else f"{shown.sla_ms / 1_000:g} s; the oldest waits {(shown.oldest_waiting_ms or 0) / 1_000:g} s",
    }
    for label, text in lines.items():
        if text:
            click.echo(f"{label:<10} {text}")
    for warning in shown.warnings:
        click.echo(f"warning: {warning}", err=True)
