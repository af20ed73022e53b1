"""`taskmaster health`: the rules of health, and what was observed."""

from __future__ import annotations

import sys

import rich_click as click

from taskmaster.cli.exits import EX_FAILED, EX_OK
from taskmaster.cli.options import STORE, as_json, echo_json, settings_from, settings_options
from taskmaster.cli.store import connect

__all__ = ["health"]


@click.command()
@click.option("--all", "is_all", is_flag=True, help="Also the rules that hold.")
@as_json
@settings_options(*STORE)
def health(is_all: bool, as_json: bool, **given: str | None) -> None:
    """Say whether queues, store and schedules are well, by the rules of GET /health.

    Exit codes: 0 healthy, 1 degraded: a rule is broken, 69 no store.
    """
    from taskmaster.maintenance.alarms import look_at_health

    settings = settings_from(given)
    store = connect(settings)
    try:
        rules = look_at_health(store, settings.partitions, is_strict=settings.durability == "strict")
    finally:
        store.close()
    status = "healthy" if all(rule.ok for rule in rules) else "degraded"
    if as_json:
        echo_json({"status": status, "rules": [rule._asdict() for rule in rules]})
    else:
        click.echo(status)
        for rule in rules:
            if is_all or not rule.ok:
                about = f" {rule.queue}" if rule.queue else ""
                click.echo(f"  {'ok    ' if rule.ok else 'broken'}  {rule.rule}{about}: {rule.observed:g}, limit {rule.limit:g}")
    sys.exit(EX_OK if status == "healthy" else EX_FAILED)
