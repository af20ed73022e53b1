"""`taskmaster breakers`: circuit breakers of dependencies, and orders to them."""

from __future__ import annotations

import getpass
import secrets
from typing import TYPE_CHECKING, Literal

import rich_click as click

from taskmaster.cli.options import STORE, as_json, echo_json, settings_from, settings_options
from taskmaster.cli.store import connect

if TYPE_CHECKING:
    from taskmaster.engine.breakers import BreakerView
    from taskmaster.settings import Settings
    from taskmaster.store.client import SyncStore

__all__ = ["breakers"]


@click.group()
def breakers() -> None:
    """Circuit breakers of dependencies: list, set up, open and close by order."""


def _views(store: SyncStore, settings: Settings, name: str = "") -> list[BreakerView]:
    from taskmaster.engine.breakers import merge_breakers, unknown
    from taskmaster.store.breakers import breakers as call

    rows = [row for p in range(settings.partitions) for row in store.run(call(p, name))]
    if name and not rows:
        raise unknown(name)
    return merge_breakers(rows, store.now_ms())


def _tell(view: BreakerView) -> None:
    share = f"{view.failures} of {view.calls} calls failed" if view.calls else "no calls"
    about = {
        "open": f"until {_at(view.until_ms)}" if view.until_ms else "until it is closed by order",
        "probing": f"{view.probing} of {view.probes} probes under way",
        "closed": share,
    }[view.state]
    cause = f" ({view.cause}{f', {view.who}: {view.why}' if view.who else ''})" if view.cause else ""
    waits = f"; {view.waiting} waiting" if view.waiting else ""
    click.echo(f"{view.dependency:<24} {view.state:<8} {about}{cause}{waits}")


def _at(ms: int) -> str:
    from taskmaster.api.shapes import instant

    return instant(ms)


@breakers.command("list")
@as_json
@settings_options(*STORE)
def list_(as_json: bool, **texts: str | None) -> None:
    """List all breakers: state, cause, what waits.

    Exit codes: 0 listed, 69 no store.
    """
    settings = settings_from(texts)
    store = connect(settings)
    try:
        found = _views(store, settings)
    finally:
        store.close()
    if as_json:
        from taskmaster.api.breakers import breaker_of

        echo_json([breaker_of(view) for view in found])
        return
    for view in found:
        _tell(view)
    if not found:
        click.echo("no breakers: no job type names a dependency", err=True)


@breakers.command()
@click.argument("name")
@as_json
@settings_options(*STORE)
def show(name: str, as_json: bool, **texts: str | None) -> None:
    """Show the breaker of the dependency NAME with its settings.

    Exit codes: 0 shown, 1 there is none, 69 no store.
    """
    import msgspec

    settings = settings_from(texts)
    store = connect(settings)
    try:
        (view,) = _views(store, settings, name)
    finally:
        store.close()
    if as_json:
        from taskmaster.api.breakers import breaker_of

        echo_json(breaker_of(view))
        return
    _tell(view)
    click.echo(f"{'types':<16} {', '.join(view.types) or 'none that is loaded'}")
    for setting, value in msgspec.to_builtins(view.rule).items():
        click.echo(f"{setting:<16} {value:g}")


@breakers.command("set")
@click.argument("name")
@click.argument("changes", nargs=-1, required=True, metavar="SETTING=VALUE…")
@settings_options(*STORE)
def set_(name: str, changes: tuple[str, ...], **texts: str | None) -> None:
    """Change settings of the breaker of NAME, as `show` names them: failureRatio=0.3 cooldownMs=10000. Made when there is none.

    Exit codes: 0 changed, 2 there is no such setting or the value cannot be, 69 no store.
    """
    import msgspec

    from taskmaster.engine.breakers import changed, merge_breakers
    from taskmaster.model.breaker import BreakerRule
    from taskmaster.store.breakers import breakers as read
    from taskmaster.store.breakers import put_breaker
    from taskmaster.store.flow import Order
    from taskmaster_sdk.jobs import NAME

    pairs = [part.partition("=") for part in changes]
    if not NAME.fullmatch(name) or not all(value for _, _, value in pairs):
        raise click.UsageError("a name of a-z 0-9 . _ - is meant, and SETTING=VALUE")
    settings = settings_from(texts)
    store = connect(settings)
    try:
        views = merge_breakers([row for p in range(settings.partitions) for row in store.run(read(p, name))], 0)
        known = msgspec.to_builtins(views[0].rule if views else BreakerRule())
        try:
            rule = msgspec.convert(known | {field: value for field, _, value in pairs}, BreakerRule, strict=False)
        except msgspec.ValidationError as error:
            raise click.UsageError(f"{error}; settings are {', '.join(known)}") from None
        order = Order(secrets.token_hex(8), None, getpass.getuser(), "")
        changed(name, [store.run(put_breaker(p, name, rule, order)) for p in range(settings.partitions)])
        (view,) = _views(store, settings, name)
    finally:
        store.close()
    _tell(view)


def _force(what: Literal["open", "close"], name: str, reason: str, by: str | None, texts: dict[str, str | None]) -> None:
    from taskmaster.engine.breakers import changed
    from taskmaster.store.breakers import force
    from taskmaster.store.flow import Order

    settings = settings_from(texts)
    store = connect(settings)
    try:
        order = Order(secrets.token_hex(8), None, by or getpass.getuser(), reason)
        changed(name, [store.run(force(p, name, what, order)) for p in range(settings.partitions)])
        (view,) = _views(store, settings, name)
    finally:
        store.close()
    _tell(view)


@breakers.command("force-open")
@click.argument("name")
@click.option("--reason", required=True, help="Why; kept in the audit.")
@click.option("--by", default=None, help="Who says so (default: the user of this shell).")
@settings_options(*STORE)
def force_open(name: str, reason: str, by: str | None, **texts: str | None) -> None:
    """Let no call to NAME through until the breaker is closed by order; what waits burns no attempt.

    Exit codes: 0 open, 1 there is no such breaker, 69 no store.
    """
    _force("open", name, reason, by, texts)


@breakers.command("force-close")
@click.argument("name")
@click.option("--reason", required=True, help="Why; kept in the audit.")
@click.option("--by", default=None, help="Who says so (default: the user of this shell).")
@settings_options(*STORE)
def force_close(name: str, reason: str, by: str | None, **texts: str | None) -> None:
    """Let all calls to NAME through at once; from then on the breaker is judged anew.

    Exit codes: 0 closed, 1 there is no such breaker, 69 no store.
    """
    _force("close", name, reason, by, texts)
