"""`taskmaster operations`: one action on many dead letters or jobs: preview, start, follow, cancel."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any

import rich_click as click

from taskmaster.cli.exits import EX_FAILED, EX_OK
from taskmaster.cli.filters import actor_options, filter_from, filter_options, user
from taskmaster.cli.options import STORE, as_json, echo_json, settings_from, settings_options
from taskmaster.cli.store import connect

if TYPE_CHECKING:
    from taskmaster.api.dlq_shapes import Operation
    from taskmaster.engine.orders import Plan
    from taskmaster.settings import Settings
    from taskmaster.store.client import SyncStore

__all__ = ["conclude", "operations"]

_LOOK_EVERY_S = 0.25


@click.group()
def operations() -> None:
    """Actions on many dead letters or jobs, carried out by the workers: start, follow and cancel them."""


@operations.command("list")
@click.option("--limit", type=click.IntRange(1, 1_000), default=20, show_default=True, help="So many at most.")
@as_json
@settings_options(*STORE)
def list_(limit: int, as_json: bool, **given: str | None) -> None:
    """List operations, newest first.

    Exit codes: 0 listed, 69 no store.
    """
    from taskmaster.api.dlq_views import operation_of
    from taskmaster.engine import operations as engine

    settings = settings_from(given)
    store = connect(settings)
    try:
        views, _ = store.converse(engine.newest(settings.partitions, after=("", ""), limit=limit))
    finally:
        store.close()
    shown = [operation_of(view) for view in views]
    if as_json:
        echo_json(shown)
        return
    for one in shown:
        click.echo(f"{one.operation_id}  {one.created_at}  {_line(one)}  by {one.by}: {one.reason}")
    if not shown:
        click.echo("no operations", err=True)


@operations.command()
@click.argument("operation_id", metavar="ID")
@as_json
@settings_options(*STORE)
def show(operation_id: str, as_json: bool, **given: str | None) -> None:
    """Show how far the operation ID is, and what became of the jobs that it made.

    Exit codes: 0 shown, 1 there is no such operation, 69 no store.
    """
    settings = settings_from(given)
    store = connect(settings)
    try:
        _show(_look(store, settings, operation_id), as_json=as_json)
    finally:
        store.close()


@operations.command()
@click.argument("operation_id", metavar="ID")
@actor_options
@as_json
@settings_options(*STORE)
def cancel(operation_id: str, reason: str, by: str | None, as_json: bool, **given: str | None) -> None:
    """End the operation ID. What it has done stays done.

    Exit codes: 0 it is cancelled, 1 there is no such operation, or it has ended otherwise, 69 no store.
    """
    from taskmaster.api.dlq_views import operation_of
    from taskmaster.engine import operations as engine

    settings = settings_from(given)
    store = connect(settings)
    try:
        view = store.converse(engine.cancel(operation_id, settings.partitions, by=user(by), reason=reason))
    finally:
        store.close()
    _show(operation_of(view), as_json=as_json)


@operations.command()
@click.argument("action", type=click.Choice(["replay", "discard", "cancel"]))
@filter_options
@click.option("--state", type=click.Choice(["waiting", "delayed"]), help="cancel: jobs in this state.")
@click.option("--id", "ids", multiple=True, metavar="ID", help="This dead letter or job; may be repeated, instead of a filter.")
@click.option("--all", "everything", is_flag=True, help="Every dead letter: needed when there is neither a filter nor an --id.")
@click.option("--rate", type=click.FloatRange(min=0, max=1_000, min_open=True), default=50, show_default=True, help="Entries a second.")
@click.option("--stop-on-failures", type=click.IntRange(min=1), help="replay: stop when so many of the new jobs have failed an attempt.")
@click.option("--accept-unknown", is_flag=True, help="replay: also while nobody knows whether an effect happened.")
@click.option("--key", default="", help="Equal keys are one operation, however often the command is repeated.")
@click.option("--dry-run", is_flag=True, help="Only say how many are meant.")
@click.option(
    "--wait", "wait_s", type=click.FloatRange(min=0), metavar="SECONDS", help="Show its progress until it and its jobs have ended."
)
@click.option("--yes", is_flag=True, help="discard: required, since records that are discarded are gone.")
@actor_options
@as_json
@settings_options(*STORE)
def start(
    action: str, key: str, everything: bool, dry_run: bool, wait_s: float | None, yes: bool, as_json: bool, by: str | None, **given: Any
) -> None:
    """Start ACTION on all dead letters that fit the filter (cancel: jobs that have not begun), oldest first.

    Exit codes: 0 started; with --wait also completed, and no replay failed; 1 refused, or --wait saw it end otherwise or not end in time;
    2 wrong usage; 69 no store.
    """
    from taskmaster.engine import operations as engine

    order = _order(action, everything, dry_run, user(by), given)
    if action == "discard" and not (yes or dry_run):
        raise click.UsageError("dead letters that are discarded are gone for good; look with --dry-run, then say --yes")
    settings = settings_from(given)
    planned = _plan(order, settings)
    store = connect(settings)
    try:
        if dry_run:
            _preview(store, settings, planned, as_json=as_json)
            return
        operation_id, is_known = store.converse(engine.open_order(planned, key, settings.partitions, now_ms=store.now_ms()))
        code = conclude(store, settings, operation_id, wait_s, is_known=is_known, as_json=as_json)
    finally:
        store.close()
    sys.exit(code)


def conclude(store: SyncStore, settings: Settings, operation_id: str, wait_s: float | None, *, is_known: bool, as_json: bool) -> int:
    """Show an operation that was just started, or follow it so long; the exit code."""
    if wait_s is None:
        _show(_look(store, settings, operation_id), as_json=as_json)
        if is_known:
            click.echo("(started before)", err=True)
        return EX_OK
    shown = _follow(store, settings, operation_id, wait_s)
    _show(shown, as_json=as_json)
    is_well = shown.state == "completed" and not shown.progress.pending and not shown.progress.failed
    return EX_OK if is_well else EX_FAILED


def _order(action: str, everything: bool, dry_run: bool, by: str, given: dict[str, Any]) -> Any:
    from taskmaster.engine.orders import Order, OrderFilter

    wanted, ids = filter_from(given, state=given.pop("state")), list(given.pop("ids"))
    is_given = wanted != OrderFilter()
    if is_given and ids:
        raise click.UsageError("give a filter or --id, not both")
    if not is_given and not ids and not everything:
        raise click.UsageError("say which: a filter, --id, or --all")
    return Order(
        action,
        filter=None if ids else wanted,
        ids=ids or None,
        dry_run=dry_run,
        rate_per_s=given.pop("rate"),
        stop_on_failures=given.pop("stop_on_failures"),
        accept_unknown=given.pop("accept_unknown"),
        reason=given.pop("reason"),
        by=by,
    )


def _plan(order: Any, settings: Settings) -> Plan:
    from taskmaster.engine.orders import plan
    from taskmaster.errors import InvalidRequest

    try:
        return plan(order, settings.partitions)
    except InvalidRequest as error:
        raise click.UsageError(error.message) from error


def _preview(store: SyncStore, settings: Settings, planned: Plan, *, as_json: bool) -> None:
    from taskmaster.api.dlq_views import preview_of
    from taskmaster.engine import operations as engine

    now_ms = store.now_ms()
    shown = preview_of(planned, [store.converse(engine.count(planned, p, upto_ms=now_ms)) for p in range(settings.partitions)])
    if as_json:
        echo_json(shown)
        return
    click.echo(f"{shown.action}: {'' if shown.matched_is == 'exact' else 'at least '}{shown.matched}")
    for job_id in shown.sample_ids:
        click.echo(f"  {job_id}")


def _look(store: SyncStore, settings: Settings, operation_id: str) -> Operation:
    from taskmaster.api.dlq_views import operation_of
    from taskmaster.engine import operations as engine

    return operation_of(store.converse(engine.of_id(operation_id, settings.partitions)))


def _follow(store: SyncStore, settings: Settings, operation_id: str, wait_s: float) -> Operation:
    """Until it has ended and none of its jobs is open, or the time is over; progress goes to standard error."""
    deadline, told = time.monotonic() + wait_s, ""
    while True:
        shown = _look(store, settings, operation_id)
        line = _line(shown)
        if line != told:
            click.echo(line, err=True)
            told = line
        if (shown.state != "running" and not shown.progress.pending) or time.monotonic() >= deadline:
            return shown
        time.sleep(_LOOK_EVERY_S)


def _line(one: Operation) -> str:
    p = one.progress
    of = f"{'' if p.total_is == 'exact' else '≥ '}{p.total}"
    acted = {
        "replay": f"{p.replayed} replayed",
        "discard": f"{p.discarded} discarded",
        "cancel": f"{p.cancelled} cancelled",
        "backfill": f"{p.made} made",
    }
    parts = [f"{one.action} {one.state}{f' ({one.why})' if one.why else ''}: {p.done} of {of}", acted.get(one.action, "")]
    skipped = sum(p.skipped.values())
    named = {
        "had a job": p.duplicates if one.action == "backfill" else 0,
        "skipped": skipped,
        "gone": p.gone,
        "succeeded": p.succeeded,
        "failed": p.failed,
        "pending": p.pending,
    }
    return ", ".join(part for part in [*parts, *(f"{n} {name}" for name, n in named.items() if n)] if part)


def _show(one: Operation, *, as_json: bool) -> None:
    if as_json:
        echo_json(one)
        return
    click.echo(f"{one.operation_id}  {_line(one)}")
