"""`taskmaster limits`: named limiters, shared by all workers."""

from __future__ import annotations

import getpass
from typing import TYPE_CHECKING, Any

import rich_click as click

from taskmaster.cli.options import STORE, as_json, echo_json, pairs_of, settings_from, settings_options
from taskmaster.cli.store import connect

if TYPE_CHECKING:  # the command line starts without the engine
    from taskmaster.api.flow_shapes import Limit
    from taskmaster.engine.limits import LimitView
    from taskmaster.settings import Settings
    from taskmaster.store.call import Talk

__all__ = ["limits"]

_revision = click.option("--revision", type=int, metavar="N", help="Only if it still has this revision, as list shows it.")
_reason = click.option("--reason", default="", help="Why; kept in the audit.")


@click.group()
def limits() -> None:
    """Limiters: how many attempts may begin in a time, or run at once, over all workers.

    Queues, job types and jobs name those they need.
    """


@limits.command("list")
@click.argument("name", required=False)
@as_json
@settings_options(*STORE)
def list_(name: str | None, as_json: bool, **texts: str | None) -> None:
    """List all limiters, or the one of that NAME: what each allows, what is in use, what waits, and what it is attached to.

    Exit codes: 0 listed, 1 there is no such limiter, 69 no store.
    """
    from taskmaster.engine.limits import list_limits

    settings = settings_from(texts)
    _print(_shown(settings, list_limits(settings.partitions, name or "")), as_json=as_json)


@limits.command()
@click.argument("name")
@click.option("--rate", type=int, metavar="N", help="So many attempts may begin in --per-ms.")
@click.option("--per-ms", type=int, metavar="MS", help="With --rate: in how many milliseconds.")
@click.option("--burst", type=int, metavar="N", help="With --rate: so many at once, filling up at that rate.")
@click.option("--concurrency", type=int, metavar="N", help="So many attempts may run at once.")
@click.option("--by-key", is_flag=True, help="Each fairness key for itself.")
@click.option(
    "--override", "overrides", multiple=True, metavar="KEY=N", help="With --by-key: another number for this key; may be repeated."
)
@_revision
@_reason
@as_json
@settings_options(*STORE)
def put(name: str, revision: int | None, reason: str, as_json: bool, **given: Any) -> None:
    """Make the limiter NAME or change it; in force at once, for who waits for it too.

    Exit codes: 0 done, 1 the rule cannot be or was changed since, 2 wrong usage, 69 no store.
    """
    names = ("rate", "per_ms", "burst", "concurrency", "by_key", "overrides")
    rate, per_ms, burst, concurrency, by_key, overrides = (given.pop(one) for one in names)
    if (rate is None) == (concurrency is None):
        raise click.UsageError("give --rate N --per-ms MS, or --concurrency N")
    settings = settings_from(given)
    from taskmaster.engine import strict
    from taskmaster.engine.limits import LimitRule, limit_name, put_limit
    from taskmaster.engine.rules import Word

    wanted = {
        "kind": "concurrency" if rate is None else "rate",
        "max": concurrency if rate is None else rate,
        "perMs": per_ms,
        "burst": burst,
    }
    wanted |= {"by": "fairnessKey" if by_key else None, "overrides": pairs_of(overrides, "--override")}
    rule = strict.convert({name: value for name, value in wanted.items() if value}, LimitRule)
    word = Word(getpass.getuser()[:40], reason)

    def made() -> Talk[list[LimitView]]:
        return [(yield from put_limit(limit_name(name), rule, word, partitions=settings.partitions, known=revision))]

    _print(_shown(settings, made()), as_json=as_json)


@limits.command()
@click.argument("name")
@_revision
@_reason
@settings_options(*STORE)
def delete(name: str, revision: int | None, reason: str, **texts: str | None) -> None:
    """Take the limiter NAME away: what names it is not limited by it any more.

    Exit codes: 0 done, 1 there is no such limiter, or it was changed since, 69 no store.
    """
    from taskmaster.engine.limits import delete_limit
    from taskmaster.engine.rules import Word

    settings = settings_from(texts)
    store = connect(settings)
    try:
        word = Word(getpass.getuser()[:40], reason)
        store.converse(delete_limit(name, word, partitions=settings.partitions, known=revision))
    finally:
        store.close()
    click.echo(f"limiter {name} is gone")


def _shown(settings: Settings, talk: Talk[list[LimitView]]) -> list[Limit]:
    from taskmaster.api import views
    from taskmaster.engine.rules import read_rules

    store = connect(settings)
    try:
        found = store.converse(talk)
        rules = store.converse(read_rules(settings.partitions))
    finally:
        store.close()
    return [views.limit_of(view, rules) for view in found]


def _print(found: list[Limit], *, as_json: bool) -> None:
    if as_json:
        echo_json(found)
        return
    for one in found:
        rule = f"{one.max} at once" if one.kind == "concurrency" else f"{one.max} in {one.per_ms} ms"
        if one.burst is not None:
            rule += f", burst {one.burst}"
        if one.by is not None:
            rule += f", each key for itself{''.join(f', {key}: {most}' for key, most in one.overrides.items())}"
        use = "" if one.in_use is None else f"  {one.in_use} in use"
        room = "now" if one.room_in_ms == 0 else "when one ends" if one.room_in_ms is None else f"in {one.room_in_ms} ms"
        where = ", ".join([*(f"queue {name}" for name in one.queues), *(f"type {name}" for name in one.job_types)])
        click.echo(f"{one.name}  {rule}{use}  {one.waiting} waiting  room {room}  {where or 'attached to no queue or type'}")
    if not found:
        click.echo("no limiters", err=True)
