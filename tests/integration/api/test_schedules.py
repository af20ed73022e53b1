"""Schedules over HTTP and on the command line: made, changed, looked at, paused, triggered, backfilled, removed."""

from __future__ import annotations

import datetime as dt
import json
from typing import Any

import httpx
import pytest
from click.testing import CliRunner

from integration.api.conftest import HandWorker, Serve
from support.eventually import eventually
from support.operations import duty, work
from support.schedules import town_at
from support.servers import StoreServer
from taskmaster.cli import main
from taskmaster.engine.scheduled_jobs import home
from taskmaster.model.ids import new_job_id

pytestmark = pytest.mark.anyio
REPORT: dict[str, Any] = {
    "type": "welcome-email",
    "payload": {"email": "ann@example.com", "name": "Figures of {{localDate}}"},
    "cron": "0 9 * * 1-5",
    "timezone": "America/New_York",
}


async def _put(client: httpx.AsyncClient, name: str = "daily", **changes: Any) -> dict[str, Any]:
    answer = await client.put(f"/schedules/{name}", json=REPORT | changes)
    assert answer.status_code in (200, 201), answer.text
    made: dict[str, Any] = answer.json()
    return made


async def test_put_makes_a_schedule_and_get_says_all_of_it(serve: Serve) -> None:
    """201 with version and next runs; the same again is 200 and the next version."""
    async with serve() as client:
        first = await client.put("/schedules/daily", json=REPORT)
        again = await client.put("/schedules/daily", json=REPORT)
        shown = (await client.get("/schedules/daily")).json()

    assert (first.status_code, first.headers["location"], first.headers["etag"]) == (201, "/schedules/daily", '"1"')
    assert (again.status_code, again.json()["version"]) == (200, 2)
    assert shown | REPORT == shown
    assert (shown["scheduleId"], shown["enabled"], shown["catchUp"], shown["overlap"]) == ("daily", True, "latest", "allow")
    assert shown["dst"] == {"gap": "shift", "overlap": "once"}
    assert shown["explained"] == "At 09:00 on Monday through Friday, America/New_York time"
    assert shown["nextRunAt"] == shown["nextRuns"][0]
    assert len(shown["nextRuns"]) == 5
    assert shown["counts"] == {"runs": 0, "missed": 0, "skipped": 0, "refused": 0}
    assert (shown["lastFire"], shown["lastMissedAt"]) == (None, None)


@pytest.mark.parametrize(
    ("changes", "status", "pointer"),
    [
        ({"cron": None}, 422, ""),
        ({"cron": "61 * * * *"}, 422, "/cron"),
        ({"timezone": "Mars/Olympus"}, 422, "/timezone"),
        ({"type": "unheard-of"}, 422, None),
        ({"payload": {"email": "ann@example.com"}}, 422, "/payload"),
        ({"payload": {"email": "a", "name": "{{yesterday}}"}}, 422, "/payload"),
        ({"cron": None, "runAt": "2020-01-01T00:00:00Z"}, 422, ""),
        ({"every": 5}, 422, "/every"),
        ({"catchUp": "some"}, 422, "/catchUp"),
    ],
)
async def test_what_cannot_be_carried_out_is_refused_and_nothing_is_stored(
    serve: Serve, clean_server: StoreServer, changes: dict[str, Any], status: int, pointer: str | None
) -> None:
    """The payload is held against the type's schema when the schedule is made, not when it fires."""
    async with serve() as client:
        answer = await client.put("/schedules/daily", json=REPORT | changes)

    assert answer.status_code == status, answer.text
    if pointer is not None:
        assert answer.json()["errors"][0]["pointer"].startswith(pointer)
    assert clean_server.call("KEYS", "tm:{0}:sc*") == []


async def test_a_name_that_no_schedule_can_have_is_not_found(serve: Serve) -> None:
    """No foreign string becomes part of a key."""
    async with serve() as client:
        answers = [
            await client.put("/schedules/No:Name", json=REPORT),
            await client.get("/schedules/nobody"),
            await client.delete("/schedules/nobody"),
        ]

    assert [answer.status_code for answer in answers] == [404, 404, 404]


async def test_a_version_that_was_seen_guards_a_change(serve: Serve) -> None:
    """If-Match with another version is 409, and so is If-None-Match where there is one."""
    async with serve() as client:
        await _put(client)
        stale = await client.put("/schedules/daily", json=REPORT, headers={"if-match": '"7"'})
        there = await client.put("/schedules/daily", json=REPORT, headers={"if-none-match": "*"})
        fresh = await client.put("/schedules/daily", json=REPORT, headers={"if-match": '"1"'})
        strange = await client.put("/schedules/daily", json=REPORT, headers={"if-match": "one"})
        gone = await client.delete("/schedules/daily", headers={"if-match": '"1"'})

    assert [answer.status_code for answer in (stale, there, fresh, strange, gone)] == [409, 409, 200, 400, 409]


async def test_patch_changes_what_it_names(serve: Serve) -> None:
    """JSON Merge Patch: null is the default again, the payload is replaced whole; what comes out is checked like any schedule."""
    async with serve() as client:
        await _put(client, jitterMs=1_000)
        changed = (await client.patch("/schedules/daily", json={"cron": "0 7 * * *", "jitterMs": None, "dst": {"gap": "skip"}})).json()
        payload = (await client.patch("/schedules/daily", json={"payload": {"email": "b@example.com", "name": "B"}})).json()
        paused = (await client.patch("/schedules/daily", json={"enabled": False})).json()
        refused = await client.patch("/schedules/daily", json={"everyMs": 1_000})

    assert (changed["cron"], changed["jitterMs"], changed["dst"]) == ("0 7 * * *", 0, {"gap": "skip", "overlap": "once"})
    assert payload["payload"] == {"email": "b@example.com", "name": "B"}
    assert (paused["enabled"], paused["nextRunAt"]) == (False, None)
    assert refused.status_code == 422


async def test_a_paused_schedule_stays_paused_until_it_is_resumed(serve: Serve) -> None:
    """Also when its definition is put anew; who paused it is told."""
    async with serve() as client:
        await _put(client)
        paused = (await client.post("/schedules/daily/pause", json={"by": "ann", "reason": "stocktaking"})).json()
        put = await _put(client, cron="0 8 * * *")
        resumed = (await client.post("/schedules/daily/resume")).json()

    assert (paused["enabled"], paused["paused"]["by"], paused["paused"]["reason"], paused["version"]) == (False, "ann", "stocktaking", 1)
    assert (put["enabled"], put["nextRunAt"]) == (False, None)
    assert resumed["enabled"]
    assert resumed["nextRunAt"]


async def test_trigger_makes_a_job_once_for_each_key(serve: Serve, worker: HandWorker) -> None:
    """The job is the schedule's: its payload has the words replaced, its origin and key say where it comes from."""
    async with serve() as client:
        await _put(client)
        first = await client.post("/schedules/daily/trigger", headers={"idempotency-key": "k1"})
        again = await client.post("/schedules/daily/trigger", headers={"idempotency-key": "k1"})
        other = await client.post("/schedules/daily/trigger", json={"by": "ann"})
        job = (await client.get(f"/jobs/{first.json()['jobId']}")).json()
        await client.post(f"/jobs/{first.json()['jobId']}/cancel")
        fires = (await client.get("/schedules/daily/fires")).json()["items"]

    today = dt.datetime.now(dt.UTC)
    assert first.status_code == 202
    assert first.json()["jobId"] == again.json()["jobId"] != other.json()["jobId"]
    assert job["payload"]["name"][:15] == f"Figures of {today:%Y}"
    assert (job["origin"], job["idempotencyKey"], job["state"]) == ("schedule", "daily@trigger:k1", "waiting")
    assert [(fire["outcome"], fire["by"], fire["jobState"]) for fire in fires] == [
        ("fired", "ann", "waiting"),
        ("fired", "api", "cancelled"),
    ]
    assert len(worker.claim(slots=5)) == 1


WEEK = {"from": "2026-06-01T00:00:00-04:00", "to": "2026-06-07T23:59:59-04:00", "by": "ann", "ratePerS": 1_000}


async def _backfill(client: httpx.AsyncClient, worker: HandWorker, name: str = "daily", **fields: Any) -> dict[str, Any]:
    answer = await client.post(f"/schedules/{name}/backfill", json=WEEK | fields)
    assert answer.status_code == 202, answer.text
    work(worker.store, answer.json()["operationId"])
    ended: dict[str, Any] = (await client.get(answer.headers["location"])).json()
    return ended


async def test_backfill_makes_the_jobs_of_a_range_once(serve: Serve, worker: HandWorker) -> None:
    """An operation, carried out by the workers. Keyed by instant: with a range that overlaps, it adds only what is not there."""
    async with serve() as client:
        await _put(client)
        preview = await client.post("/schedules/daily/backfill", json=WEEK | {"dryRun": True})
        first = await _backfill(client, worker, reason="the outage")
        more = await _backfill(client, worker, to="2026-06-09T23:59:59-04:00")
        (job, *_), none = (
            (await client.get("/jobs?state=waiting&limit=10")).json()["items"][::-1],
            await _backfill(client, worker, to="2026-06-01T00:00:01-04:00"),
        )
        shown = (await client.get(f"/jobs/{job['jobId']}")).json()
        fires = (await client.get("/schedules/daily/fires")).json()["items"]

    assert (preview.status_code, preview.json()["matched"], preview.json()["sampleIds"][0]) == (200, 5, "2026-06-01T13:00:00.000Z")
    assert (first["action"], first["state"], first["by"], first["reason"]) == ("backfill", "completed", "ann", "the outage")
    assert first["filter"] == {"scheduleId": "daily", "from": WEEK["from"], "to": WEEK["to"]}
    assert [(one["progress"]["total"], one["progress"]["made"], one["progress"]["duplicates"]) for one in (first, more, none)] == [
        (5, 5, 0),
        (7, 2, 5),
        (0, 0, 0),
    ]
    assert (first["progress"]["done"], first["progress"]["pending"], none["state"]) == (5, 5, "completed")
    assert (shown["payload"]["name"], shown["idempotencyKey"]) == ("Figures of 2026-06-01", "daily@2026-06-01T13:00:00Z")
    assert [fire["outcome"] for fire in fires if fire["by"] == "ann"].count("fired") == 7


async def test_backfill_refuses_what_cannot_be_and_takes_a_repeated_request_once(serve: Serve) -> None:
    """A range that is not over, or too long; equal keys are one operation, for one order only."""
    async with serve() as client:
        await _put(client)
        await _put(client, "often", cron=None, everyMs=1_000)
        future = await client.post("/schedules/daily/backfill", json=WEEK | {"to": "2999-01-01T00:00:00Z"})
        huge = await client.post("/schedules/often/backfill", json=WEEK)
        nobody = await client.post("/schedules/nobody/backfill", json=WEEK)
        key = {"Idempotency-Key": "k1"}
        one, two = [await client.post("/schedules/daily/backfill", json=WEEK, headers=key) for _ in range(2)]
        other = await client.post("/schedules/daily/backfill", json=WEEK | {"reason": "another"}, headers=key)
        ended = await client.post(f"{one.headers['location']}/cancel", json={"by": "ann"})

    assert [answer.status_code for answer in (future, huge, nobody)] == [422, 422, 404]
    assert (one.json()["operationId"], two.json()["duplicate"]) == (two.json()["operationId"], True)
    assert two.headers["idempotency-replayed"] == "true"
    assert other.status_code == 422
    assert (ended.json()["state"], ended.json()["progress"]["made"]) == ("cancelled", 0)


async def test_one_key_is_one_operation_whichever_partition_it_is_in(serve: Serve) -> None:
    """The same key for another schedule, or other dead letters, is refused, and no operation becomes two."""
    ids = [new_job_id(1_800_000_000_000, slot) for slot in range(3)]
    async with serve(partitions=3) as client:
        names = [name for name in map("report-{}".format, range(12)) if home(name, 3)[1] in (0, 1)]
        first, second = (next(name for name in names if home(name, 3)[1] == partition) for partition in range(2))
        for name in (first, second):
            await _put(client, name)
        one = await client.post(f"/schedules/{first}/backfill", json=WEEK, headers={"Idempotency-Key": "k1"})
        other = await client.post(f"/schedules/{second}/backfill", json=WEEK, headers={"Idempotency-Key": "k1"})
        replays = [
            await client.post(
                "/operations", json={"action": "replay", "ids": [job_id], "reason": "mended"}, headers={"Idempotency-Key": key}
            )
            for job_id, key in zip(ids, ("k1", "k2", "k2"), strict=True)
        ]
        shown = (await client.get(one.headers["location"])).json()

    assert [answer.status_code for answer in (one, other)] == [202, 422], other.text
    assert [answer.status_code for answer in replays] == [422, 202, 422], [answer.text for answer in replays]
    assert shown["filter"]["scheduleId"] == first


@pytest.mark.parametrize("why", ["full", "deleted", "failures"])
async def test_backfill_stops_where_it_cannot_go_on(serve: Serve, worker: HandWorker, why: str) -> None:
    """It says why; what was made stays made, and the same range again makes the rest."""
    async with serve() as client:
        await _put(client)
        if why == "full":
            assert (await client.patch("/queues/email-queue", json={"maxLength": 2, "by": "ann"})).status_code == 200
        started = await client.post("/schedules/daily/backfill", json=WEEK | {"ratePerS": 2, "stopOnFailures": 1})
        if why == "deleted":
            await client.delete("/schedules/daily")
        if why == "failures":

            def one_is_claimed() -> list[Any]:
                duty(worker.store).step()
                return worker.claim()

            (claimed,) = eventually(one_is_claimed, what="the first job is made")
            worker.end(claimed, "f", reason="fatal", fingerprint="f")
        work(worker.store, started.json()["operationId"])
        ended = (await client.get(started.headers["location"])).json()
        if why == "full":
            await client.patch("/queues/email-queue", json={"maxLength": None, "by": "ann"})
            rest = await _backfill(client, worker)

    made = ended["progress"]["made"]
    assert ended["state"] == "stopped"
    if why == "full":
        assert (made, rest["progress"]["made"], rest["progress"]["duplicates"]) == (2, 3, 2)
        assert "its queue takes none now" in ended["why"]
    elif why == "deleted":
        assert (made, ended["why"]) == (0, "there is no schedule 'daily'")
    else:
        assert ended["why"] == "1 of its jobs have failed"
        assert 1 <= made < 5


async def test_preview_tells_of_days_when_clocks_change(serve: Serve) -> None:
    """UTC, local time, a note, and the expression in words."""
    async with serve() as client:
        await _put(client, cron="30 2 * * *", timezone="Europe/Berlin")
        shown = (await client.get("/schedules/daily/preview?count=2&after=2026-03-28T12:00:00Z")).json()
        wrong = [await client.get(f"/schedules/daily/preview?{query}") for query in ("count=0", "count=101", "after=soon", "from=1")]

    assert shown["runs"] == [
        {
            "at": "2026-03-29T01:00:00.000Z",
            "local": "2026-03-29T03:00:00+02:00",
            "note": "02:30 does not exist on this day; runs at 03:00",
        },
        {"at": "2026-03-30T00:30:00.000Z", "local": "2026-03-30T02:30:00+02:00", "note": None},
    ]
    assert shown["explained"] == "At 02:30 every day, Europe/Berlin time"
    assert [answer.status_code for answer in wrong] == [400] * 4


@pytest.mark.parametrize("partitions", [1, 3])
async def test_the_list_has_pages_over_all_partitions(serve: Serve, partitions: int) -> None:
    """By id, each once."""
    names = [f"s{n}" for n in range(7)]
    async with serve(partitions=partitions) as client:
        for name in reversed(names):
            await _put(client, name)
        found, cursor = [], ""
        while cursor is not None:
            page = (await client.get(f"/schedules?limit=3{cursor and '&cursor='}{cursor}")).json()
            found += [one["scheduleId"] for one in page["items"]]
            cursor = page["nextCursor"]
        removed = await client.delete("/schedules/s3")
        left = (await client.get("/schedules")).json()["items"]

    assert found == names
    assert removed.status_code == 200
    assert len(left) == 6


async def test_health_counts_schedulers_and_tells_what_nobody_fires(serve: Serve, clean_server: StoreServer) -> None:
    """A schedule that is due, and no scheduler: degraded."""
    async with serve() as client:
        await _put(client)
        before = (await client.get("/health")).json()
        clean_server.call("ZADD", "tm:{0}:scdue", 1_000, "daily")
        after = (await client.get("/health")).json()

    assert before["schedulers"] == after["schedulers"] == 0
    assert [(rule["ok"], rule["limit"]) for rule in before["rules"] if rule["rule"] == "scheduleLag"] == [(True, 30_000)]
    assert [rule["ok"] for rule in after["rules"] if rule["rule"] == "scheduleLag"] == [False]
    assert after["status"] == "degraded"


async def test_what_was_missed_is_an_alarm_for_an_hour(serve: Serve, clean_server: StoreServer) -> None:
    """Noticed by the scheduler: the schedule says when, `/health` is degraded; an hour later, or without the schedule, it is well again."""
    async with serve() as client:
        await _put(client, catchUp="none")
        with town_at(clean_server) as town:
            town.desk.now = int(town.row("daily").fields["next"]) + 60_000
            town.turn()
            at = town.desk.now
        # The clock of the server is behind that of the town, so what the town has noticed was within the hour.
        alarmed = (await client.get("/health")).json()
        shown = (await client.get("/schedules/daily")).json()
        fires = (await client.get("/schedules/daily/fires")).json()["items"]
        clean_server.call("ZADD", "tm:{0}:scmissed", clean_server.call("TIME")[0] * 1_000 - 3_600_001, "daily")
        later = (await client.get("/health")).json()
        clean_server.call("ZADD", "tm:{0}:scmissed", at, "daily")
        await client.delete("/schedules/daily")
        await _put(client, "other")
        removed = (await client.get("/health")).json()

    def rule(health: dict[str, Any]) -> list[tuple[int, bool]]:
        return [(one["observed"], one["ok"]) for one in health["rules"] if one["rule"] == "scheduleMissed"]

    assert (rule(alarmed), alarmed["status"]) == ([(1, False)], "degraded")
    assert (rule(later), rule(removed)) == ([(0, True)], [(0, True)])
    assert shown["counts"]["missed"] == 1
    assert dt.datetime.fromisoformat(shown["lastMissedAt"]).timestamp() * 1_000 == at
    assert [(fire["outcome"], fire["jobState"]) for fire in fires] == [("missed", None)]


def test_the_command_line_does_the_same(clean_server: StoreServer, worker: HandWorker) -> None:
    """Each command, and the refusal of what cannot be."""

    def run(*words: str) -> tuple[int, str]:
        done = CliRunner().invoke(main, ["schedules", *words, "--redis-url", clean_server.url])
        return done.exit_code, done.output

    body = json.dumps({"payload": {"email": "ann@example.com", "name": "{{localDate}}"}, "overlap": "skip"})
    made = run("put", "daily", body, "--type", "welcome-email", "--cron", "0 9 * * *", "--timezone", "Europe/Berlin")
    answers = {
        "list": run("list"),
        "pause": run("pause", "daily", "--reason", "stocktaking"),
        "paused": run("show", "daily"),
        "resume": run("resume", "daily"),
        "preview": run("preview", "daily", "--count", "2"),
        "trigger": run("trigger", "daily", "--key", "one"),
        "again": run("trigger", "daily", "--key", "one"),
        "dry": run("backfill", "daily", "--from", "2026-06-01T00:00:00Z", "--to", "2026-06-03T00:00:00Z", "--dry-run"),
        "backfill": run("backfill", "daily", "--from", "2026-06-01T00:00:00Z", "--to", "2026-06-03T00:00:00Z", "--key", "k", "--json"),
        "repeated": run("backfill", "daily", "--from", "2026-06-01T00:00:00Z", "--to", "2026-06-03T00:00:00Z", "--key", "k"),
        "fires": run("fires", "daily"),
        "json": run("show", "daily", "--json"),
        "delete": run("delete", "daily"),
    }

    assert made[0] == 0, made
    assert "Europe/Berlin time" in made[1]
    assert all(code == 0 for code, _ in answers.values()), answers
    assert "paused by" in answers["paused"][1]
    assert answers["trigger"] == answers["again"]
    assert f"{answers['trigger'][1].strip()} waiting" in answers["fires"][1]
    assert answers["dry"][1] == "backfill: 2\n  2026-06-01T07:00:00.000Z\n  2026-06-02T07:00:00.000Z\n"
    assert json.loads(answers["backfill"][1])["progress"]["total"] == 2
    assert "backfill running: 0 of 2, 0 made" in answers["repeated"][1]
    assert "(started before)" in answers["repeated"][1]
    assert json.loads(answers["json"][1])["overlap"] == "skip"
    assert answers["preview"][1].count("T09:00:00+0") == 2
    assert run("show", "daily")[0] == 1
    assert run("put", "x", "--type", "welcome-email", "--cron", "61 * * * *")[0] == 1
    assert run("put", "x", "[]")[0] == 2
    assert run("backfill", "daily", "--from", "yesterday", "--to", "2026-06-03T00:00:00Z")[0] == 2


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("PUT", "/schedules/daily", REPORT),
        ("PATCH", "/schedules/daily", {"priority": "high"}),
        ("POST", "/schedules/daily/trigger", {}),
        ("POST", "/schedules/daily/resume", {}),
        ("POST", "/schedules/daily/backfill", {"from": "2026-11-01T00:00:00Z", "to": "2026-11-02T00:00:00Z"}),
    ],
)
async def test_what_makes_jobs_needs_the_scope_of_submissions(serve: Serve, method: str, path: str, body: dict[str, Any]) -> None:
    """A schedule is a submission later on: who may not submit may not have one do it. Looking, pausing and removing need nothing."""
    async with serve() as client:
        await _put(client)
    async with serve(scopes=("audit:read",)) as client:
        refused = await client.request(method, path, json=body)
        looked, paused = await client.get("/schedules/daily"), await client.post("/schedules/daily/pause")

    assert (refused.status_code, refused.json()["scope"]) == (403, "jobs:submit")
    assert (looked.status_code, looked.json()["version"], paused.status_code) == (200, 1, 200)


async def test_another_type_needs_its_own_payload(serve: Serve) -> None:
    """What one type marks as secret would be shown by the other that does not."""
    async with serve() as client:
        await _put(client)
        refused = await client.patch("/schedules/daily", json={"type": "free"})
        changed = await client.patch("/schedules/daily", json={"type": "free", "payload": {"n": 1}})

    assert (refused.status_code, refused.json()["errors"][0]["pointer"]) == (422, "/payload")
    assert (changed.status_code, changed.json()["payload"]) == (200, {"n": 1})
