"""Submitting jobs from Python, without HTTP and without a worker's parts: the producer's side of TaskMaster.

    with Client("redis://localhost:6379/0") as client:
        job = client.submit("welcome-email", {"email": "albert@example.com", "name": "Albert"}, key="user-123-welcome-v1")
        print(client.result(job.id, timeout_s=20))

The checks, limits and rules of idempotency are those of the REST API, by the same code; what is wrong raises an error of
`taskmaster.errors`. A store that does not answer raises `StoreUnavailable` within a bounded time: whether the job was stored is then
unknown, and the same submission with the same key may be repeated until it is answered.
"""

from __future__ import annotations

from taskmaster.client.aio import AsyncClient
from taskmaster.client.sync import Client
from taskmaster.engine.feed import FeedEvent
from taskmaster.engine.following import JobEvent
from taskmaster.engine.options import UniqueWork
from taskmaster.engine.receipts import SubmittedJob
from taskmaster.engine.submit import Submission
from taskmaster.model.job import JobRecord, LogLine
from taskmaster.model.retry import Backoff

__all__ = ["AsyncClient", "Backoff", "Client", "FeedEvent", "JobEvent", "JobRecord", "LogLine", "Submission", "SubmittedJob", "UniqueWork"]
