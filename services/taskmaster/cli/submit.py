"""`taskmaster submit`: a job from the command line."""

from __future__ import annotations

import sys
from typing import Any

import msgspec
import rich_click as click

from taskmaster.cli.exits import EX_FAILED, EX_OK
from taskmaster.cli.job import follow, show
from taskmaster.cli.options import STORE, as_json, echo_json, settings_from, settings_options
from taskmaster.cli.store import connect
from taskmaster.errors import InvalidRequest, KeyMissing

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
    from taskmaster.engine.submit import Submission, submit_many
    from taskmaster.plugins import catalogue
    from taskmaster.store import reads

    raw = sys.stdin.read() if payload == "-" else payload
    try:
        body: Any = msgspec.json.decode(raw)
    except msgspec.DecodeError as error:
        raise click.BadParameter(f"not JSON: {error}", param_hint="PAYLOAD") from error
    wanted = {"type": job_type, "idempotencyKey": key, "payload": body} | {
        _camel(name): value for name, value in options.items() if value is not None
    }
    try:
        submission = msgspec.convert(wanted, Submission)
    except msgspec.ValidationError as error:
        raise click.UsageError(str(error)) from error
    store = connect(settings)
    try:
        known = {name: catalogue.decode(text) for name, text in store.run(reads.catalogue(0)).items()}
        try:
            [receipt] = submit_many(store, known, [submission], settings=settings, origin="cli")
        except KeyMissing as error:
            raise click.UsageError(f"{job_type} needs an idempotency key: --key NAME, the same one if you repeat the command") from error
        except InvalidRequest as error:
            details = "".join(f"\n  {item['pointer']}: {item['message']}" for item in error.facts.get("errors", ()))
            raise type(error)(error.message + details, **error.facts) from error
        if wait_s:
            record = follow(store, settings, receipt.job_id, wait_s)
            show(record, as_json=as_json)
            sys.exit(EX_OK if record.state == "completed" else EX_FAILED)
    finally:
        store.close()
    if as_json:
        echo_json({"status": receipt.status, "jobId": receipt.job_id, "type": job_type, "duplicate": receipt.is_duplicate})
    else:
        click.echo(f"{receipt.job_id}{'  (submitted before)' if receipt.is_duplicate else ''}")


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(part.title() for part in rest)
