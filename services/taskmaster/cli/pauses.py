"""`taskmaster types`, `plugins`, `tenants`: what is paused beside queues, and orders to it."""

from __future__ import annotations

import getpass
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import rich_click as click

from taskmaster.cli.options import STORE, as_json, echo_json, settings_from, settings_options
from taskmaster.cli.store import connect
from taskmaster.errors import NotFound

if TYPE_CHECKING:  # the command line starts without the engine
    from taskmaster.settings import Settings
    from taskmaster.store.client import SyncStore

__all__ = ["plugins", "tenants", "types"]

Found = Mapping[str, Any]  # what the API answers of each, by name


def _types(store: SyncStore, settings: Settings) -> Found:
    from taskmaster.api import views
    from taskmaster.engine.catalogue import BlockingCatalogue
    from taskmaster.engine.rules import read_rules

    entries = BlockingCatalogue(store).need(()).entries
    rules, required = store.converse(read_rules(settings.partitions)), settings.idempotency == "required"
    return {name: views.type_of(entry, rules, key_required_by_default=required) for name, entry in sorted(entries.items())}


def _plugins(store: SyncStore, settings: Settings) -> Found:
    from taskmaster.api import views
    from taskmaster.engine.catalogue import BlockingCatalogue
    from taskmaster.engine.rules import read_rules

    entries = BlockingCatalogue(store).need(()).entries.values()
    rules = store.converse(read_rules(settings.partitions))
    return {
        name: views.plugin_of(name, [one for one in entries if one.plugin == name], rules)
        for name in sorted({entry.plugin for entry in entries})
    }


def _tenants(store: SyncStore, settings: Settings) -> Found:
    from taskmaster.api import views
    from taskmaster.engine.rules import paused_tenants, read_rules

    found = paused_tenants(store.converse(read_rules(settings.partitions)))
    return {name: views.tenant_of(name, pause) for name, pause in found.items()}


class _Kind(NamedTuple):
    """What can be paused.

    Attributes:
        what: a word for one of them.
        scope: as `engine.rules.set_pause` takes it.
        look: those there are; None of a name that is not among them is an error, except of a tenant, which need not be known.
    """

    what: str
    scope: Literal["t", "p", "k"]
    look: Callable[[SyncStore, Settings], Found]


def _order(kind: _Kind, name: str, what: Literal["pause", "resume"], reason: str, *, as_json: bool, texts: dict[str, str | None]) -> None:
    """Give the order and print how it stands then.

    Raises:
        NotFound: there is nothing of that name.
    """
    from taskmaster.api import views
    from taskmaster.engine.rules import Word, set_pause

    settings = settings_from(texts)
    store = connect(settings)
    try:
        if kind.scope != "k" and name not in kind.look(store, settings):
            raise NotFound(f"there is no {kind.what} {name!r}; `taskmaster {kind.what}s list` names those there are")
        store.converse(set_pause(f"{kind.scope}/{name}", what, settings.partitions, Word(getpass.getuser()[:40], reason)))
        shown = kind.look(store, settings).get(name) or views.tenant_of(name, None)
    finally:
        store.close()
    if as_json:
        echo_json(shown)
    else:
        click.echo(_line(name, shown))


def _line(name: str, shown: Any) -> str:
    if not shown.paused:
        return f"{name}  not paused"
    why = f": {shown.pause_reason}" if shown.pause_reason else ""
    return f"{name}  paused by {shown.paused_by} since {shown.paused_at}{why}"


def _group(kind: _Kind, about: str, listing: str, pausing: str, resuming: str) -> click.Group:
    """The commands of one kind."""

    @click.group(name=f"{kind.what}s", help=about)
    def group() -> None: ...

    @group.command("list", help=f"{listing}\n\nExit codes: 0 listed, 69 no store.")
    @as_json
    @settings_options(*STORE, "idempotency")
    def list_(as_json: bool, **texts: str | None) -> None:
        settings = settings_from(texts)
        store = connect(settings)
        try:
            found = kind.look(store, settings)
        finally:
            store.close()
        if as_json:
            echo_json(list(found.values()))
            return
        for name, shown in found.items():
            click.echo(_line(name, shown))
        if not found:
            click.echo(f"no {kind.what}s" if kind.scope != "k" else "no tenant is paused", err=True)

    def command(what: Literal["pause", "resume"], explained: str) -> None:
        codes = f"Exit codes: 0 done, 1 there is no such {kind.what}, or it cannot be, 2 wrong usage, 69 no store."

        @group.command(what, help=f"{explained}\n\n{codes}")
        @click.argument("name")
        @click.option("--reason", default="", help="Why; shown as long as it is in force.")
        @as_json
        @settings_options(*STORE, "idempotency")
        def order(name: str, reason: str, as_json: bool, **texts: str | None) -> None:
            _order(kind, name, what, reason, as_json=as_json, texts=texts)

    command("pause", pausing)
    command("resume", resuming)
    return group


types = _group(
    _Kind("type", "t", _types),
    "Job types: list them, pause and resume them.",
    "List all job types that a worker has published, and who has paused which.",
    "Begin no job of the type NAME, in whatever queue, until it is resumed. New ones are taken, and those that run go on.",
    "End the pause of the type NAME; not while its whole plugin is paused.",
)
plugins = _group(
    _Kind("plugin", "p", _plugins),
    "Plugins: list them, pause and resume all their job types.",
    "List all plugins that have published a job type, and who has paused which.",
    "Begin no job of any type of the plugin NAME until it is resumed, also of types that it publishes later.",
    "End the pause of the plugin NAME. Types that were paused by themselves stay paused.",
)
tenants = _group(
    _Kind("tenant", "k", _tenants),
    "Tenants: pause and resume all jobs with one fairness key.",
    "List the tenants that are paused, and by whom.",
    "Begin no job with the fairness key NAME, in whatever queue, until it is resumed. New ones are taken, and those that run go on.",
    "End the pause of the tenant NAME: its jobs go on in their turn.",
)
