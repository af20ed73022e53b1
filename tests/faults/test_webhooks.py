"""Processes that die between the end of a job and the answer of whoever wants to hear of it: told of all the same, and by one delivery."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from faults.conftest import Serve
from support.eventually import eventually
from support.receiver import Receiver
from support.servers import StoreServer
from support.worker import Hands
from taskmaster.engine.rules import Word, set_pause
from taskmaster.model.webhooks import DELIVERY
from taskmaster.store import reads

ANN = Word("ann", "a test")
pytestmark = [pytest.mark.server("valkey"), pytest.mark.timeout(120)]


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as started:
        yield started


def deliveries(hands: Hands) -> list[str]:
    return [row.id for row in hands.store.run(reads.find(0, "created", job_type=DELIVERY)).rows]


@pytest.mark.parametrize(
    ("failpoint", "requests"),
    [
        pytest.param("webhook.before_submit:kill9", 1, id="between the end and the delivery"),
        pytest.param("webhook.submitted:kill9", 1, id="before the end leaves the outbox"),
        pytest.param("attempt.finished:kill9@2", 2, id="between the receiver's answer and its note"),
    ],
)
def test_an_end_is_told_of_once_whoever_dies(
    serve: Serve, hands: Hands, receiver: Receiver, fired: Callable[[], set[str]], clean_server: StoreServer, failpoint: str, requests: int
) -> None:
    """One delivery in each case. Only a process that dies after the answer and before its note repeats the request, with the id by which
    the receiver knows it: the one part of the way where nobody can do better.
    """
    name = failpoint.partition(":")[0]
    is_held = requests == 1  # no delivery begins while a process may yet die, and take one with it
    with serve(failpoints=failpoint, plugins="demo,webhooks", webhook_allow="127.0.0.1") as service:
        if is_held:
            hands.order(set_pause("q/webhooks", "pause", 1, ANN))
        job_id = hands.submit("dummy", {"result": 1}, callback=receiver.url)
        hands.ended(job_id, 20)
        eventually(lambda: name in fired(), 20, lambda: f"{name} has acted; {service.log()[-2_000:]}")
        if is_held:
            hands.order(set_pause("q/webhooks", "resume", 1, ANN))
        eventually(lambda: len(receiver.ids) == requests, 30, lambda: f"it is told: {receiver.ids}; {service.log()[-3_000:]}")
        [delivery] = deliveries(hands)
        seen = hands.ended(delivery, 20)
        eventually(lambda: clean_server.call("XLEN", "tm:{0}:ob") == 0, 10, "nothing is left to be told")
        again = deliveries(hands)

    assert set(receiver.ids) == {f"evt_{job_id}"}
    assert (again, seen.state) == ([delivery], "completed")
    assert seen.deliveries == requests
