"""`taskmaster webhooks`: endpoints that are told of the ends of jobs, and what was delivered to them."""

from __future__ import annotations

import getpass
from typing import TYPE_CHECKING, Any, TypeVar

import rich_click as click

from taskmaster.cli.options import STORE, as_json, echo_json, settings_from, settings_options
from taskmaster.cli.store import connect

if TYPE_CHECKING:  # the command line starts without the engine
    from collections.abc import Callable

    from taskmaster.api.webhook_shapes import Webhook
    from taskmaster.engine.rules import Word
    from taskmaster.engine.submit import Prepared
    from taskmaster.settings import Settings
    from taskmaster.store.call import Talk
    from taskmaster.store.client import SyncStore

__all__ = ["webhooks"]

T = TypeVar("T")
#: As model.webhooks has them, which takes long to import.
_EVENTS = ("job.completed", "job.failed", "job.cancelled", "health.degraded")
_reason = click.option("--reason", default="", help="Why; kept in the audit.")


@click.group()
def webhooks() -> None:
    """Webhooks: who is told of the ends of jobs, by signed requests that are jobs themselves."""


@webhooks.command("list")
@click.argument("webhook", metavar="ID", required=False)
@as_json
@settings_options(*STORE)
def list_(webhook: str | None, as_json: bool, **texts: str | None) -> None:
    """List all webhooks, or the one with that ID: where to, what it is told of, and whether it is disabled. Secrets are not shown.

    Exit codes: 0 listed, 1 there is no such webhook, 69 no store.
    """
    from taskmaster.api.webhook_shapes import webhook_of
    from taskmaster.engine.webhooks import EndpointView, find_endpoint, list_endpoints

    def all_or_one() -> Talk[list[EndpointView]]:
        return [(yield from find_endpoint(webhook))] if webhook else (yield from list_endpoints())

    views, now_ms = _asked(settings_from(texts), lambda store: (store.converse(all_or_one()), store.now_ms()))
    shown = [webhook_of(view, now_ms) for view in views]
    if as_json:
        echo_json(shown)
        return
    for one in shown:
        click.echo(_line(one))
    if not shown:
        click.echo("no webhooks", err=True)


@webhooks.command()
@click.argument("url")
@click.option(
    "--event", "events", multiple=True, type=click.Choice(_EVENTS), help="Told of these only; may be repeated. All of jobs, if not given."
)
@click.option("--type", "types", multiple=True, metavar="TYPE", help="Of jobs of this type only; may be repeated.")
@click.option("--queue", "queues", multiple=True, metavar="QUEUE", help="Of jobs in this queue only; may be repeated.")
@click.option("--description", default="", help="For people.")
@click.option("--disabled", is_flag=True, help="Told of nothing yet.")
@_reason
@as_json
@settings_options(*STORE)
def add(as_json: bool, reason: str, **given: Any) -> None:
    """Tell URL of the ends of jobs from now on, and print the secret that signs: it is not to be had again.

    Exit codes: 0 made, 1 it cannot be, 69 no store.
    """
    from taskmaster.api.webhook_shapes import webhook_made
    from taskmaster.engine import strict
    from taskmaster.engine.webhooks import Endpoint, make_endpoint

    wanted = strict.convert({name: given.pop(name) for name in ("url", "events", "types", "queues", "description", "disabled")}, Endpoint)
    settings = settings_from(given)

    def make(store: SyncStore) -> tuple[Any, int]:
        now_ms = store.now_ms()
        return store.converse(make_endpoint(wanted, _word(reason), partitions=settings.partitions)), now_ms

    (view, secret), now_ms = _asked(settings, make)
    if as_json:
        echo_json(webhook_made(view, now_ms, secret))
        return
    click.echo(f"{view.id}\n{secret}")
    click.echo("this secret is shown once: give it to the receiver", err=True)


@webhooks.command()
@click.argument("webhook", metavar="ID")
@_reason
@as_json
@settings_options(*STORE)
def rotate(webhook: str, reason: str, as_json: bool, **texts: str | None) -> None:
    """Make a new secret for the webhook ID, and print it. What it had signs as well for a day.

    Exit codes: 0 made, 1 there is no such webhook, 69 no store.
    """
    from taskmaster.api.webhook_shapes import webhook_made
    from taskmaster.engine.webhooks import new_endpoint_secret

    settings = settings_from(texts)

    def make(store: SyncStore) -> tuple[Any, int]:
        now_ms = store.now_ms()
        talk = new_endpoint_secret(webhook, _word(reason), partitions=settings.partitions, now_ms=now_ms)
        return store.converse(talk), now_ms

    (view, secret), now_ms = _asked(settings, make)
    if as_json:
        echo_json(webhook_made(view, now_ms, secret))
    else:
        click.echo(secret)


@webhooks.command()
@click.argument("webhook", metavar="ID")
@_reason
@settings_options(*STORE)
def enable(webhook: str, reason: str, **texts: str | None) -> None:
    """Tell the webhook ID of ends again. What ended meanwhile it is not told of.

    Exit codes: 0 done, 1 there is no such webhook, 69 no store.
    """
    _switch(webhook, reason, settings_from(texts), is_off=False)
    click.echo(f"webhook {webhook} is told of ends")


@webhooks.command()
@click.argument("webhook", metavar="ID")
@_reason
@settings_options(*STORE)
def disable(webhook: str, reason: str, **texts: str | None) -> None:
    """Tell the webhook ID of nothing more, until it is enabled. What has not been delivered is discarded when it is due.

    Exit codes: 0 done, 1 there is no such webhook, 69 no store.
    """
    _switch(webhook, reason, settings_from(texts), is_off=True)
    click.echo(f"webhook {webhook} is disabled")


@webhooks.command()
@click.argument("webhook", metavar="ID")
@_reason
@settings_options(*STORE)
def remove(webhook: str, reason: str, **texts: str | None) -> None:
    """Remove the webhook ID with its secrets. What has not been delivered is discarded when it is due.

    Exit codes: 0 done, 1 there is no such webhook, 69 no store.
    """
    from taskmaster.engine.webhooks import delete_endpoint

    settings = settings_from(texts)
    _asked(settings, lambda store: store.converse(delete_endpoint(webhook, _word(reason), partitions=settings.partitions)))
    click.echo(f"webhook {webhook} is gone")


@webhooks.command()
@click.argument("webhook", metavar="ID")
@settings_options(*STORE)
def test(webhook: str, **texts: str | None) -> None:
    """Send the webhook ID a test event, and print the id of the job that does: `taskmaster job ID` tells how it went.

    Exit codes: 0 submitted, 1 there is no such webhook, or it is disabled, 69 no store.
    """
    from taskmaster.engine.webhooks import test_delivery

    settings = settings_from(texts)
    _submit(settings, lambda now_ms: test_delivery(webhook, partitions=settings.partitions, now_ms=now_ms))


@webhooks.command()
@click.argument("webhook", metavar="ID")
@click.option("--limit", type=click.IntRange(1, 200), default=50, show_default=True, help="So many at most.")
@as_json
@settings_options(*STORE)
def deliveries(webhook: str, limit: int, as_json: bool, **texts: str | None) -> None:
    """List what was delivered to the webhook ID, or is to be, newest first; `callback` for what jobs' callbacks were told.

    Exit codes: 0 listed, 1 there is no such webhook, 69 no store.
    """
    from taskmaster.api.webhook_shapes import delivery_of
    from taskmaster.engine import queries
    from taskmaster.engine.deliveries import tag_of
    from taskmaster.engine.webhooks import has_deliveries
    from taskmaster.model.webhooks import DELIVERY
    from taskmaster.store import reads

    settings = settings_from(texts)

    def find(store: SyncStore) -> list[Any]:
        store.converse(has_deliveries(webhook))
        tag, shown = tag_of(webhook), list[Any]()
        place: tuple[str, str] | None = ("", "")
        while place is not None and len(shown) < limit:
            rows = limit - len(shown)
            wanted: dict[str, Any] = {"job_type": DELIVERY, "tag": tag, "after": place, "limit": rows}
            pages = [store.run(reads.find(p, "tagged", **wanted)) for p in range(settings.partitions)]
            found, place = queries.merge_pages(pages, rows)
            shown += [delivery_of(queries.summary_of(row)) for row in found]
        return shown

    shown = _asked(settings, find)
    if as_json:
        echo_json(shown)
        return
    for one in shown:
        about = f"of job {one.about}" if one.about else "a test"
        click.echo(
            f"{one.job_id}  {one.created_at}  {one.state:<9}  attempt {one.attempts_made}/{one.max_attempts}  {about}  {one.reason or ''}"
        )
    if not shown:
        click.echo("no deliveries", err=True)


@webhooks.command()
@click.argument("webhook", metavar="ID")
@click.argument("job_id", metavar="DELIVERY")
@_reason
@settings_options(*STORE)
def redeliver(webhook: str, job_id: str, reason: str, **texts: str | None) -> None:
    """Deliver again what has ended, whatever way, to where the webhook ID is now; print the new job's id.

    Exit codes: 0 submitted, 1 there is no such delivery, or it goes on, 69 no store.
    """
    from taskmaster.engine.dlq import Request
    from taskmaster.engine.webhooks import redelivery

    settings = settings_from(texts)
    who = f"{getpass.getuser()[:40]}: {reason}" if reason else getpass.getuser()[:40]
    wanted = Request("", who)
    _submit(settings, lambda now_ms: redelivery(webhook, job_id, wanted, partitions=settings.partitions, now_ms=now_ms))


def _word(reason: str) -> Word:
    from taskmaster.engine.rules import Word

    return Word(getpass.getuser()[:40], reason)


def _asked(settings: Settings, ask: Callable[[SyncStore], T]) -> T:
    store = connect(settings)
    try:
        return ask(store)
    finally:
        store.close()


def _submit(settings: Settings, prepare: Callable[[int], Talk[Prepared]]) -> None:
    """Store the delivery that is prepared, and print its id."""
    from taskmaster.engine.enqueue import store_jobs
    from taskmaster.engine.receipts import receipt

    def submit(store: SyncStore) -> Any:
        partition, job = store.converse(prepare(store.now_ms()))
        return store_jobs(store, partition, [job])

    [stored] = _asked(settings, submit)
    click.echo(receipt(*stored).id)


def _switch(webhook: str, reason: str, settings: Settings, *, is_off: bool) -> None:
    import msgspec

    from taskmaster.engine.webhooks import change_endpoint, find_endpoint

    def switch(store: SyncStore) -> None:
        there = store.converse(find_endpoint(webhook))
        wanted, now_ms = msgspec.structs.replace(there.endpoint, disabled=is_off), store.now_ms()
        store.converse(change_endpoint(webhook, wanted, _word(reason), partitions=settings.partitions, now_ms=now_ms, known=there.revision))

    _asked(settings, switch)


def _line(one: Webhook) -> str:
    wishes = [*(one.events or ["all ends"]), *(f"type {name}" for name in one.types), *(f"queue {name}" for name in one.queues)]
    state = f"disabled: {one.disabled_why}" if one.disabled else "told"
    return f"{one.id}  {one.url}  {', '.join(wishes)}  {state}  {one.description}".rstrip()
