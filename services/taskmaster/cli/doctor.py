"""`taskmaster doctor`: the production checklist, and what to do about it."""

from __future__ import annotations

import sys
import textwrap
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

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
    from taskmaster.engine.checklist.facts import Facts
    from taskmaster.engine.checklist.findings import Finding
    from taskmaster.plugins.registry import PluginReport
    from taskmaster.store.client import SyncStore

__all__ = ["doctor"]

_COLOURS = {"ok": "green", "warning": "yellow", "error": "red", "skipped": "bright_black"}
#: Of a line where the terminal does not say.
WIDTH = 140


@click.command()
@as_json
@click.option("--strict", is_flag=True, help="Warnings fail as well.")
@click.option("--sweep", is_flag=True, help="First hold all records and indexes of the store against each other, and mend them.")
@settings_options(*STORE, "host", "port", "idempotency", "plugins", "sweep_every_ms", "idempotency_window_ms")
def doctor(as_json: bool, strict: bool, sweep: bool, **texts: str | None) -> None:
    """Go through the production checklist: store, plugins, workers, queues, job types. Changes nothing, unless --sweep is given.

    Host, port and idempotency are those of the API: give them as it has them.

    Exit codes: 0 no error (with --strict: no warning either), 1 an error (with --strict: or a warning), 69 the store does not answer,
    78 a setting is wrong or the store unsafe. What was skipped, and why, is told and fails nothing.
    """
    from taskmaster.engine.checklist.examine import has
    from taskmaster.telemetry import logs

    logs.configure("error")  # what a sweep finds is shown as a finding
    findings, code = _look(settings_from(texts), sweep=sweep)
    failed = has(findings, "error", "warning") if strict else has(findings, "error")
    if as_json:
        echo_json({"ok": not failed, "checks": findings})
    else:
        _print(findings)
    sys.exit(max(code, EX_FAILED if failed else EX_OK))


def _look(settings: Settings, *, sweep: bool) -> tuple[list[Finding], int]:
    """All findings, and the exit code that the store asks for."""
    from taskmaster.engine.checklist.examine import examine
    from taskmaster.engine.checklist.findings import Rule
    from taskmaster.engine.checklist.fleet import loading
    from taskmaster.plugins.discovery import discover

    known = Rule("settings", "a wrong setting is refused before anything is looked at", "").ok("all known and well-formed")
    answers = Rule("store", "without its store nothing is accepted and nothing runs", "")
    reports = discover(settings.plugins or None).reports
    url = settings.redis_url or "none"
    try:
        url = store_url(settings)
        store = connect(settings)
        try:
            round_trip_s = store.ping()
            facts = _facts(store, settings, reports, sweep=sweep)
        finally:
            store.close()
    except StoreError as error:
        lost = answers.error("none" if url == "none" else masked_url(url), fix=error.message)
        return [known, lost, *loading(reports)], EX_UNAVAILABLE
    kind = "given" if settings.redis_url else "embedded"
    found = answers.ok(f"{kind}, {masked_url(url)}, answers in {round_trip_s * 1_000:.1f} ms", {"roundTripMs": round_trip_s * 1_000})
    is_unsafe = any(finding.level == "refuse" for finding in facts.policy)
    return [known, found, *examine(facts)], EX_CONFIG if is_unsafe else EX_OK


def _facts(store: SyncStore, settings: Settings, reports: Sequence[PluginReport], *, sweep: bool) -> Facts:
    from taskmaster.cli.reach import reach
    from taskmaster.engine.checklist.facts import Facts
    from taskmaster.engine.checklist.gather import gather, own_of

    since = _sweep(store, settings) if sweep else ()
    store.align()
    now_ms = store.now_ms()
    return Facts(
        skew_ms=now_ms - time.time_ns() // 1_000_000,
        store=store.converse(gather(settings.partitions, now_ms, since)),
        own=own_of(settings, is_api=False),
        policy=judge(store.configuration(), strict=settings.durability == "strict"),
        scaling=reach(settings.host, settings.port),
        plugins=reports,
    )


def _sweep(store: SyncStore, settings: Settings) -> list[int]:
    """Sweep every partition; when each began, by the store's clock."""
    from taskmaster.maintenance.sweeper import Sweeper

    began = []
    for partition in range(settings.partitions):
        began.append(store.now_ms() - 1)
        sweeper = Sweeper(store, partition, settings.sweep_every_ms, settings.idempotency_window_ms)
        sweeper.search()
        sweeper.whole()
    return began


def _print(findings: Sequence[Finding]) -> None:
    """A row each; below those that are not well, why it matters and what to do."""
    wide = max(len(finding.rule) for finding in findings)
    for finding in findings:
        mark = click.style(f"{finding.severity:<8}", fg=_COLOURS[finding.severity])
        lines = _wrapped(finding.observed, WIDTH - wide - 11)
        click.echo(f"{mark} {finding.rule:<{wide}}  {lines[0]}")
        if finding.severity in ("warning", "error"):
            lines += _wrapped(f"why: {finding.why}", WIDTH - wide - 11)
        if finding.fix:
            lines += _wrapped(f"fix: {finding.fix}", WIDTH - wide - 11)
        for line in lines[1:]:
            click.echo(f"{'':<{wide + 11}}{line}")
    counts = {severity: sum(finding.severity == severity for finding in findings) for severity in _COLOURS}
    click.echo(", ".join(f"{n} {severity}" for severity, n in counts.items()))


def _wrapped(text: str, width: int) -> list[str]:
    return textwrap.wrap(text, max(40, width), subsequent_indent="     ", break_long_words=False, break_on_hyphens=False) or [""]
