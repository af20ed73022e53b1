"""The thread that waits for the markers in a consumer's inbox."""

from __future__ import annotations

import random
import threading
from typing import TYPE_CHECKING

from taskmaster.errors import StoreError

if TYPE_CHECKING:
    from taskmaster.broker.consumer import PartitionConsumer

__all__ = ["Listener"]

#: How long one wait for a marker blocks.
BLOCK_S = 5.0


class Listener(threading.Thread):
    """Blocks on the consumer's inbox on a connection of its own, so that no completion stands behind a block."""

    def __init__(self, consumer: PartitionConsumer) -> None:
        super().__init__(name=f"taskmaster-inbox-{consumer.queue_name}", daemon=True)
        self._consumer = consumer
        self._inbox = consumer.store.inbox(consumer.partition, consumer.wid)
        self._stopping = threading.Event()

    def run(self) -> None:
        """Pass every marker on. After a broken connection look for work: a marker may have been lost with it."""
        while not self._stopping.is_set():
            try:
                marker = self._inbox.wait(BLOCK_S)
            except StoreError:
                if not self._stopping.is_set():
                    self._stopping.wait(random.uniform(0.1, 0.5))  # noqa: S311 - jitter
                    self._consumer.wake()
                continue
            if marker is not None and marker.startswith("c/"):
                self._consumer.cancel(marker[2:])
            elif marker is not None:
                self._consumer.wake()
        self._inbox.close()

    def stop(self) -> None:
        """End the thread and wait for that, at most a second; works before `start`, and twice."""
        self._stopping.set()
        self._inbox.close()
        if self.is_alive():
            self.join(1.0)
