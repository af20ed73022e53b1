"""`taskmaster submit`: a job from the command line."""

from __future__ import annotations

import sys
from typing import Any

import rich_click as click

from taskmaster.cli.exits import EX_FAILED, EX_OK
from taskmaster.cli.job import follow, show
from taskmaster.cli.options import STORE, as_json, echo_json, settings_from, settings_options
from taskmaster.errors import InvalidRequest, KeyMissing, MalformedBody, TaskMasterError

__all__ = ["submit"]


@click.command()
@click.argument("job_type", metavar="TYPE")
@click.argument("payload", default="{}")
@click.option("--key", help="Idempotency key: equal keys of one type name one job, however often it is submitted.")
@click.option("--queue", help="Queue, if not the type's own.")
@click.option("--priority", type=click.Choice(["critical", "high", "normal", "low"]), help="Which waiting jobs it goes before.")
@click.option("--delay-ms", type=int, metavar="MS", help="Not before that many milliseconds from now.")
@click.option("--run-at", metavar="INSTANT", help="Not before this instant, such as 2027-01-31T09:00:00Z.")
@click.option("--attempts", type=int, metavar="N", help="Executions at most.")
@click.option("--timeout-ms", type=int, metavar="MS", help="How long one attempt may take.")
@click.option("--wait", "wait_s", type=click.FloatRange(min=0), default=0.0, metavar="SECONDS", help="Wait that long for the job to end.")
@as_json
@settings_options(*STORE, "idempotency", "max_body_bytes")
def submit(job_type: str, payload: str, wait_s: float, as_json: bool, **given: Any) -> None:
    """Submit a job of TYPE with the JSON object PAYLOAD; `-` reads it from standard input.

    The same checks as over HTTP. Exit codes: 0 accepted, 1 refused, or waited for and not completed, 2 wrong usage, 69 no store.
    """
    options = {name: given.pop(name) for name in ("queue", "priority", "delay_ms", "run_at", "attempts", "timeout_ms")}
    key = given.pop("key")
    settings = settings_from(given)
    from taskmaster.client import Client, Submission
    from taskmaster.engine import strict

    raw = sys.stdin.buffer.read() if payload == "-" else payload.encode("utf-8", "surrogateescape")
    try:
        body: Any = strict.decode(raw)
    except MalformedBody as error:
        raise click.BadParameter(error.message, param_hint="PAYLOAD") from error
    wanted = {"type": job_type, "idempotencyKey": key, "payload": body} | {
        _camel(name): value for name, value in options.items() if value is not None
    }
    try:
        submission = strict.convert(wanted, Submission)
    except InvalidRequest as error:
        raise click.UsageError(error.message) from error
    with Client(settings, origin="cli") as client:
        [told] = client.submit_many([submission])
        if isinstance(told, KeyMissing):
            raise click.UsageError(f"{job_type} needs an idempotency key: --key NAME, the same one if you repeat the command") from told
        if isinstance(told, TaskMasterError):
            details = "".join(f"\n  {item['pointer']}: {item['message']}" for item in told.facts.get("errors", ()))
            raise type(told)(told.message + details, **told.facts) from told
        if wait_s:
            record = follow(client, told.id, wait_s)
            show(record, as_json=as_json)
            sys.exit(EX_OK if record.state == "completed" else EX_FAILED)
    if as_json:
        echo_json({"status": "accepted", "jobId": told.id, "type": job_type, "duplicate": told.duplicate})
    else:
        click.echo(f"{told.id}{'  (submitted before)' if told.duplicate else ''}")


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(part.title() for part in rest)
