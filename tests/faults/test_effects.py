"""F2, F3, F5, F55: workers die or freeze around an effect. The sink counts what the mode promises; no job claims a false success."""

from __future__ import annotations

import json
import os
import signal

import pytest

from support import web
from support.eventually import eventually
from support.processes import Processes, serve_api
from support.worker import Hands

pytestmark = pytest.mark.server("valkey")

POINTS = ("effect.before_reserve", "effect.reserved", "effect.before_done", "effect.done")
#: What a SIGKILL at each point comes to: effects counted, then state and reason of the job.
PROMISED = {
    "once": {
        "effect.before_reserve": (1, "completed", ""),
        "effect.reserved": (0, "failed", "effect_unknown"),
        "effect.before_done": (1, "failed", "effect_unknown"),
        "effect.done": (1, "completed", ""),
    },
    "at-least-once": {
        "effect.before_reserve": (1, "completed", ""),
        "effect.reserved": (1, "completed", ""),
        "effect.before_done": (2, "completed", ""),
        "effect.done": (1, "completed", ""),
    },
    "verify": dict.fromkeys(POINTS, (1, "completed", "")),
}


def owner(hands: Hands, job_id: str) -> int:
    """The process that holds the job now."""
    token = hands.look(job_id).fields["tk"]
    return int(json.loads(hands.store.raw().get(f"tm:{{0}}:o:{token.partition('.')[0]}"))["pid"])


@pytest.mark.parametrize("point", POINTS)
def test_a_kill_around_an_effect_costs_what_its_mode_promises(serve, sink, hands, tmp_path, point) -> None:
    """Before and after the reservation, before and after it is known to have happened: one kill for each of the three modes."""
    with serve(failpoints=f"{point}:kill9"):
        for mode, promised in PROMISED.items():
            (tmp_path / "fired" / point).unlink(missing_ok=True)
            job_id = hands.submit(mode, {"key": mode})
            seen = hands.ended(job_id, 30)

            assert (tmp_path / "fired" / point).exists(), "nobody was killed"
            count, state, reason = promised[point]
            said = (sink.counts()[mode], seen.state, seen.reason if seen.state != "completed" else "")
            assert said == (count, state, reason), mode
            assert (seen.losses, seen.deliveries) == (1, 2)
            assert bool(hands.dead(job_id)) is (state == "failed")


def test_a_process_frozen_inside_its_effect_does_it_once(serve, sink, hands) -> None:
    """Its bytes are on the way when it freezes; the next attempt does not send them again, and what the zombie says changes no end."""
    with serve() as service:
        sink.hold()
        job_id = hands.submit("once", {"key": "k"})
        eventually(lambda: sink.held() == 1)
        first = owner(hands, job_id)
        os.kill(first, signal.SIGSTOP)
        try:
            seen = hands.ended(job_id, 30)
            assert (seen.state, seen.reason, sink.counts()["k"]) == ("failed", "effect_unknown", 0)
            record = hands.dead(job_id)
        finally:
            sink.release()
            os.kill(first, signal.SIGCONT)
        eventually(lambda: sink.counts()["k"] == 1)
        eventually(lambda: any(line["jobId"] == job_id for line in service.said("job.outcome_refused")), 15)

        assert hands.look(job_id).state == "failed"
        assert hands.dead(job_id) == record
        assert sink.counts()["k"] == 1


def test_a_replay_meets_the_effect_of_the_first(serve, sink, hands, clean_server, tmp_path) -> None:
    """Done: the replay completes with its result and does not repeat it. Unknown: there is no replay before somebody has settled it."""
    point = "effect.reserved"
    with Processes(tmp_path / "api") as processes, serve(failpoints=f"{point}:kill9"):
        _, url = serve_api(processes, "api", clean_server.url)
        (tmp_path / "fired" / point).touch()
        done = hands.submit("once", {"key": "done"})
        assert hands.ended(done).state == "completed"
        (tmp_path / "fired" / point).unlink()
        unknown = hands.submit("once", {"key": "unknown"})
        assert hands.ended(unknown, 30).reason == "effect_unknown"
        record, created = hands.dead(unknown), hands.counters()["once/default/created"]

        again = web.post(f"{url}/jobs/{done}/replay")
        refused = web.post(f"{url}/jobs/{unknown}/replay")

        seen = hands.ended(again.json()["jobId"])
        assert (seen.state, seen.result) == ("completed", hands.look(done).result)
        assert refused.status_code == 409
        assert hands.counters()["once/default/created"] == created + 1
        assert sink.counts() == {"done": 1}
        assert hands.dead(unknown) == record
