"""Everything TaskMaster raises on purpose.

    TaskMasterError
    ├── ConfigurationError        a setting is wrong: say which, and what would do
    ├── InvalidRequest            the caller's request cannot be carried out as it stands
    │   ├── MalformedBody         it is not even JSON
    │   ├── BodyTooLarge
    │   ├── UnknownJobType
    │   ├── InvalidPayload
    │   ├── KeyMissing
    │   └── KeyReused
    ├── Forbidden                 the caller may not do this: say which scope it needs, and how it is granted
    ├── NotFound                  no such job, dead letter, queue or type
    ├── Conflict                  the thing is in a state that does not allow it
    │   ├── QueueDraining         the queue takes no new jobs
    │   ├── UniqueConflict        another job has the work
    │   └── RevisionMismatch      it was changed since the caller looked
    ├── QueueFull                 as many jobs wait in the queue as may
    ├── EffectUnsettled           an effect of the job's lineage may or may not have happened
    ├── NotEnded                  a job was waited for, and has not ended in that time
    ├── NotCompleted              a job whose result was asked for has not completed
    ├── Overloaded                a queue is too far behind for this priority
    ├── StoreError
    │   ├── StoreUnavailable      no answer in time: whether it took effect is unknown; the same request may be repeated
    │   ├── StoreRefused          the store answers, but does not take writes now (memory, disk, read-only)
    │   │   └── StoreFilling      it still would, but what is left of its memory is for higher priorities
    │   ├── StoreUnsafe           its configuration would lose or evict jobs
    │   └── StoreDefect           an answer that cannot be: a bug, or a foreign hand in the keys
    └── PluginError               a plugin could not be loaded or started

`code` is stable and goes over the wire; the attributes are facts for whoever acts on the error.
"""

from __future__ import annotations

from typing import Any, ClassVar

__all__ = [
    "BodyTooLarge",
    "ConfigurationError",
    "Conflict",
    "EffectUnsettled",
    "Forbidden",
    "InvalidPayload",
    "InvalidRequest",
    "KeyMissing",
    "KeyReused",
    "MalformedBody",
    "NotCompleted",
    "NotEnded",
    "NotFound",
    "Overloaded",
    "PluginError",
    "QueueDraining",
    "QueueFull",
    "RevisionMismatch",
    "StoreDefect",
    "StoreError",
    "StoreFilling",
    "StoreRefused",
    "StoreUnavailable",
    "StoreUnsafe",
    "TaskMasterError",
    "UniqueConflict",
    "UnknownJobType",
]


class TaskMasterError(Exception):
    """Root of the tree. The message says what happened, to what, and what to do."""

    code: ClassVar[str] = "error"

    def __init__(self, message: str, **facts: Any) -> None:
        super().__init__(message)
        self.message = message
        self.facts = facts


class ConfigurationError(TaskMasterError):
    """A setting is unknown, malformed or impossible."""

    code = "configuration"


class InvalidRequest(TaskMasterError):
    """The request is malformed or out of its limits."""

    code = "invalid-request"


class MalformedBody(InvalidRequest):
    """It is not JSON as RFC 8259 has it, or nested or filled beyond the limits."""

    code = "malformed-body"


class BodyTooLarge(InvalidRequest):
    """It has more bytes than are taken. Facts: limitBytes."""

    code = "body-too-large"


class UnknownJobType(InvalidRequest):
    """No plugin has published this type. Facts: type, near (similar names)."""

    code = "unknown-job-type"


class InvalidPayload(InvalidRequest):
    """The payload does not fit the type's schema. Facts: errors, a list of {pointer, message}."""

    code = "invalid-payload"


class KeyMissing(InvalidRequest):
    """An idempotency key is required here."""

    code = "idempotency-key-missing"


class KeyReused(InvalidRequest):
    """The key was used before for another request. Facts: jobId of the first."""

    code = "idempotency-key-reused"


class Forbidden(TaskMasterError):
    """The caller lacks a scope. Facts: scope."""

    code = "forbidden"


class NotFound(TaskMasterError):
    """There is no such thing, or no longer."""

    code = "not-found"


class Conflict(TaskMasterError):
    """The thing's present state does not allow this. Facts: state."""

    code = "conflict"


class Overloaded(TaskMasterError):
    """A queue is too far behind for this priority. Nothing was stored. Facts: rule, queue, priority, observed, limit, retryAfterS."""

    code = "overloaded"


class QueueDraining(Conflict):
    """The queue works off what it has and takes no new jobs. Facts: queue."""

    code = "queue-draining"


class UniqueConflict(Conflict):
    """Another job has the work that this one names as unique. Facts: jobId, state of that job."""

    code = "unique-conflict"


class RevisionMismatch(Conflict):
    """The thing was changed since the caller looked. Facts: revision that it has now."""

    code = "revision-mismatch"


class QueueFull(TaskMasterError):
    """As many jobs wait in the queue as its maxLength allows; nothing was stored. Facts: queue, max."""

    code = "queue-full"


class EffectUnsettled(TaskMasterError):
    """An effect of the job's lineage is under way, or nobody knows whether it happened. Facts: jobId."""

    code = "effect-unknown"


class NotEnded(TaskMasterError, TimeoutError):
    """The job that was waited for goes on. Facts: jobId, state."""

    code = "not-ended"


class NotCompleted(TaskMasterError):
    """The job has no result: it failed or was cancelled. Facts: jobId, state, reason, error (class and message of the last failure)."""

    code = "not-completed"


class StoreError(TaskMasterError):
    """Something between us and the store."""

    code = "store"


class StoreUnavailable(StoreError):
    """No answer in time. The request may or may not have taken effect; repeating the same one is safe."""

    code = "store-unavailable"


class StoreRefused(StoreError):
    """The store answers but refuses writes: out of memory, disk full, read-only replica. Nothing was stored."""

    code = "store-refused"


class StoreFilling(StoreRefused):
    """The store's memory is nearly used up: what is left is for higher priorities. Nothing was stored. Facts as `Overloaded`."""

    code = "store-filling"


class StoreUnsafe(StoreError):
    """The store's configuration would lose jobs."""

    code = "store-unsafe"


class StoreDefect(StoreError):
    """An answer that cannot be: a bug in a script, or keys changed by something else."""

    code = "store-defect"


class PluginError(TaskMasterError):
    """A plugin could not be loaded or started. Facts: plugin."""

    code = "plugin"
