"""`taskmaster schedules`: what runs by the clock."""

from __future__ import annotations

import contextlib
import datetime as dt
import getpass
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import rich_click as click

from taskmaster.cli.options import STORE, as_json, echo_json, settings_from, settings_options
from taskmaster.cli.store import connect, lens_of
from taskmaster.errors import InvalidRequest

if TYPE_CHECKING:  # the command line starts without the engine
    from taskmaster.engine.scheduled_jobs import Jobs, Who
    from taskmaster.settings import Settings
    from taskmaster.store.call import Talk
    from taskmaster.store.client import SyncStore
    from taskmaster.store.schedules import ScheduleRow

__all__ = ["schedules"]

_PAGE = 200


@click.group()
def schedules() -> None:
    """What runs by the clock: list, make, pause, trigger and look ahead.

    Exit codes: 0 done, 1 refused, or there is no such schedule, 2 wrong usage, 69 no store.
    """


@schedules.command("list")
@as_json
@settings_options(*STORE)
def list_(as_json: bool, **texts: str | None) -> None:
    """List all schedules by id."""
    from taskmaster.engine.schedules import paged

    with _at(texts) as desk:
        rows: list[ScheduleRow] = []
        while page := desk.run(paged(desk.settings.partitions, after=rows[-1].id if rows else "", limit=_PAGE)):
            rows += page
        shown = [desk.view(row) for row in rows]
    if as_json:
        echo_json(shown)
        return
    for one in shown:
        state = "paused" if not one.enabled else one.next_run_at or "over"
        click.echo(f"{one.schedule_id:<24} {state:<24} {one.type:<20} {one.explained}")
    if not shown:
        click.echo("no schedules", err=True)


@schedules.command()
@click.argument("schedule_id", metavar="ID")
@as_json
@settings_options(*STORE)
def show(schedule_id: str, as_json: bool, **texts: str | None) -> None:
    """Show the schedule ID; --json prints what GET /schedules/ID answers."""
    with _at(texts) as desk:
        desk.show(desk.row(schedule_id), as_json=as_json)


@schedules.command()
@click.argument("schedule_id", metavar="ID")
@click.argument("body", metavar="[BODY]", default="{}")
@click.option("--type", "job_type", metavar="TYPE", help="Job type.")
@click.option("--cron", metavar="TEXT", help="When: minute hour day month weekday, or seconds before these.")
@click.option("--every-ms", type=int, metavar="MS", help="When: each so many milliseconds.")
@click.option("--run-at", metavar="INSTANT", help="When: once, such as 2027-01-31T09:00:00Z.")
@click.option("--timezone", metavar="ZONE", help="IANA name, such as America/New_York (default: UTC).")
@click.option("--payload", metavar="JSON", help="Of each job; {{localDate}} and its like stand for the instant.")
@as_json
@settings_options(*STORE, "idempotency", "max_body_bytes")
def put(schedule_id: str, body: str, as_json: bool, **given: Any) -> None:
    """Make or replace the schedule ID: from options, and the JSON object BODY that PUT /schedules/ID takes; `-` reads standard input."""
    from taskmaster.engine import schedules as engine

    options = {"type": given.pop("job_type")} | {name: given.pop(name) for name in ("cron", "every_ms", "run_at", "timezone", "payload")}
    raw = _json(sys.stdin.read() if body == "-" else body, "BODY")
    if options["payload"] is not None:
        options["payload"] = _json(options["payload"], "--payload")
    names = {"every_ms": "everyMs", "run_at": "runAt"}
    wanted = raw | {names.get(name, name): value for name, value in options.items() if value is not None}
    try:
        made = msgspec.convert(wanted, engine.Body)
    except msgspec.ValidationError as error:
        raise click.UsageError(str(error)) from error
    with _at(given) as desk:
        talk = engine.put(schedule_id, made.definition, desk.jobs(made.type), _who(), enabled=made.enabled)
        row, _ = desk.run(talk)
        desk.show(row, as_json=as_json)


@schedules.command()
@click.argument("schedule_id", metavar="ID")
@settings_options(*STORE)
def delete(schedule_id: str, **texts: str | None) -> None:
    """Remove the schedule ID; its jobs stay. Nothing is fired for it afterwards."""
    from taskmaster.engine import schedules as engine

    with _at(texts) as desk:
        desk.run(engine.delete(schedule_id, desk.settings.partitions, _who()))
    click.echo(f"removed: {schedule_id}")


@schedules.command()
@click.argument("schedule_id", metavar="ID")
@click.option("--reason", default="", help="Kept in the audit.")
@settings_options(*STORE)
def pause(schedule_id: str, reason: str, **texts: str | None) -> None:
    """Fire nothing more for ID until it is resumed; deploys do not change that."""
    _switch(schedule_id, reason, texts, enabled=False)


@schedules.command()
@click.argument("schedule_id", metavar="ID")
@click.option("--reason", default="", help="Kept in the audit.")
@settings_options(*STORE)
def resume(schedule_id: str, reason: str, **texts: str | None) -> None:
    """Go on with ID, from the first instant that is still to come."""
    _switch(schedule_id, reason, texts, enabled=True)


@schedules.command()
@click.argument("schedule_id", metavar="ID")
@click.option("--key", default="", help="Equal keys make one job, however often the command is repeated.")
@settings_options(*STORE, "idempotency", "max_body_bytes", "idempotency_window_ms")
def trigger(schedule_id: str, key: str, **texts: str | None) -> None:
    """Make a job of ID now, besides its own; prints the job's id."""
    from taskmaster.engine import scheduled_jobs

    with _at(texts) as desk:
        row = desk.row(schedule_id)
        jobs, window_ms = desk.jobs(scheduled_jobs.spec_of(row).type), desk.settings.idempotency_window_ms
        talk = scheduled_jobs.trigger(row, jobs, _who(), desk.store.now_ms(), request_id=key, key_window_ms=window_ms)
        click.echo(desk.run(talk))


@schedules.command()
@click.argument("schedule_id", metavar="ID")
@click.option("--from", "first", required=True, metavar="INSTANT", help="Begin of the range, such as 2026-06-01T00:00:00Z; included.")
@click.option("--to", "last", required=True, metavar="INSTANT", help="Its end, included; not later than now.")
@click.option("--rate", type=click.FloatRange(min=0, max=1_000, min_open=True), default=50, show_default=True, help="Jobs a second.")
@click.option("--stop-on-failures", type=click.IntRange(1, 1_000), help="Stop when so many of its jobs have failed an attempt.")
@click.option("--key", default="", help="Equal keys are one operation, however often the command is repeated.")
@click.option("--reason", default="", help="Kept with the operation and in the audit.")
@click.option("--dry-run", is_flag=True, help="Only say how many instants are meant.")
@click.option("--wait", "wait_s", type=click.FloatRange(min=0), metavar="SECONDS", help="Show its progress until its jobs have ended.")
@as_json
@settings_options(*STORE)
def backfill(schedule_id: str, first: str, last: str, key: str, dry_run: bool, wait_s: float | None, as_json: bool, **given: Any) -> None:
    """Make the jobs of ID for the instants of a range that is over, 1,000 at most: an operation, which the workers carry out.

    An instant that has a job gets no other, so ranges may overlap.

    Exit codes: 0 started; with --wait also completed, and no job failed; 1 refused, or --wait saw it end otherwise or not end in time;
    2 wrong usage; 69 no store.
    """
    from taskmaster.api import schedule_views
    from taskmaster.cli.operations import conclude
    from taskmaster.engine import backfills

    order = backfills.BackfillOrder(
        from_=_moment(first, "--from"),
        to=_moment(last, "--to"),
        rate_per_s=given.pop("rate"),
        stop_on_failures=given.pop("stop_on_failures"),
        reason=given.pop("reason"),
        by=_who().name,
    )
    with _at(given) as desk:
        row = desk.row(schedule_id)
        instants = backfills.instants_of(row, order, desk.store.now_ms())
        if dry_run:
            shown = schedule_views.backfill_preview_of(instants)
            if as_json:
                echo_json(shown)
            else:
                click.echo("\n  ".join([f"backfill: {shown.matched}", *shown.sample_ids]))
            return
        operation_id, is_known = desk.run(backfills.open_backfill(row, order, instants, key, desk.settings.partitions))
        code = conclude(desk.store, desk.settings, operation_id, wait_s, is_known=is_known, as_json=as_json)
    sys.exit(code)


@schedules.command()
@click.argument("schedule_id", metavar="ID")
@click.option("--count", type=click.IntRange(1, 1_000), default=10, show_default=True, help="How many.")
@as_json
@settings_options(*STORE)
def preview(schedule_id: str, count: int, as_json: bool, **texts: str | None) -> None:
    """Show when ID runs next, in UTC and in its zone, with notes where clocks change."""
    from taskmaster.api import schedule_views
    from taskmaster.engine.scheduled_jobs import spec_of
    from taskmaster.model.schedule import next_instants

    with _at(texts) as desk:
        schedule = spec_of(desk.row(schedule_id))
        shown = schedule_views.preview_of(schedule, next_instants(schedule, desk.store.now_ms(), count))
    if as_json:
        echo_json(shown)
        return
    click.echo(shown.explained)
    for run in shown.runs:
        click.echo(f"{run.at}  {run.local}  {run.note or ''}".rstrip())


@schedules.command()
@click.argument("schedule_id", metavar="ID")
@click.option("--limit", type=click.IntRange(1, 200), default=20, show_default=True, help="How many.")
@as_json
@settings_options(*STORE)
def fires(schedule_id: str, limit: int, as_json: bool, **texts: str | None) -> None:
    """Show what became of the last instants of ID, the newest first."""
    from taskmaster.api import schedule_views
    from taskmaster.engine import schedules as engine

    with _at(texts) as desk:
        shown = [schedule_views.fire_of(fire) for fire in desk.run(engine.fires(schedule_id, desk.settings.partitions, limit=limit))]
    if as_json:
        echo_json(shown)
        return
    for one in shown:
        what = (
            f"{one.count} until {one.last_instant}"
            if one.last_instant
            else " ".join(filter(None, (one.job_id, one.job_state))) or one.why or ""
        )
        click.echo(f"{one.instant}  {one.outcome:<9}  {one.lag_ms} ms late  {what}".rstrip())


def _switch(schedule_id: str, reason: str, texts: dict[str, str | None], *, enabled: bool) -> None:
    from taskmaster.engine import schedules as engine

    with _at(texts) as desk:
        desk.run(engine.switch(schedule_id, desk.settings.partitions, _who(reason), enabled=enabled))
    click.echo(f"{'resumed' if enabled else 'paused'}: {schedule_id}")


def _who(reason: str = "") -> Who:
    from taskmaster.engine.scheduled_jobs import Who

    return Who(getpass.getuser(), reason)


def _moment(text: str, what: str) -> dt.datetime:
    try:
        moment: dt.datetime = msgspec.convert(text, Annotated[dt.datetime, msgspec.Meta(tz=True)])
    except msgspec.ValidationError as error:
        raise click.BadParameter("an instant with its offset is meant, such as 2027-01-31T09:00:00Z", param_hint=what) from error
    return moment


def _json(text: str, what: str) -> dict[str, Any]:
    try:
        return msgspec.json.decode(text, type=dict[str, Any])
    except (msgspec.MsgspecError, UnicodeError) as error:
        raise click.BadParameter(f"a JSON object is meant: {error}", param_hint=what) from error


class _Desk:
    """The store, and what the commands do with it."""

    def __init__(self, store: SyncStore, settings: Settings) -> None:
        self.store = store
        self.settings = settings

    def run(self, talk: Talk[Any]) -> Any:

        try:
            return self.store.converse(talk)
        except InvalidRequest as error:
            details = "".join(f"\n  {item['pointer'] or '/'}: {item['message']}" for item in error.facts.get("errors", ()))
            raise type(error)(error.message + details, **error.facts) from error

    def row(self, schedule_id: str) -> ScheduleRow:
        from taskmaster.engine.schedules import show

        found: ScheduleRow = self.run(show(schedule_id, self.settings.partitions))
        return found

    def jobs(self, job_type: str) -> Jobs:
        from taskmaster.engine.scheduled_types import Types

        return Types(self.store, self.settings).of(job_type)

    def view(self, row: ScheduleRow) -> Any:
        from taskmaster.api import schedule_views

        return schedule_views.schedule_of(row, self.store.now_ms(), lens_of(self.store, self.settings))

    def show(self, row: ScheduleRow, *, as_json: bool) -> None:
        one = self.view(row)
        if as_json:
            echo_json(one)
            return
        lines = {
            "schedule": f"{one.schedule_id}, version {one.version}",
            "type": one.type,
            "when": one.explained,
            "next": "paused by " + one.paused.by if one.paused else one.next_run_at or "over",
            "then": ", ".join(one.next_runs[1:]),
            "last": f"{one.last_fire.instant} {one.last_fire.outcome} {one.last_fire.job_id or ''}" if one.last_fire else "",
            "missed": f"last noticed at {one.last_missed_at}" if one.last_missed_at else "",
            "counts": ", ".join(f"{number} {name}" for name, number in one.counts.items()),
            "plugin": f"{one.declared_by.plugin}, version {one.declared_by.version}" if one.declared_by else "",
        }
        for name, text in lines.items():
            if text:
                click.echo(f"{name:<9} {text.rstrip()}")


@contextlib.contextmanager
def _at(texts: dict[str, str | None]) -> Iterator[_Desk]:
    settings = settings_from(texts)
    store = connect(settings)
    try:
        yield _Desk(store, settings)
    finally:
        store.close()
