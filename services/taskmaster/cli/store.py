"""Finding the store that a command works with, and looking at its configuration."""

from __future__ import annotations

from typing import TYPE_CHECKING

from taskmaster.errors import StoreUnavailable, StoreUnsafe
from taskmaster.settings import Settings
from taskmaster.store.address import store_url
from taskmaster.store.safety import judge

if TYPE_CHECKING:  # redis-py takes a quarter of a second to import
    from taskmaster.engine.lens import Lens
    from taskmaster.store.client import SyncStore

__all__ = ["connect", "lens_of", "refuse_unsafe"]


def connect(settings: Settings) -> SyncStore:
    """A client of the store at `store_url`. Sends nothing yet; the caller closes it."""
    from taskmaster.store.client import SyncStore

    return SyncStore(store_url(settings), timeout_s=settings.store_timeout_ms / 1_000)


def lens_of(store: SyncStore, settings: Settings, revealed: str = "") -> Lens:
    """What is shown of jobs: without what is marked secret or pii, or all of the one with the id *revealed*, which is kept in the audit.

    Raises:
        StoreError: the store cannot be asked, or could not keep it.
    """
    from taskmaster.engine.catalogue import BlockingCatalogue
    from taskmaster.engine.lens import Lens
    from taskmaster.model.ids import partition_of
    from taskmaster.store import calls

    if revealed:
        store.run(calls.audit_note(partition_of(revealed, settings.partitions), "cli", "payload.revealed", revealed))
    return Lens(BlockingCatalogue(store).need(()), settings.trace_url, reveals=bool(revealed))


def refuse_unsafe(settings: Settings) -> None:
    """Log what is wrong with the store's configuration. A store that does not answer yet passes: it is waited for elsewhere.

    Raises:
        StoreUnsafe: it would lose jobs in normal use, or does not keep what durability strict promises; says how to change that.
        StoreUnavailable: with durability strict: it does not answer, so nothing can be verified.
    """
    from taskmaster.telemetry import events, logs

    log = logs.get()
    store = connect(settings)
    try:
        findings = judge(store.configuration(), strict=settings.durability == "strict")
    except StoreUnavailable as error:
        if settings.durability == "strict":  # nothing is promised that was not seen
            raise
        log.warning(events.STORE_LOST, error=error.message)
        return
    finally:
        store.close()
    for finding in findings:
        if finding.level == "refuse":
            raise StoreUnsafe(f"the store is not safe to use: {finding.observed}: {finding.message}", rule=finding.rule)
        if finding.level == "warn":
            log.warning(events.STORE_WARNING, rule=finding.rule, observed=finding.observed, message=finding.message)
