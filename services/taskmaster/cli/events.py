"""`taskmaster events`: what happens to all jobs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import rich_click as click

from taskmaster.cli.options import STORE, as_json, settings_from, settings_options
from taskmaster.errors import InvalidRequest

if TYPE_CHECKING:  # the command line starts without the engine
    from taskmaster.engine.feed import FeedEvent

__all__ = ["events"]


@click.command()
@click.option("--follow", "is_followed", is_flag=True, help="Go on with what comes, until it is interrupted.")
@click.option("--type", "types", multiple=True, metavar="TYPE", help="Of jobs of this type; may be repeated, as the filters below.")
@click.option("--queue", "queues", multiple=True, metavar="QUEUE", help="Of jobs of this queue.")
@click.option("--job", "jobs", multiple=True, metavar="ID", help="Of this job.")
@click.option("--event", "kinds", multiple=True, metavar="EVENT", help="Of this kind, such as failed.")
@click.option("--fairness-key", default="", metavar="KEY", help="Of jobs with this fairness key.")
@click.option("--after", default="", metavar="ID", help="Go on behind the event with this id, as --json shows it.")
@as_json
@settings_options(*STORE)
def events(
    is_followed: bool,
    types: tuple[str, ...],
    queues: tuple[str, ...],
    jobs: tuple[str, ...],
    kinds: tuple[str, ...],
    fairness_key: str,
    after: str,
    as_json: bool,
    **given: str | None,
) -> None:
    """Print what has happened to jobs, oldest first, as far as the store keeps it (about 10,000 events a partition); with --follow what
    happens from now on. --json prints the events of GET /events, one a line.

    A line `gap` says that events are lost. Exit codes: 0 printed, 2 wrong usage, 69 no store.
    """
    settings = settings_from(given)
    from taskmaster.client import Client

    after = after or ("" if is_followed else "oldest")
    with Client(settings, origin="cli") as client:
        try:
            told = client.events(
                types=types, queues=queues, jobs=jobs, kinds=kinds, fairness_key=fairness_key, after=after, goes_on=is_followed
            )
        except InvalidRequest as error:
            raise click.UsageError(error.message) from error
        for event in told:
            _print(event, as_json=as_json)


def _print(event: FeedEvent, *, as_json: bool) -> None:
    from taskmaster.api import shapes
    from taskmaster.api.history_views import feed_event_of

    told = feed_event_of(event)
    if as_json:
        click.echo(shapes.encode({"event": event.kind, "id": event.id, "data": told}))
    elif told.job_id is None:
        click.echo(f"{told.event:<12} events of partition {told.partition} are lost")
    else:
        click.echo(f"{told.at} {told.event:<12} {told.job_id} {told.type or '-'} {told.queue or '-'}")
