"""`taskmaster job`: what became of a job."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import rich_click as click

from taskmaster.cli.exits import EX_FAILED, EX_OK
from taskmaster.cli.options import STORE, as_json, echo_json, settings_from, settings_options
from taskmaster.cli.store import connect
from taskmaster.errors import NotEnded, NotFound

if TYPE_CHECKING:  # the command line starts without the engine
    from taskmaster.client import Client
    from taskmaster.model.job import JobRecord
    from taskmaster.settings import Settings
    from taskmaster.store.client import SyncStore

__all__ = ["follow", "job", "show", "show_why"]


@click.command()
@click.argument("job_id", metavar="ID")
@click.option("--wait", "wait_s", type=click.FloatRange(min=0), default=0.0, metavar="SECONDS", help="Wait that long for the job to end.")
@click.option("--why", "is_why", is_flag=True, help="Say what keeps it from running, the first reason first.")
@as_json
@settings_options(*STORE)
def job(job_id: str, wait_s: float, is_why: bool, as_json: bool, **texts: str | None) -> None:
    """Show the job with this ID; --json prints what GET /jobs/ID answers, with --why what GET /jobs/ID/why answers.

    Exit codes: 0 found, 1 there is no such job, or it was waited for and did not complete, 69 no store.
    """
    settings = settings_from(texts)
    from taskmaster.client import Client

    if is_why:
        store = connect(settings)
        try:
            show_why(store, settings, job_id, as_json=as_json)
        finally:
            store.close()
        return
    with Client(settings, origin="cli") as client:
        record = follow(client, job_id, wait_s)
    show(record, as_json=as_json)
    sys.exit(EX_FAILED if wait_s and record.state != "completed" else EX_OK)


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


def show(record: JobRecord, *, as_json: bool) -> None:
    """Print the job."""
    from taskmaster.api import views

    full = views.job_of(record, basic=False)
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
        "created": full.created_at,
        "next run": full.next_run_at,
        "finished": full.finished_at,
        "error": full.failed_reason,
        "result": record.result.decode(errors="replace"),
        "replay of": full.replayed_from_job_id,
    }
    for name, text in lines.items():
        if text:
            click.echo(f"{name:<10} {text}")
