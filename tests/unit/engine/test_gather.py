"""Group commit: what shares a call, and what happens to those who wait when it fails."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from taskmaster.engine.gather import CHUNK, WAITING_MAX, Gather
from taskmaster.errors import StoreDefect, StoreRefused, StoreUnavailable
from taskmaster.store.call import Call
from taskmaster.store.calls import NewJob, Submitted
from taskmaster.store.status import Status

pytestmark = pytest.mark.anyio


def job(number: int) -> NewJob:
    return NewJob(f"id{number}", "q", "t", 2, 0, 0, 5, "", "r", "b")


class Runner:
    """Answers one call at a time, when told to."""

    def __init__(self) -> None:
        self.calls: list[Call[Any]] = []
        self.within: list[float | None] = []
        self.answers: asyncio.Queue[Any] = asyncio.Queue()

    async def run(self, call: Call[Any], *, within_s: float | None = None) -> Any:
        self.calls.append(call)
        self.within.append(within_s)
        answer = await self.answers.get()
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def close(self) -> None:
        pass


def ok(*numbers: int) -> list[Submitted]:
    return [Submitted(Status.OK, "waiting", f"id{n}", 1) for n in numbers]


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


@pytest.fixture
def runner() -> Runner:
    return Runner()


@pytest.fixture
def gather(runner: Runner) -> Gather:
    return Gather(lambda: runner, 1, 5.0)


async def test_those_of_one_tick_share_a_call_and_the_next_gather(gather: Gather, runner: Runner) -> None:
    """Each gets its own answer."""
    first = [gather.submit(0, job(n)) for n in range(3)]
    await settle()
    later = [gather.submit(0, job(n)) for n in range(3, 8)]
    await settle()
    assert len(runner.calls) == 1

    runner.answers.put_nowait(ok(0, 1, 2))
    runner.answers.put_nowait(ok(3, 4, 5, 6, 7))
    answers = await asyncio.gather(*first, *later)

    assert len(runner.calls) == 2
    assert [answer.id for answer in answers] == [f"id{n}" for n in range(8)]


async def test_a_call_is_bounded(gather: Gather, runner: Runner) -> None:
    futures = [gather.submit(0, job(n)) for n in range(CHUNK + 1)]
    runner.answers.put_nowait(ok(*range(CHUNK)))
    runner.answers.put_nowait(ok(CHUNK))

    assert (await asyncio.gather(*futures))[-1].id == f"id{CHUNK}"
    assert len(runner.calls) == 2


async def test_silence_fails_all_who_wait_and_the_lane_goes_on(gather: Gather, runner: Runner) -> None:
    """Those behind the call have waited as long: they are not made to wait anew."""
    out = gather.submit(0, job(1))
    await settle()
    behind = gather.submit(0, job(2))
    runner.answers.put_nowait(StoreUnavailable("away"))
    with pytest.raises(StoreUnavailable):
        await out
    with pytest.raises(StoreUnavailable):
        await behind

    runner.answers.put_nowait(ok(3))
    assert (await gather.submit(0, job(3))).id == "id3"


@pytest.mark.parametrize(("error", "seen"), [(StoreRefused("full"), StoreRefused), (ZeroDivisionError("bug"), StoreDefect)])
async def test_other_errors_fail_their_own_batch_alone(gather: Gather, runner: Runner, error: Exception, seen: type[Exception]) -> None:
    out = gather.submit(0, job(1))
    await settle()
    behind = gather.submit(0, job(2))
    runner.answers.put_nowait(error)
    runner.answers.put_nowait(ok(2))

    with pytest.raises(seen):
        await out
    assert (await behind).id == "id2"


async def test_time_of_a_call_counts_from_its_oldest_item(runner: Runner) -> None:
    gather = Gather(lambda: runner, 1, 0.2)
    gather.submit(0, job(1))
    await settle()
    second = gather.submit(0, job(2))
    await asyncio.wait({second}, timeout=0.1)
    runner.answers.put_nowait(ok(1))
    runner.answers.put_nowait(ok(2))
    await second

    assert runner.within[0] == pytest.approx(0.2, abs=0.02)
    assert runner.within[1] is not None
    assert runner.within[1] < 0.15


async def test_caller_that_left_does_not_disturb(gather: Gather, runner: Runner) -> None:
    left, stayed = gather.submit(0, job(1)), gather.submit(0, job(2))
    left.cancel()
    runner.answers.put_nowait(ok(1, 2))

    assert (await stayed).id == "id2"


async def test_queue_is_bounded(gather: Gather) -> None:
    futures = [gather.submit(0, job(n)) for n in range(WAITING_MAX + 1)]

    with pytest.raises(StoreUnavailable):
        await futures[-1]
    await gather.close()


async def test_close_tells_those_who_wait(gather: Gather, runner: Runner) -> None:
    out = gather.submit(0, job(1))
    await settle()
    behind = gather.submit(0, job(2))
    await gather.close()

    for future in (out, behind):
        with pytest.raises(StoreUnavailable):
            await future
