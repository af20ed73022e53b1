"""F40: a schedule is edited, paused or deleted while it fires: after the answer the old definition makes no job."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from support.eventually import eventually
from support.processes import Processes, serve_api
from support.schedulers import Schedulers, real_town
from support.servers import StoreServer
from taskmaster.model.job import Envelope

pytestmark = pytest.mark.server("valkey")
POINT = "schedule.before_fire"
CHANGES: dict[str, Callable[[httpx.Client, str], httpx.Response]] = {
    "delete": lambda api, name: api.delete(f"/schedules/{name}"),
    "pause": lambda api, name: api.post(f"/schedules/{name}/pause"),
    "edit": lambda api, name: api.patch(f"/schedules/{name}", json={"payload": {"definition": 2}}),
}
_envelope = msgspec.json.Decoder(Envelope).decode


class Office:
    """An API, and schedulers."""

    def __init__(self, schedulers: Schedulers, api: httpx.Client) -> None:
        self.schedulers = schedulers
        self.api = api

    def put(self, name: str, **fields: Any) -> None:
        body = {"type": "alpha", "everyMs": 1_000, "payload": {"definition": 1}, "catchUp": "all"} | fields
        self.api.put(f"/schedules/{name}", json=body).raise_for_status()

    def made(self, name: str, definition: int = 1) -> list[str]:
        """The keys of the jobs that the schedule has made by that definition."""
        raw = self.schedulers.town.desk.raw
        names = raw.keys("tm:{0}:b:*")
        jobs = [_envelope(str(blob).encode()) for blob in (raw.mget(names) if names else ()) if blob]
        wanted = msgspec.json.encode({"definition": definition})
        return sorted(job.key for job in jobs if job.key.startswith(f"{name}@") and bytes(job.payload) == wanted)


@pytest.fixture
def office(clean_server: StoreServer, tmp_path: Path) -> Iterator[Office]:
    with real_town(clean_server) as town, Processes(tmp_path / "processes") as processes:
        _, base = serve_api(processes, "api", clean_server.url)
        with httpx.Client(base_url=base, timeout=20) as api:
            yield Office(Schedulers(town, processes, clean_server.url), api)


@pytest.mark.parametrize("change", list(CHANGES))
def test_a_change_is_answered_between_the_decision_and_the_step(office: Office, tmp_path: Path, change: str) -> None:
    """The scheduler stands still with the job in its hands; what it sends when it goes on is refused, and it says so."""
    held = tmp_path / "points" / POINT
    held.parent.mkdir()
    scheduler = office.schedulers.start("s1", TM_FAILPOINTS=f"{POINT}:pause", TM_FAILPOINTS_DIR=str(held.parent))
    office.put("h")
    eventually(held.exists, 20, "it has decided")

    answer = CHANGES[change](office.api, "h")
    before = office.made("h")
    held.unlink()
    told = eventually(lambda: office.schedulers.said(scheduler, "schedule.changed_meanwhile"), 20, "its step is refused")

    assert answer.status_code == 200, answer.text
    assert before == []
    assert told[0]["answer"] == ("GONE" if change == "delete" else "CONFLICT")
    if change == "edit":

        def goes_on() -> bool:
            held.unlink(missing_ok=True)
            return bool(office.made("h", definition=2))

        eventually(goes_on, 20, "the new definition is fired")
    assert office.made("h") == []


@pytest.mark.timeout(120)
def test_changes_from_all_sides_while_sixty_schedules_fire(office: Office) -> None:
    """Deleted, paused and edited over HTTP by eight at a time, with two schedulers: what the old definition made is final at the answer.

    And an edit loses no instant: those of the old definition and of the new one follow each other without a gap.
    """
    names = {f"{change}-{n}": change for change in CHANGES for n in range(20)}
    for name in names:
        office.put(name, jitterMs=900)  # so that at each moment of a second one of them is due
    for scheduler in ("s1", "s2"):
        office.schedulers.start(scheduler)
    eventually(lambda: all(office.made(name) for name in names), 30, "all fire")
    order = list(names)
    random.Random(5).shuffle(order)

    def change(name: str) -> list[str]:
        CHANGES[names[name]](office.api, name).raise_for_status()
        return office.made(name)

    with ThreadPoolExecutor(8) as crowd:
        at_the_answer = dict(zip(order, crowd.map(change, order), strict=True))
    edited = [name for name, kind in names.items() if kind == "edit"]
    eventually(lambda: all(len(office.made(name, definition=2)) > 2 for name in edited), 30, "what was edited goes on")

    assert {name: office.made(name) for name in names} == at_the_answer
    assert all(not office.made(name, definition=2) for name in names if name not in edited)
    for name in edited:
        instants = office.schedulers.instants(name)
        assert instants == list(range(instants[0], instants[-1] + 1, 1_000)), name
