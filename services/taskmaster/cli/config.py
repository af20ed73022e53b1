"""`taskmaster config`: every setting and where it comes from."""

from __future__ import annotations

import rich_click as click

from taskmaster.cli.options import as_json, echo_json, settings_from, settings_options
from taskmaster.settings import NAMES, describe

__all__ = ["config"]


@click.command()
@as_json
@settings_options(*NAMES)
def config(as_json: bool, **texts: str | None) -> None:
    """Print every setting with its value and its source; passwords are masked.

    Options show what a command given the same ones would run with. Exit codes: 0, or 78 when a setting is wrong.
    """
    rows = describe(settings_from(texts))
    if as_json:
        echo_json([row._asdict() for row in rows])
        return
    widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
    for row in rows:
        click.echo(f"{row.name:<{widths[0]}}  {row.value:<{widths[1]}}  {row.source}")
