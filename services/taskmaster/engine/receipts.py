"""What the store's answers to submissions mean, one by one and in batches. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import msgspec

from taskmaster.engine.catalogue import Types
from taskmaster.engine.options import out_of_range
from taskmaster.engine.submit import Bounds, Prepared, Submission, prepare, renew
from taskmaster.errors import (
    EffectUnsettled,
    InvalidRequest,
    KeyReused,
    NotFound,
    QueueDraining,
    QueueFull,
    StoreUnavailable,
    TaskMasterError,
    UniqueConflict,
)
from taskmaster.model.ids import created_ms, new_job_id, slot_of
from taskmaster.model.states import State
from taskmaster.store.calls import NewJob, Submitted
from taskmaster.store.status import Status

__all__ = ["Checked", "Stored", "SubmittedJob", "check_all", "outcomes", "receipt", "renewed", "together"]

#: A submission that may be stored, or why it may not.
Checked = Prepared | TaskMasterError
#: What was sent last, and the store's answer to it.
Stored = tuple[NewJob, Submitted]


class SubmittedJob(NamedTuple):
    """A job that is in the store.

    Attributes:
        id: its id; the first job's where the key was known, the one that has the work where that is unique.
        type: job type.
        state: as the store answered; None: the key or the work is still held, but the job is no longer kept.
        duplicate: key or work were taken, and nothing was stored now.
    """

    id: str
    type: str
    state: State | None
    duplicate: bool = False

    @property
    def created_ms(self) -> int:
        """When it was submitted first, Unix milliseconds by the store's clock."""
        return created_ms(self.id)


def check_all(
    submissions: Iterable[Submission | TaskMasterError],
    types: Types,
    settings: Bounds,
    now_ms: int,
    origin: str,
    traceparent: str = "",
) -> list[Checked]:
    """Each submission's record, or why it cannot be accepted; what could not even be read is passed on as it is."""
    checked: list[Checked] = []
    for one in submissions:
        if isinstance(one, TaskMasterError):
            checked.append(one)
            continue
        try:
            checked.append(prepare(one, *types.find(one.type), settings, now_ms, origin, traceparent=traceparent))
        except InvalidRequest as error:
            checked.append(error)
        except (TypeError, ValueError, AttributeError) as error:  # a submission made in Python, where nothing checks types
            checked.append(InvalidRequest(f"a field has a wrong type: {error}"))
    return checked


def renewed(jobs: Sequence[NewJob], answers: Sequence[Submitted], *, atomic: bool) -> list[NewJob] | None:
    """What is to be sent again, since the ids of some came too late; None when none did.

    Those get fresh ids. What was stored stays as it is, and is known by its id; of an atomic batch nothing was, and all are renewed.
    """
    if not any(answer.status is Status.TOO_OLD for answer in answers):
        return None
    now_ms = answers[0].now_ms  # the script's own clock: it cannot be too old again
    return [renew(job, now_ms) if atomic or answer.status is Status.TOO_OLD else job for job, answer in zip(jobs, answers, strict=True)]


def receipt(job: NewJob, answer: Submitted) -> SubmittedJob:
    """What a submitter is told.

    Raises:
        KeyReused: the key belongs to another request; fact `jobId`.
        NotFound: the source of a replay is gone.
        EffectUnsettled: an effect of a replay's lineage is.
        UniqueConflict: another job has its work; facts `jobId`, `state`.
        QueueFull, QueueDraining: its queue takes no more.
        InvalidRequest: another item of its atomic batch was refused, or it expires before it could begin.
        StoreUnavailable: it was not stored for a reason of the store's.
    """
    status = answer.status
    if status is Status.OK:
        return SubmittedJob(job.id, job.type, answer.state)
    if status is Status.DUPLICATE:
        return SubmittedJob(answer.id, job.type, answer.state, True)
    if status is Status.REUSED:
        raise KeyReused(
            "this idempotency key was used before with another payload or other options; take a new key for a new request", jobId=answer.id
        )
    if status is Status.GONE:
        raise NotFound(f"there is no job {job.replayed_from} any more", jobId=job.replayed_from)
    if status is Status.UNKNOWN:
        raise EffectUnsettled(
            f"an effect of job {job.replayed_from} or of its replays is not settled: find out whether it happened and settle it (GET "
            f"/jobs/{job.replayed_from}/effects), or replay with acceptUnknown: the handler will meet the open effect",
            jobId=job.replayed_from,
        )
    if status is Status.ABORTED:
        raise spoiled()
    if status is Status.CONFLICT:
        raise UniqueConflict(
            f"job {answer.id} has the work that this one names as unique, and is {answer.state}; wait for it, or ask for return-existing",
            jobId=answer.id,
            state=answer.state,
        )
    if status is Status.REJECTED:
        raise _rejected(job, answer)
    raise StoreUnavailable(f"the job was not stored ({status.name}); repeat the request")


def _rejected(job: NewJob, answer: Submitted) -> TaskMasterError:
    if answer.why == "full":
        waiting = f"as many jobs wait in queue {job.queue} as may: {answer.most}"
        return QueueFull(f"{waiting}; repeat the request later, or raise its maxLength", queue=job.queue, max=answer.most)
    if answer.why == "draining":
        return QueueDraining(
            f"queue {job.queue} is draining and takes no new jobs; POST /queues/{job.queue}/resume ends that", queue=job.queue
        )
    return out_of_range("expiresAt", "an instant in the future, and after the one at which the job is due")


def spoiled() -> InvalidRequest:
    """What becomes of an item of an atomic batch when another one is refused."""
    return InvalidRequest("not stored: another item of this batch cannot be accepted")


def outcomes(results: Iterable[Stored | TaskMasterError]) -> list[SubmittedJob | TaskMasterError]:
    """A receipt for each item that was accepted, and for the others why they were not."""
    told: list[SubmittedJob | TaskMasterError] = []
    for result in results:
        if isinstance(result, TaskMasterError):
            told.append(result)
            continue
        try:
            told.append(receipt(*result))
        except TaskMasterError as error:
            told.append(error)
    return told


def together(ready: Sequence[Prepared]) -> tuple[int, list[NewJob]]:
    """All in one partition, for an atomic batch: jobs without a key or unique work go where those with one must go.

    Raises:
        InvalidRequest: keys or works belong to several partitions, and one step cannot span them; or two items name the same work.
    """
    works = [job.unique.digest for _, job in ready if job.unique]
    if len(works) > len(set(works)):
        raise InvalidRequest("two items of this batch name the same unique work, so it cannot be atomic; use independent")
    homes = {partition for partition, job in ready if job.key or job.unique}
    if len(homes) > 1:
        raise InvalidRequest("the keys of this batch live in several partitions of the store, so it cannot be atomic; use independent")
    if not homes:
        homes = {ready[0][0]}
    home = homes.pop()
    slot = next(slot_of(job.id) for partition, job in ready if partition == home)
    jobs = [job if partition == home else msgspec.structs.replace(job, id=new_job_id(created_ms(job.id), slot)) for partition, job in ready]
    return home, jobs
