"""`taskmaster submit`: a job from the command line."""

from __future__ import annotations

import sys
from typing import Any

import rich_click as click

from taskmaster.cli.exits import EX_FAILED, EX_OK
from taskmaster.cli.job import follow, json_of, show
from taskmaster.cli.options import STORE, as_json, echo_json, settings_from, settings_options
from taskmaster.errors import InvalidRequest, KeyMissing, TaskMasterError

__all__ = ["submit"]

_OPTIONS = (
    "queue",
    "priority",
    "delay_ms",
    "run_at",
    "attempts",
    "timeout_ms",
    "expires_at",
    "lifo",
    "fairness_key",
    "tags",
    "limits",
    "callback_url",
)
#: As engine.options has them, which takes long to import.
_ON_CONFLICT = ("reject", "return-existing", "replace", "debounce", "throttle")


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
@click.option("--expires-at", metavar="INSTANT", help="Not begun later than this instant.")
@click.option("--lifo", is_flag=True, default=None, help="Before what waits like it, the last one first.")
@click.option("--fairness-key", metavar="KEY", help="Jobs with equal keys take turns with those of other keys, inside a priority.")
@click.option("--tag", "tags", multiple=True, metavar="TAG", help="To find the job by; may be given 10 times.")
@click.option("--limit", "limits", multiple=True, metavar="NAME", help="A limiter that the job needs; may be given 4 times.")
@click.option("--callback-url", metavar="URL", help="Told of the job's end: a webhook.")
@click.option("--unique", metavar="KEY", help="Names the work: no other job of this type for the same work meanwhile.")
@click.option("--until", type=click.Choice(["started", "finished", "ttl"]), help="With --unique: how long the job has its work.")
@click.option("--ttl-ms", type=int, metavar="MS", help="With --until ttl, and --on-conflict throttle.")
@click.option("--on-conflict", type=click.Choice(_ON_CONFLICT), help="With --unique: what becomes of a second job.")
@click.option("--wait", "wait_s", type=click.FloatRange(min=0), default=0.0, metavar="SECONDS", help="Wait that long for the job to end.")
@as_json
@settings_options(*STORE, "idempotency", "max_body_bytes")
def submit(job_type: str, payload: str, wait_s: float, as_json: bool, **given: Any) -> None:
    """Submit a job of TYPE with the JSON object PAYLOAD; `-` reads it from standard input.

    The same checks as over HTTP. Exit codes: 0 accepted, 1 refused, or waited for and not completed, 2 wrong usage, 69 no store.
    """
    options = {name: given.pop(name) for name in _OPTIONS}
    key = given.pop("key")
    unique = {name: given.pop(name) for name in ("unique", "until", "ttl_ms", "on_conflict")}
    if unique["unique"] is not None:
        options["unique"] = {"key": unique.pop("unique")} | {_camel(name): value for name, value in unique.items() if value is not None}
    elif any(value is not None for value in unique.values()):
        raise click.UsageError("--until, --ttl-ms and --on-conflict say more of --unique, which is not given")
    settings = settings_from(given)
    from taskmaster.client import Client, Submission
    from taskmaster.engine import strict

    wanted = {"type": job_type, "idempotencyKey": key, "payload": json_of(payload, "PAYLOAD")} | {
        _camel(name): value for name, value in options.items() if value is not None and value != ()
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
            show(record, settings, as_json=as_json)
            sys.exit(EX_OK if record.state == "completed" else EX_FAILED)
    if as_json:
        echo_json({"status": "accepted", "jobId": told.id, "type": job_type, "duplicate": told.duplicate})
    else:
        click.echo(f"{told.id}{'  (submitted before)' if told.duplicate else ''}")


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(part.title() for part in rest)
