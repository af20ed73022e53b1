"""The broker: Dramatiq's, over our store. Every job type is one actor; every partition is one Dramatiq queue."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import dramatiq
from dramatiq.broker import Broker, Consumer
from dramatiq.errors import QueueNotFound
from dramatiq.middleware import Middleware

from taskmaster.model.outcome import policy_of
from taskmaster.plugins.registry import Handler, Registry

__all__ = ["HandlerActor", "NotRun", "TaskMasterBroker", "partition_queue"]


class NotRun(Exception):
    """A guard did not let the attempt begin; it is handed back. Args: reason, one word."""


def partition_queue(partition: int, half: int) -> str:
    """The Dramatiq queue that stands for one consumer of a partition. The queues that people name are inside it.

    Two consumers a partition: while the call of one is on the wire, what the other has claimed runs.
    """
    return f"partition.{partition}.{half}"


class HandlerActor(dramatiq.Actor[..., Any]):
    """One job type as an actor: calling it runs the plugin's handler with (payload, context)."""

    def __init__(self, handler: Handler, *, broker: TaskMasterBroker, queue_name: str) -> None:
        self.handler = handler
        self.is_isolated = handler.job.isolation == "process"
        self.is_async = handler.is_async and not self.is_isolated
        self.decode = handler.decoder
        self.policy = policy_of(handler.job)
        self.plugin = f"{handler.plugin}=={handler.version}"
        super().__init__(handler.job.fn, broker=broker, actor_name=handler.job.name, queue_name=queue_name, priority=0, options={})
        self.fallback = handler.job.fallback
        self.call = handler.job.fn  # as declared: Dramatiq's wrapper would put a coroutine on a thread


class TaskMasterBroker(Broker):
    """Hands out consumers that speak the job protocol.

    Unlike Dramatiq's own, a hook that raises is heard: before an attempt it means "not run", after one "not acknowledged".

    Args:
        registry: what can run here.
        partitions: of the store.
        halves: consumers of each, 1 or 2.
        make_consumer: (broker, partition, half) -> consumer.
        enqueue: what `actor.send` does with its message.
        middleware: in order; hooks after an attempt run in reverse.
    """

    def __init__(
        self,
        registry: Registry,
        *,
        partitions: int,
        halves: int,
        make_consumer: Callable[[TaskMasterBroker, int, int], Consumer],
        middleware: Iterable[Middleware],
        enqueue: Callable[[dramatiq.Message[Any], int], None] | None = None,
    ) -> None:
        self._hooks: dict[str, tuple[Callable[..., None], ...]] = {}
        super().__init__(middleware=list(middleware))
        self.queues: set[str] = set()
        self._make_consumer = make_consumer
        self._enqueue = enqueue
        for partition in range(partitions):
            for half in range(halves):
                self.declare_queue(partition_queue(partition, half))
        for handler in registry.handlers.values():
            HandlerActor(handler, broker=self, queue_name=partition_queue(0, 0))

    def add_middleware(self, middleware: Middleware, **place: Any) -> None:
        """Add one, and forget which hooks are overridden."""
        super().add_middleware(middleware, **place)
        self._hooks.clear()

    def _overridden(self, name: str) -> tuple[Callable[..., None], ...]:
        """The hooks of this name that do something. Calling the empty ones of five middleware costs 10 us a job."""
        found = self._hooks.get(name)
        if found is None:
            order = reversed(self.middleware) if name.startswith("after_") else self.middleware
            found = tuple(getattr(m, name) for m in order if getattr(type(m), name) is not getattr(Middleware, name))
            self._hooks[name] = found
        return found

    def emit_before(self, signal: str, *args: Any, **kwargs: Any) -> None:
        """Call the hooks in order. What one raises goes to the caller."""
        for hook in self._hooks.get(f"before_{signal}") or self._overridden(f"before_{signal}"):
            hook(self, *args, **kwargs)

    def emit_after(self, signal: str, *args: Any, **kwargs: Any) -> None:
        """Call the hooks in reverse order. What one raises goes to the caller."""
        for hook in self._hooks.get(f"after_{signal}") or self._overridden(f"after_{signal}"):
            hook(self, *args, **kwargs)

    def declare_queue(self, queue_name: str) -> None:
        """Declare a consumer of a partition. Idempotent."""
        if queue_name not in self.queues:
            self.emit_before("declare_queue", queue_name)
            self.queues.add(queue_name)
            self.emit_after("declare_queue", queue_name)

    def get_declared_queues(self) -> set[str]:
        """The names of the partitions' consumers."""
        return set(self.queues)

    def consume(self, queue_name: str, prefetch: int = 1, timeout: int = 5_000) -> Consumer:  # noqa: ARG002 - the slots say how much
        """One consumer of a partition, over all the queues in it.

        Raises:
            QueueNotFound: not a consumer of this store.
        """
        if queue_name not in self.queues:
            raise QueueNotFound(queue_name)  # type: ignore[no-untyped-call]
        _, partition, half = queue_name.split(".")
        return self._make_consumer(self, int(partition), int(half))

    def enqueue(self, message: dramatiq.Message[Any], *, delay: int | None = None) -> dramatiq.Message[Any]:
        """Submit what `actor.send(payload)` made; *delay* in milliseconds.

        Raises:
            RuntimeError: this process was not given a way to submit.
        """
        if self._enqueue is None:
            raise RuntimeError("this worker was built without a way to submit jobs; use the REST API")
        self._enqueue(message, delay or 0)
        return message
