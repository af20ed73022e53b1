"""Options of a submission and changes of a job, from Python: blocking, and on the loop."""

from __future__ import annotations

import datetime as dt

import pytest

from taskmaster.client import AsyncClient, Client, UniqueWork
from taskmaster.errors import Conflict, InvalidPayload, InvalidRequest, NotFound, RevisionMismatch, UniqueConflict

AT = dt.datetime(2035, 1, 1, tzinfo=dt.UTC)


def test_place_among_others_is_asked_for_by_name(client: Client) -> None:
    """The options of POST /jobs, with Python's names and types."""
    work = UniqueWork(key="w", until="started")
    job = client.submit(
        "mail", {"to": "a"}, key="k", fairness_key="acme", tags=["a"], limits=("api",), lifo=True, expires_at=AT, unique=work
    )
    seen = client.get(job.id)

    assert seen.envelope is not None
    assert (seen.envelope.fairness_key, seen.tags, seen.envelope.limits, seen.is_lifo) == ("acme", ("a",), ("api",), True)
    assert (seen.expires_ms, seen.envelope.unique_key) == (int(AT.timestamp() * 1_000), "w")
    with pytest.raises(UniqueConflict) as caught:
        client.submit("mail", {"to": "a"}, key="other", unique=work)
    assert caught.value.facts == {"jobId": job.id, "state": "waiting"}


def test_a_job_is_changed_while_it_waits(client: Client) -> None:
    """The answer is the job as it is then; a revision that is no longer true refuses."""
    job = client.submit("mail", {"to": "a"}, key="k", run_at=AT)
    changed = client.change(job.id, priority="low", tags=["late"], payload={"to": "b"}, revision=0)
    now = client.run_now(job.id)

    assert changed.envelope is not None
    assert (changed.priority, changed.tags, bytes(changed.envelope.payload)) == ("low", ("late",), b'{"to":"b"}')
    assert (now.state, now.revision) == ("waiting", 2)
    with pytest.raises(RevisionMismatch):
        client.change(job.id, priority="high", revision=1)
    with pytest.raises(InvalidPayload):
        client.change(job.id, payload={"to": 5})
    with pytest.raises(InvalidRequest, match="nothing"):
        client.change(job.id)
    client.cancel(job.id)
    with pytest.raises(Conflict):
        client.run_now(job.id)
    with pytest.raises(NotFound):
        client.change(job.id[:-4] + "0000", priority="low")


@pytest.mark.anyio
async def test_the_loop_changes_alike(client: Client, clean_server) -> None:
    """Same arguments, same answers."""
    job = client.submit("mail", {"to": "a"}, key="k", run_at=AT)
    async with AsyncClient(clean_server.url) as other:
        changed = await other.change(job.id, priority="high")
        now = await other.run_now(job.id)

    assert (changed.priority, now.state) == ("high", "waiting")
