"""Orders to jobs that are there."""

from __future__ import annotations

from taskmaster.errors import Conflict, NotFound
from taskmaster.model.states import State
from taskmaster.store.calls import Cancelled
from taskmaster.store.status import Status

__all__ = ["cancelled"]


def cancelled(job_id: str, answer: Cancelled) -> State:
    """The state that a cancelled job has now: `cancelled`, or `active` while its worker is asked to stop.

    Raises:
        NotFound: there is no such job.
        Conflict: it has ended otherwise; fact `state` says how.
    """
    if answer.status is Status.GONE:
        raise NotFound(f"there is no job {job_id}", jobId=job_id)
    if answer.status is Status.CONFLICT:
        raise Conflict(f"job {job_id} is {answer.state} and cannot be cancelled", jobId=job_id, state=answer.state)
    return "active" if answer.status is Status.CANCELLING else "cancelled"
