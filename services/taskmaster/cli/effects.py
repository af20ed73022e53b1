"""`taskmaster effects`: effects that nobody was heard of since, and a person's word on them."""

from __future__ import annotations

import getpass
from typing import TYPE_CHECKING

import rich_click as click

from taskmaster.cli.options import STORE, as_json, echo_json, settings_from, settings_options
from taskmaster.cli.store import connect
from taskmaster.errors import NotFound

if TYPE_CHECKING:
    from collections.abc import Iterator

    from taskmaster.engine.effects import EffectView
    from taskmaster.settings import Settings
    from taskmaster.store.client import SyncStore

__all__ = ["effects"]


@click.group()
def effects() -> None:
    """Effects of jobs on the world outside: list those with an unknown outcome, and settle them."""


@effects.command("list")
@click.option("--all", "everything", is_flag=True, help="Also those whose attempt is at it now.")
@click.option("--job", "job_id", metavar="ID", help="All effects of this job and its replays, settled ones too.")
@as_json
@settings_options(*STORE)
def list_(everything: bool, job_id: str | None, as_json: bool, **texts: str | None) -> None:
    """List effects whose outcome is unknown, oldest first.

    Exit codes: 0 listed, 1 there is no such job, 69 no store.
    """
    from taskmaster.api import views

    settings = settings_from(texts)
    store = connect(settings)
    try:
        found = list(_of_job(store, settings, job_id) if job_id else _unsettled(store, settings))
    finally:
        store.close()
    shown = [views.effect_of(view) for view in found if everything or job_id or view.state == "unknown"]
    if as_json:
        echo_json(shown)
        return
    for one in shown:
        key = f" {one.key}" if one.key else ""
        click.echo(f"{one.effect_id}  {one.state:<8}  {one.name}{key}  reserved {one.reserved_at} by job {one.job_id}")
    if not shown:
        click.echo("no effects" if job_id or everything else "no effects with an unknown outcome", err=True)


def _of_job(store: SyncStore, settings: Settings, job_id: str) -> Iterator[EffectView]:
    from taskmaster.engine.effects import of_ledger
    from taskmaster.model.ids import is_job_id, partition_of
    from taskmaster.store.effects import lineage

    ledger = store.run(lineage(partition_of(job_id, settings.partitions), job_id)) if is_job_id(job_id) else None
    if ledger is None:
        raise NotFound(f"there is no job {job_id!r}", jobId=job_id)
    yield from of_ledger(ledger)


def _unsettled(store: SyncStore, settings: Settings) -> Iterator[EffectView]:
    from taskmaster.engine.effects import merge
    from taskmaster.store.effects import unsettled

    page = 200
    for partition in range(settings.partitions):
        after: tuple[str, str] | None = ("", "")
        while after is not None:
            views, after = merge([store.run(unsettled(partition, after=after, limit=page))], page)
            yield from views


@effects.command()
@click.argument("effect_id", metavar="EFFECT")
@click.option("--happened/--did-not-happen", "happened", default=None, help="What you found out.")
@click.option("--reason", required=True, help="How you know; kept in the audit.")
@click.option("--by", default=None, help="Who says so (default: the user of this shell).")
@settings_options(*STORE, "lease_ms")
def settle(effect_id: str, happened: bool | None, reason: str, by: str | None, **texts: str | None) -> None:
    """Say what became of the effect EFFECT, as `taskmaster effects list` names it.

    Exit codes: 0 settled, 1 there is no such effect, or an attempt may still be at it, 2 not said whether it happened, 69 no store.
    """
    from taskmaster.engine.effects import settled
    from taskmaster.model.ids import is_job_id, partition_of
    from taskmaster.store.effects import settle as call

    if happened is None:
        raise click.UsageError("say --happened or --did-not-happen")
    root_id, _, effect = effect_id.partition(".")
    if not is_job_id(root_id):
        raise NotFound(f"there is no effect {effect_id!r}", effectId=effect_id)
    settings = settings_from(texts)
    store = connect(settings)
    try:
        who = by or getpass.getuser()
        partition = partition_of(root_id, settings.partitions)
        answer = store.run(call(partition, root_id, effect, happened=happened, who=who, reason=reason, at_it_ms=settings.lease_ms))
    finally:
        store.close()
    settled(root_id, effect, answer)
    click.echo(f"settled: {'it happened' if happened else 'it did not happen'}")
