"""Where the store is."""

from __future__ import annotations

from taskmaster.errors import StoreUnavailable
from taskmaster.settings import Settings

__all__ = ["store_url"]


def store_url(settings: Settings) -> str:
    """The address of the store: the given one, else of the embedded store that runs on the data folder.

    Raises:
        StoreUnavailable: no address is given, and none runs.
    """
    if settings.redis_url:
        return settings.redis_url
    from taskmaster.store.embedded import attach  # not needed by those who have an address

    running = attach(settings.data_dir)
    if running is None:
        message = (
            f"there is no store: none runs on {settings.data_dir}. Start one with `taskmaster up`, "
            "or set TASKMASTER_REDIS_URL to a Redis or Valkey"
        )
        raise StoreUnavailable(message)
    return running.url
