"""`taskmaster doctor`: whether this installation can work, and what to do if not."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal

import msgspec
import rich_click as click

from taskmaster.cli.exits import EX_CONFIG, EX_FAILED, EX_OK, EX_UNAVAILABLE
from taskmaster.cli.options import STORE, as_json, echo_json, settings_from, settings_options
from taskmaster.cli.store import connect
from taskmaster.errors import StoreError
from taskmaster.model.addresses import masked_url
from taskmaster.settings import Settings
from taskmaster.store.address import store_url
from taskmaster.store.safety import judge

if TYPE_CHECKING:  # redis-py takes a quarter of a second to import
    from taskmaster.store.client import SyncStore

__all__ = ["Check", "doctor"]

#: Rows of the sweeper's report that are read, and that are printed.
REPAIRS, SHOWN = 200, 10
_MARKS = {"ok": "ok  ", "info": "info", "warn": "warn", "fail": "FAIL"}


class Check(msgspec.Struct, frozen=True, rename="camel"):
    """One thing that was looked at.

    Attributes:
        name: what.
        level: fail: jobs will not run, or would be lost; warn: they can be lost or will wait; info: could not be seen.
        observed: what was found.
        message: what it means and what to do; may be empty.
        exit_code: that of the command, should this be the worst.
    """

    name: str
    level: Literal["ok", "info", "warn", "fail"]
    observed: str
    message: str = ""
    exit_code: int = EX_OK


@click.command()
@as_json
@click.option("--sweep", is_flag=True, help="First hold all records and indexes of the store against each other, and mend them.")
@settings_options(*STORE, "plugins", "sweep_every_ms", "idempotency_window_ms")
def doctor(as_json: bool, sweep: bool, **texts: str | None) -> None:
    """Check settings, store, plugins and workers, and say what to do about what is wrong. Changes nothing, unless --sweep is given.

    Exit codes: 0 nothing fails, 1 a plugin fails, 69 the store does not answer, 78 a setting is wrong or the store unsafe.
    """
    from taskmaster.telemetry import logs

    logs.configure("error")  # what a sweep finds is shown as a check
    checks = list(_checks(settings_from(texts), sweep=sweep))
    if as_json:
        echo_json({"ok": all(check.level != "fail" for check in checks), "checks": checks})
    else:
        for check in checks:
            click.echo(f"{_MARKS[check.level]}  {check.name}: {check.observed}")
            if check.message and check.level != "ok":
                click.echo(f"      {check.message}")
    sys.exit(max((check.exit_code for check in checks), default=EX_OK))


def _checks(settings: Settings, *, sweep: bool) -> Iterator[Check]:
    yield Check("settings", "ok", "all known and well-formed")
    yield from _store(settings, sweep=sweep)
    yield from _plugins(settings)


def _store(settings: Settings, *, sweep: bool) -> Iterator[Check]:
    from taskmaster.engine.queue_rules import findings
    from taskmaster.engine.rules import read_rules
    from taskmaster.engine.workers import worker_processes, worker_views
    from taskmaster.store import reads

    try:
        url = store_url(settings)
        store = connect(settings)
    except StoreError as error:
        yield Check("store", "fail", "none", error.message, EX_UNAVAILABLE)
        return
    try:
        round_trip_s = store.ping()
        kind = "given" if settings.redis_url else "embedded"
        yield Check("store", "ok", f"{kind}, {masked_url(url)}, answers in {round_trip_s * 1_000:.1f} ms")
        for finding in judge(store.configuration(), strict=settings.durability == "strict"):
            level = "fail" if finding.level == "refuse" else finding.level
            yield Check(finding.rule, level, finding.observed, finding.message, EX_CONFIG if level == "fail" else EX_OK)
        yield from _sweeps(store, settings, sweep=sweep)
        alive = worker_processes(
            worker_views(row for partition in range(settings.partitions) for row in store.run(reads.workers(partition)))
        )
        message = "" if alive else "accepted jobs wait until one is started: `taskmaster up` or `taskmaster worker`"
        yield Check("workers", "ok" if alive else "warn", f"{alive} processes alive", message)
        orphans = {name for p in range(settings.partitions) for row in store.run(reads.queues(p)) for name in row.orphan_types}
        if orphans:
            names = ", ".join(sorted(orphans))
            yield Check("waiting types", "warn", names, "no live worker can run these: install their plugin and restart the workers")
        for finding in findings(store.converse(read_rules(settings.partitions))):
            yield Check(finding.rule, "warn" if finding.level == "warn" else "info", finding.observed, finding.message)
    except StoreError as error:
        yield Check("store", "fail", masked_url(url), error.message, EX_UNAVAILABLE)
    finally:
        store.close()


def _sweeps(store: SyncStore, settings: Settings, *, sweep: bool) -> Iterator[Check]:
    """What the sweeper found last, or finds now, in each partition; and whether the store has lost something."""
    from taskmaster.maintenance.sweeper import Sweeper
    from taskmaster.store import reads

    began = 0
    for partition in range(settings.partitions):
        if sweep:
            sweeper = Sweeper(store, partition, settings.sweep_every_ms, settings.idempotency_window_ms)
            began = store.now_ms() - 1
            sweeper.search()
            sweeper.whole()
        seen = store.run(reads.integrity(partition, repairs=REPAIRS))
        since = began if sweep else seen.last.since if seen.last else 0
        name = "sweep" if settings.partitions == 1 else f"sweep of partition {partition}"
        if seen.last is None:
            yield Check(name, "info", "none yet", "workers sweep every ten minutes; `taskmaster doctor --sweep` does it now")
        else:
            observed = f"{_ago(store, seen.last.ended)}: {seen.last.looked} rows, {seen.last.mended} mended, {seen.last.found} not"
            rows = [f"{row.what} {row.id} {row.where}".rstrip() for row in seen.repairs if row.at >= since]
            message = "; ".join(rows[:SHOWN]) + (f" and {len(rows) - SHOWN} more" if len(rows) > SHOWN else "")
            yield Check(name, "warn" if rows else "ok", observed, message)
        if seen.lost_at:
            observed = f"{_ago(store, seen.lost_at)} the store was {seen.how}"
            message = "jobs of the lost time may be gone, back, or run again" + ("" if seen.is_checked else "; a sweep is due")
            yield Check(name.replace("sweep", "loss"), "info" if seen.is_checked else "warn", observed, message)


def _ago(store: SyncStore, ms: int) -> str:
    return f"{max(0, store.now_ms() - ms) // 1_000} s ago"


def _plugins(settings: Settings) -> Iterator[Check]:
    from taskmaster.plugins.discovery import discover

    reports = discover(settings.plugins or None).reports
    for report in reports:
        name = f"plugin {report.name}"
        if report.state == "failed":
            yield Check(name, "fail", "not loaded", report.error, EX_FAILED)
        else:
            level: Literal["ok", "info"] = "info" if report.notes else "ok"
            yield Check(name, level, f"{report.distribution} {report.version}: {', '.join(report.types)}", "; ".join(report.notes))
    if not reports:
        yield Check("plugins", "warn", "none installed", "without a plugin there is no job type: pip install taskmaster-email, or your own")
