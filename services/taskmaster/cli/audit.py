"""`taskmaster audit`: what people did, and whether that is still what was written."""

from __future__ import annotations

import datetime as dt
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import rich_click as click

from taskmaster.cli.exits import EX_FAILED, EX_OK
from taskmaster.cli.options import STORE, as_json, echo_json, settings_from, settings_options
from taskmaster.cli.store import connect, lens_of

if TYPE_CHECKING:  # the command line starts without the engine
    from taskmaster.api.history_shapes import AuditVerdict
    from taskmaster.engine.auditing import Head

__all__ = ["audit"]

_HEAD = re.compile(r"(\d{1,4}):(\d{1,15}):([0-9a-f]{40})")
_INSTANT = "INSTANT"


@click.group()
def audit() -> None:
    """What people did to jobs, effects, schedules and rules: list it, and verify that nobody has changed it since."""


def _ms(ctx: click.Context, param: click.Parameter, text: str | None) -> int:  # noqa: ARG001 - click's
    """The instant that an option gives, in Unix ms; 0: it was not given."""
    if text is None:
        return 0
    try:
        moment = dt.datetime.fromisoformat(text)
    except ValueError as error:
        raise click.BadParameter(f"{error}; an instant such as 2027-01-31T09:00:00Z is meant") from error
    if moment.tzinfo is None:
        raise click.BadParameter("an instant with its offset from UTC is meant, such as 2027-01-31T09:00:00Z")
    return max(1, int(moment.timestamp() * 1_000))


@audit.command("list")
@click.option("--who", default="", help="By this person.")
@click.option("--action", default="", help="This, such as paused or dead_letter.discarded.")
@click.option("--target", default="", help="To this, or what is below it: a job and its effects, say.")
@click.option("--after", "since_ms", metavar=_INSTANT, callback=_ms, help="Then or later.")
@click.option("--before", "before_ms", metavar=_INSTANT, callback=_ms, help="Earlier.")
@click.option("--limit", type=click.IntRange(1, 10_000), default=50, show_default=True, help="So many at most.")
@as_json
@settings_options(*STORE)
def list_(who: str, action: str, target: str, since_ms: int, before_ms: int, limit: int, as_json: bool, **given: str | None) -> None:
    """List what people did, newest first.

    Exit codes: 0 listed, 2 wrong usage, 69 no store.
    """
    from taskmaster.api.history_shapes import AuditEntry
    from taskmaster.api.history_views import audit_entry_of
    from taskmaster.engine.auditing import BEGINNING, newest
    from taskmaster.store.audit import AuditFilter

    settings = settings_from(given)
    wanted = AuditFilter(who, action, target, since_ms, before_ms)
    store = connect(settings)
    shown: list[AuditEntry] = []
    try:
        lens, place = lens_of(store, settings), BEGINNING
        while len(shown) < limit:
            entries, place_next, _ = store.converse(newest(settings.partitions, wanted, after=place, limit=min(200, limit - len(shown))))
            shown += [audit_entry_of(entry, lens) for entry in entries]
            if place_next is None:
                break
            place = place_next
    finally:
        store.close()
    if as_json:
        echo_json(shown)
        return
    for one in shown:
        click.echo(f"{one.at or '-':<24} {one.who or '-'}  {one.action}  {one.target}{f': {one.reason}' if one.reason else ''}")
    if not shown:
        click.echo("nothing", err=True)


@audit.command()
@click.option(
    "--head",
    "files",
    multiple=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Compare with the heads in this file: what this command (--json) or GET /audit answered earlier. May be repeated.",
)
@click.option(
    "--expect-head",
    "expected",
    multiple=True,
    metavar="PARTITION:NUMBER:HASH",
    help="Compare with this head, as the log tells it. May be repeated.",
)
@click.option("--since", "since_ms", metavar=_INSTANT, callback=_ms, help="Only rows from then on, such as those behind a known fault.")
@as_json
@settings_options(*STORE)
def verify(files: tuple[Path, ...], expected: tuple[str, ...], since_ms: int, as_json: bool, **given: str | None) -> None:
    """Verify that the rows of the audit are what was written: none edited, removed or moved.

    Who can write to the store can make all of it anew, with hashes that fit. That is noticed only where a head was noted elsewhere: keep
    what --json prints, or the log with its `audit.head`, out of their reach, and compare with --head or --expect-head.

    Exit codes: 0 whole; 1 broken, the first bad row and its partition are told; 2 wrong usage; 69 no store.
    """
    from taskmaster.api.history_views import verdict_of
    from taskmaster.engine.auditing import verify as walk

    settings = settings_from(given)
    noted = [head for path in files for head in _read(path)] + [_parse(text) for text in expected]
    strange = [head.partition for head in noted if head.partition >= settings.partitions]
    if strange:
        raise click.UsageError(f"there is no partition {strange[0]} in this store, and a head of it is given")
    store = connect(settings)
    try:
        told = verdict_of([store.converse(walk(partition, noted, since_ms=since_ms)) for partition in range(settings.partitions)])
    finally:
        store.close()
    if as_json:
        echo_json(told)
    else:
        _print(told)
    sys.exit(EX_OK if told.whole else EX_FAILED)


def _print(told: AuditVerdict) -> None:
    for chain, head in zip(told.partitions, told.heads, strict=True):
        facts = [f"{chain.rows} rows", f"head {head.partition}:{head.number}:{head.hash or '-'}"]
        if chain.trimmed:
            facts.append(f"{chain.trimmed} older ones are not kept any more")
        if chain.unchained:
            facts.append(f"{chain.unchained} rows of before there were hashes: nothing can be said of them")
        click.echo(f"partition {chain.partition}: {'whole' if chain.whole else 'BROKEN'}, {', '.join(facts)}")
    for fault in told.faults:
        where = " ".join(filter(None, (fault.at, f"entry {fault.entry}" if fault.entry else "")))
        click.echo(f"partition {fault.partition}, {fault.kind}: {fault.message}{f' ({where})' if where else ''}", err=True)


def _parse(text: str) -> Head:
    from taskmaster.engine.auditing import Head

    found = _HEAD.fullmatch(text)
    if found is None:
        raise click.BadParameter(f"{text[:80]!r} is no head; PARTITION:NUMBER:HASH is meant", param_hint="--expect-head")
    return Head(int(found[1]), int(found[2]), found[3])


def _read(path: Path) -> list[Head]:
    import msgspec

    from taskmaster.api.history_shapes import ChainHeads
    from taskmaster.engine.auditing import Head

    try:
        found = msgspec.json.decode(path.read_bytes(), type=ChainHeads)
    except (OSError, msgspec.MsgspecError) as error:
        raise click.BadParameter(f"{path} has no heads in it: {error}", param_hint="--head") from error
    return [Head(head.partition, head.number, head.hash) for head in found.heads]
