"""`taskmaster dlq`: dead letters, by themselves and in groups; replay one, discard some."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import rich_click as click

from taskmaster.cli.filters import actor_options, filter_from, filter_options, user
from taskmaster.cli.options import STORE, as_json, echo_json, settings_from, settings_options
from taskmaster.cli.store import connect, lens_of
from taskmaster.errors import NotFound

if TYPE_CHECKING:
    from taskmaster.engine.queries import Consumer
    from taskmaster.model.job import DeadLetter
    from taskmaster.settings import Settings
    from taskmaster.store.client import SyncStore

__all__ = ["dlq"]

limit_option = click.option("--limit", type=click.IntRange(1, 10_000), default=50, show_default=True, help="So many at most.")


@click.group()
def dlq() -> None:
    """Dead letters: list, group, show, replay and discard them. Many at once: `taskmaster operations start`."""


@dlq.command("list")
@filter_options
@limit_option
@as_json
@settings_options(*STORE)
def list_(limit: int, as_json: bool, **given: Any) -> None:
    """List dead letters, newest first; all filters that are given must hold.

    Exit codes: 0 listed, 2 wrong usage, 69 no store.
    """
    from taskmaster.api import views
    from taskmaster.engine import queries
    from taskmaster.engine.orders import letters_of
    from taskmaster.store import reads

    wanted = letters_of(filter_from(given))
    settings = settings_from(given)
    store = connect(settings)
    shown: list[Any] = []
    try:
        lens = lens_of(store, settings)
        place: tuple[str, str] | None = ("", "")
        while place is not None and len(shown) < limit:
            rows = min(200, limit - len(shown))
            pages = [store.run(reads.find(p, "dead", letters=wanted, after=place, limit=rows)) for p in range(settings.partitions)]
            found, place = queries.merge_pages(pages, rows)
            shown += [views.dead_of(*queries.dead_letter(row.fields), lens) for row in found]
    finally:
        store.close()
    if as_json:
        echo_json(shown)
        return
    for one in shown:
        click.echo(f"{one.entry_id}  {one.failed_at}  {one.type}  {one.queue}  {one.reason}  {one.failure_reason[:100]}")
    if not shown:
        click.echo("no dead letters", err=True)


@dlq.command()
@limit_option
@as_json
@settings_options(*STORE)
def groups(limit: int, as_json: bool, **given: str | None) -> None:
    """List dead letters by cause, the latest failure first.

    Exit codes: 0 listed, 69 no store.
    """
    from taskmaster.api import dlq_views
    from taskmaster.engine import groups as engine

    settings = settings_from(given)
    store = connect(settings)
    shown: list[Any] = []
    try:
        place: tuple[str, str] | None = ("", "")
        while place is not None and len(shown) < limit:
            views, place = store.converse(engine.newest(settings.partitions, after=place, limit=min(200, limit - len(shown))))
            shown += [dlq_views.group_of(view) for view in views]
    finally:
        store.close()
    if as_json:
        echo_json(shown)
        return
    for one in shown:
        said = f"{one.error.class_}: {one.error.message[:100]}" if one.error else one.reason
        click.echo(f"{one.fingerprint}  {one.count:>7}  last {one.last_seen_at}  {', '.join(one.types)}  {said}")
    if not shown:
        click.echo("no dead letters", err=True)


def _letter(store: SyncStore, settings: Settings, entry_id: str) -> tuple[DeadLetter, Consumer]:
    from taskmaster.engine import queries
    from taskmaster.model.ids import is_job_id, partition_of
    from taskmaster.store import reads

    fields = store.run(reads.dead(partition_of(entry_id, settings.partitions), entry_id)) if is_job_id(entry_id) else None
    if fields is None:
        raise NotFound(f"there is no dead letter {entry_id!r}", entryId=entry_id)
    return queries.dead_letter(fields)


@dlq.command()
@click.argument("entry_id", metavar="ENTRY")
@click.option("--reveal", is_flag=True, help="Show also what is marked secret or pii in its payload; kept in the audit.")
@settings_options(*STORE)
def show(entry_id: str, reveal: bool, **given: str | None) -> None:
    """Show the dead letter ENTRY, as `GET /dlq/ENTRY` does: JSON.

    Exit codes: 0 shown, 1 there is no such entry, 69 no store.
    """
    from taskmaster.api import views

    settings = settings_from(given)
    store = connect(settings)
    try:
        echo_json(views.dead_of(*_letter(store, settings, entry_id), lens_of(store, settings, entry_id if reveal else "")))
    finally:
        store.close()


@dlq.command()
@click.argument("entry_id", metavar="ENTRY")
@click.option("--accept-unknown", is_flag=True, help="Also while nobody knows whether an effect of the job happened.")
@click.option("--request-id", default="", help="Equal ones make one replay, however often the command is repeated.")
@actor_options
@settings_options(*STORE)
def replay(entry_id: str, accept_unknown: bool, request_id: str, reason: str, by: str | None, **given: str | None) -> None:
    """Run the dead letter ENTRY again, as a new job, whose id is printed. The entry stays as it is.

    Exit codes: 0 replayed, 1 there is no such entry, or an effect of it is unknown, 69 no store.
    """
    from taskmaster.engine import dlq as engine
    from taskmaster.engine.enqueue import store_jobs
    from taskmaster.engine.queries import job_of
    from taskmaster.engine.receipts import receipt
    from taskmaster.model.ids import partition_of
    from taskmaster.store import reads

    settings = settings_from(given)
    store = connect(settings)
    try:
        letter, _ = _letter(store, settings, entry_id)
        shown = store.run(reads.show(partition_of(entry_id, settings.partitions), entry_id, ""))
        who = f"{user(by)}: {reason}" if reason else user(by)
        wanted = engine.Request(request_id, who, "", accept_unknown)
        record = job_of(entry_id, shown) if shown is not None else None
        partition, job = engine.replay_of_dead(letter, record, wanted, partitions=settings.partitions, now_ms=store.now_ms())
        (stored,) = store_jobs(store, partition, [job])
    finally:
        store.close()
    told = receipt(*stored)
    click.echo(f"{told.id}{'  (replayed before)' if told.duplicate else ''}")


@dlq.command()
@click.argument("entry_ids", metavar="ENTRY...", nargs=-1, required=True)
@click.option("--yes", is_flag=True, help="Required: records that are discarded are gone.")
@actor_options
@settings_options(*STORE)
def discard(entry_ids: tuple[str, ...], yes: bool, reason: str, by: str | None, **given: str | None) -> None:
    """Remove the dead letters ENTRY… for good, and what retention has left of their jobs. Kept in the audit.

    Exit codes: 0 all are gone, 1 there was no such entry, 2 without --yes or --reason, 69 no store.
    """
    from taskmaster.model.ids import is_job_id, partition_of
    from taskmaster.store import letters
    from taskmaster.store.status import Status

    if not reason.strip():
        raise click.UsageError("say why with --reason")
    if not yes:
        raise click.UsageError(f"{len(entry_ids)} dead letters would be gone for good; say --yes")
    unknown = [entry_id for entry_id in entry_ids if not is_job_id(entry_id)]
    settings = settings_from(given)
    store = connect(settings)
    try:
        for entry_id in dict.fromkeys(entry_ids):
            if entry_id not in unknown:
                call = letters.discard(partition_of(entry_id, settings.partitions), [entry_id], who=user(by), reason=reason)
                if store.run(call) == (Status.GONE,):
                    unknown.append(entry_id)
    finally:
        store.close()
    click.echo(f"discarded: {len(set(entry_ids) - set(unknown))}")
    if unknown:
        raise NotFound(f"there is no dead letter {', '.join(unknown)}", entryId=unknown[0])
