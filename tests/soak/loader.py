"""Clients of the API: they submit, repeat what was not answered, cancel, look and replay, and write down what they were told."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

import httpx

from soak.history import History
from soak.plan import Task

__all__ = ["Loader"]

#: How long a client goes on repeating a request that is not answered.
PATIENCE_S = 30.0
_TERMINAL = ("completed", "failed", "cancelled")


class Loader:
    """Submits *tasks* at *rate* a second over *clients* threads, until they are all out or `stop` is called.

    Args:
        urls: asked for the addresses of the APIs that are up; they change when one is killed.
        queue: where every job goes.
    """

    def __init__(
        self, history: History, tasks: Sequence[Task], urls: Callable[[], list[str]], seed: int, *, rate: float, clients: int = 4
    ) -> None:
        self._history = history
        self._tasks = iter(tasks)
        self._urls = urls
        self._pause_s = clients / rate
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._dice = Random(f"loader {seed}")
        self._known: list[str] = []
        self._threads = [threading.Thread(target=self._client, name=f"loader-{n}", args=(n,), daemon=True) for n in range(clients)]
        self._turn = itertools.count()

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """No new submissions; those that are under way are repeated until they are answered, or given up."""
        self._stopping.set()
        for thread in self._threads:
            thread.join(PATIENCE_S + 30)
            assert not thread.is_alive(), f"{thread.name} does not end"

    def _client(self, number: int) -> None:
        dice = Random(f"{number} {self._dice.random()}")
        with httpx.Client(timeout=8.0) as client:
            while not self._stopping.is_set():
                with self._lock:
                    task = next(self._tasks, None)
                if task is None:
                    return
                self._submit(client, task)
                if dice.random() < 0.15:
                    self._look(client, dice)
                self._stopping.wait(self._pause_s * dice.uniform(0.5, 1.5))

    def _submit(self, client: httpx.Client, task: Task) -> None:
        body = {"type": task.type, "idempotencyKey": f"job-{task.n}", "payload": task.payload, **task.options}
        self._history.note("invoke", n=task.n, kind=task.kind)
        job_id = ""
        for _ in range(2 if task.again else 1):
            answer = self._until_answered(client, "POST", "/jobs", json=body)
            if answer is None:
                self._history.note("unknown", n=task.n)
                return
            if answer.status_code not in (200, 202):
                self._history.note("refused", n=task.n, status=answer.status_code, said=answer.text[:200])
                return
            job_id = answer.json()["jobId"]
            self._history.note("accepted", n=task.n, id=job_id, duplicate=answer.json()["duplicate"])
        with self._lock:
            self._known.append(job_id)
        if task.cancel:
            said = self._until_answered(client, "POST", f"/jobs/{job_id}/cancel")
            if said is not None:
                self._history.note("cancel", id=job_id, status=said.status_code, word=said.json().get("status", ""))

    def _look(self, client: httpx.Client, dice: Random) -> None:
        """Somebody reads a job; what is over is over. Dead ones are replayed now and then, each request twice."""
        with self._lock:
            job_id = dice.choice(self._known[-400:]) if self._known else ""
        answer = self._once(client, "GET", f"/jobs/{job_id}") if job_id else None
        if answer is None or answer.status_code != 200:
            return
        state = answer.json()["state"]
        if state in _TERMINAL:
            self._history.note("read", id=job_id, state=state)
        if state == "failed" and dice.random() < 0.3:
            request = f"replay-{next(self._turn)}"
            for _ in range(2):
                said = self._until_answered(client, "POST", f"/dlq/{job_id}/replay", headers={"Idempotency-Key": request})
                if said is not None and said.status_code in (200, 202):
                    self._history.note("replayed", source=job_id, request=request, id=said.json()["jobId"])
                elif said is not None:
                    self._history.note("replay_refused", source=job_id, status=said.status_code, said=said.text[:200])

    def _until_answered(self, client: httpx.Client, method: str, path: str, **what: Any) -> httpx.Response | None:
        """The same request again and again, at one API after the other. None: given up; what it did is not known."""
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            answer = self._once(client, method, path, **what)
            if answer is not None and answer.status_code < 500:
                return answer
            if answer is not None and answer.status_code not in (503, 504):
                self._history.note("server_error", path=path, status=answer.status_code, said=answer.text[:300])
            time.sleep(0.1)
        return None

    def _once(self, client: httpx.Client, method: str, path: str, **what: Any) -> httpx.Response | None:
        urls = self._urls()
        if not urls:
            return None
        try:
            return client.request(method, urls[next(self._turn) % len(urls)] + path, **what)
        except httpx.TransportError:
            return None
