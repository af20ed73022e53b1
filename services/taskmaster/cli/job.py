"""`taskmaster job`: what became of a job."""

from __future__ import annotations

import datetime as dt
import sys
from typing import TYPE_CHECKING, Any

import rich_click as click

from taskmaster.cli.exits import EX_FAILED, EX_OK
from taskmaster.cli.options import STORE, as_json, echo_json, settings_from, settings_options
from taskmaster.cli.store import connect, lens_of
from taskmaster.errors import MalformedBody, NotEnded, NotFound
from taskmaster.model.states import PRIORITIES

if TYPE_CHECKING:  # the command line starts without the engine
    from taskmaster.client import Client
    from taskmaster.model.job import JobRecord, LogLine
    from taskmaster.settings import Settings
    from taskmaster.store.client import SyncStore

__all__ = ["follow", "job", "json_of", "show", "show_events", "show_line", "show_timeline", "show_why"]

_CHANGES = ("priority", "delay_ms", "run_at", "tags", "payload", "revision")


@click.command()
@click.argument("job_id", metavar="ID")
@click.option("--priority", type=click.Choice(PRIORITIES), help="Change which waiting jobs it goes before.")
@click.option("--delay-ms", type=int, metavar="MS", help="Change when it is due: so many milliseconds from now.")
@click.option("--run-at", metavar="INSTANT", help="Change when it is due: at this instant.")
@click.option("--run-now", is_flag=True, help="Make a delayed job due now, also one that waits for its next attempt.")
@click.option("--tag", "tags", multiple=True, metavar="TAG", help="Change its tags to these.")
@click.option("--payload", metavar="JSON", help="Change its payload to this; `-` reads it from standard input.")
@click.option("--revision", type=int, metavar="N", help="Change it only if it still has this revision, as --json shows it.")
@click.option("--wait", "wait_s", type=click.FloatRange(min=0), default=0.0, metavar="SECONDS", help="Wait that long for the job to end.")
@click.option("--why", "is_why", is_flag=True, help="Say what keeps it from running, the first reason first.")
@click.option("--events", "is_timeline", is_flag=True, help="Print what happened to it, when, by whom and where, also when it is gone.")
@click.option("--follow", "is_followed", is_flag=True, help="Print what is new of it, state, progress and log, until it has ended.")
@click.option("--logs", "is_logs", is_flag=True, help="Print what its handler has logged.")
@click.option("--reveal", is_flag=True, help="Show also what is marked secret or pii in its payload; kept in the audit.")
@as_json
@settings_options(*STORE)
def job(
    job_id: str,
    wait_s: float,
    is_why: bool,
    is_timeline: bool,
    is_logs: bool,
    is_followed: bool,
    reveal: bool,
    as_json: bool,
    **given: Any,
) -> None:
    """Show the job with this ID, after changing what is asked for; --json prints what GET /jobs/ID (with --why:
    GET /jobs/ID/why, with --events: GET /jobs/ID/events, with --logs the items of GET /jobs/ID/logs, one a line) answers.

    Only a job that has not begun can be changed. Exit codes: 0 found, 1 there is no such job, it cannot be changed so, or it was waited
    for or followed and did not complete, 2 wrong usage, 69 no store.
    """
    changes = _changes(given)
    settings = settings_from(given)
    from taskmaster.client import Client

    if is_why or is_timeline:
        store = connect(settings)
        try:
            (show_why if is_why else show_timeline)(store, settings, job_id, as_json=as_json)
        finally:
            store.close()
        return
    with Client(settings, origin="cli") as client:
        if changes:
            client.change(job_id, **changes)
        if is_followed:
            sys.exit(show_events(client, job_id, as_json=as_json))
        record = follow(client, job_id, wait_s)
        if is_logs:
            for line in client.logs(job_id):
                show_line(line, as_json=as_json)
    if not is_logs:
        show(record, settings, as_json=as_json, reveal=reveal)
    sys.exit(EX_FAILED if wait_s and record.state != "completed" else EX_OK)


def _changes(given: dict[str, Any]) -> dict[str, Any]:
    """What is to be changed, taken out of *given*, as `Client.change` has it."""
    changes = {name: value for name in _CHANGES if (value := given.pop(name)) not in (None, ())}
    if given.pop("run_now"):
        if "delay_ms" in changes or "run_at" in changes:
            raise click.UsageError("give one of --run-now, --delay-ms and --run-at")
        changes["delay_ms"] = 0
    if "run_at" in changes:
        try:
            changes["run_at"] = dt.datetime.fromisoformat(changes["run_at"])
        except ValueError as error:
            raise click.BadParameter(f"{error}; an instant such as 2027-01-31T09:00:00Z is meant", param_hint="--run-at") from error
    if "payload" in changes:
        changes["payload"] = json_of(changes["payload"], "--payload")
    if set(changes) == {"revision"}:
        raise click.UsageError("--revision is a condition of a change, and none is asked for")
    return changes


def json_of(text: str, name: str) -> Any:
    """The JSON that an argument gives; `-`: standard input.

    Raises:
        click.BadParameter: it is none.
    """
    from taskmaster.engine import strict

    raw = sys.stdin.buffer.read() if text == "-" else text.encode("utf-8", "surrogateescape")
    try:
        return strict.decode(raw)
    except MalformedBody as error:
        raise click.BadParameter(error.message, param_hint=name) from error


def follow(client: Client, job_id: str, wait_s: float) -> JobRecord:
    """The job once it has ended, or as it is after *wait_s* seconds.

    Raises:
        NotFound: there is none, or no longer.
        StoreError: the store cannot be asked.
    """
    try:
        return client.wait(job_id, wait_s) if wait_s else client.get(job_id)
    except NotEnded:
        return client.get(job_id)


def show_why(store: SyncStore, settings: Settings, job_id: str, *, as_json: bool) -> None:
    """Print the reasons, a line each.

    Raises:
        NotFound: there is no such job, or no longer.
    """
    from taskmaster.api import views
    from taskmaster.engine.why import explain
    from taskmaster.model.ids import is_job_id, partition_of
    from taskmaster.store import reads

    found = store.run(reads.why(partition_of(job_id, settings.partitions), job_id)) if is_job_id(job_id) else None
    if found is None:
        raise NotFound(f"there is no job {job_id!r}", jobId=job_id)
    told = views.why_of(explain(job_id, found))
    if as_json:
        echo_json(told)
        return
    for reason in told.reasons:
        click.echo(f"{reason.code:<20} {reason.message}")
        facts = ", ".join(f"{name} {value}" for name, value in reason.facts.items() if value is not None)
        if facts:
            click.echo(f"{'':<20} {facts}")
    if told.estimated_start_at:
        click.echo(f"{'may begin':<20} {told.estimated_start_at}")


def show_timeline(store: SyncStore, settings: Settings, job_id: str, *, as_json: bool) -> None:
    """Print what happened to the job, a line each.

    Raises:
        NotFound: nothing is kept of it.
    """
    from taskmaster.api.history_views import timeline_of
    from taskmaster.engine.queries import id_of
    from taskmaster.engine.timeline import read_timeline
    from taskmaster.model.ids import partition_of

    known = id_of(job_id)
    timeline = store.converse(read_timeline(partition_of(known, settings.partitions), known, with_audit=True))
    told = timeline_of(timeline, is_audited=True)
    if as_json:
        echo_json(told)
        return
    for one in told.items:
        where = one.worker and " ".join(str(part) for part in (one.worker.host or one.worker.consumer, one.worker.pid) if part)
        facts = {
            "attempt": one.attempt,
            "by": None if one.who == "worker" else one.who,
            "on": where,
            "with": one.plugin and f"{one.plugin} {one.plugin_version}",
            "job": one.job_id,
        }
        words = [f"{name} {value}" for name, value in facts.items() if value]
        why = [": ".join(filter(None, (one.reason, one.error)))]
        click.echo(f"{one.at or '(not kept)':<24} {one.event:<16} {', '.join(filter(None, words + why))}".rstrip())
    if told.truncated:
        click.echo("(there was more than is kept or was looked at)", err=True)


def show_events(client: Client, job_id: str, *, as_json: bool) -> int:
    """Print what is new of a job, a line each, until it has ended; the exit code."""
    from taskmaster.api import shapes, views

    state = ""
    for event in client.stream(job_id):
        state = event.record.state
        if as_json:
            told = views.line_of(event.line) if event.line else views.status_of(event.record)
            click.echo(shapes.encode({"event": event.kind, "id": event.id, "data": told}))
        elif event.line is not None:
            show_line(event.line, as_json=False)
        else:
            status = views.status_of(event.record)
            share = "" if event.record.progress is None else f"{event.record.progress:.0%} {event.record.progress_note}"
            text = share if event.kind == "progress" else " ".join(filter(None, (state, status.reason, status.failed_reason)))
            click.echo(f"{event.kind:<8} {text}".rstrip())
    return EX_OK if state == "completed" else EX_FAILED


def show_line(kept: LogLine, *, as_json: bool) -> None:
    """Print one line of a job's log; what it has behind its first line end is set in, so that no line looks like another."""
    from taskmaster.api import shapes, views

    told = views.line_of(kept)
    if as_json:
        click.echo(shapes.encode(told))
        return
    text = told.text.replace("\n", "\n    ")
    click.echo(f"{told.at} {told.level:<7} [{told.attempt}] {text}")


def show(record: JobRecord, settings: Settings, *, as_json: bool, reveal: bool = False) -> None:
    """Print the job."""
    from taskmaster.api import views

    store = connect(settings)
    try:
        full = views.job_of(record, lens_of(store, settings, record.id if reveal else ""), basic=False)
    finally:
        store.close()
    if as_json:
        echo_json(full)
        return
    lines = {
        "job": full.job_id,
        "type": full.type,
        "state": f"{full.state} ({full.reason})" if full.reason else full.state,
        "queue": f"{full.queue}, {full.priority}",
        "attempts": f"{full.attempts_made} of {full.max_attempts}",
        "progress": "" if full.progress is None else f"{full.progress:.0%} {full.progress_note or ''}".strip(),
        "tags": ", ".join(full.tags),
        "limits": ", ".join(full.limits),
        "fairness": full.fairness_key,
        "created": full.created_at,
        "next run": full.next_run_at,
        "expires": full.expires_at if full.state in ("waiting", "delayed") else None,
        "finished": full.finished_at,
        "error": full.failed_reason,
        "result": record.result.decode(errors="replace"),
        "trace": full.trace_url or full.trace_id,
        "replay of": full.replayed_from_job_id,
    }
    for name, text in lines.items():
        if text:
            click.echo(f"{name:<10} {text}")
