"""`taskmaster job`: what became of a job."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import rich_click as click

from taskmaster.cli.exits import EX_FAILED, EX_OK
from taskmaster.cli.options import STORE, as_json, echo_json, settings_from, settings_options
from taskmaster.errors import NotEnded

if TYPE_CHECKING:  # the command line starts without the engine
    from taskmaster.client import Client
    from taskmaster.model.job import JobRecord

__all__ = ["follow", "job", "show"]


@click.command()
@click.argument("job_id", metavar="ID")
@click.option("--wait", "wait_s", type=click.FloatRange(min=0), default=0.0, metavar="SECONDS", help="Wait that long for the job to end.")
@as_json
@settings_options(*STORE)
def job(job_id: str, wait_s: float, as_json: bool, **texts: str | None) -> None:
    """Show the job with this ID; --json prints what GET /jobs/ID answers.

    Exit codes: 0 found, 1 there is no such job, or it was waited for and did not complete, 69 no store.
    """
    settings = settings_from(texts)
    from taskmaster.client import Client

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
