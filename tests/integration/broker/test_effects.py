"""Effects of real attempts: once over attempts, and honest when the store cannot be asked or told."""

from __future__ import annotations

from typing import Any

import pytest

from support.eventually import eventually
from support.proxy import StoreProxy
from support.servers import StoreServer
from support.worker import Worker
from taskmaster.broker import guards
from taskmaster.model.retry import Backoff
from taskmaster.store import effects
from taskmaster_sdk import JobContext, job

pytestmark = pytest.mark.server("valkey")
SOON = Backoff("fixed", 100)


class World:
    """What handlers do, and how often."""

    def __init__(self) -> None:
        self.done: list[str] = []

    def act(self, key: str) -> int:
        self.done.append(key)
        return len(self.done)


def mailer(world: World, **fails: type[Exception]) -> Any:
    """One effect; *fails*: exceptions of the first attempt, before, in or after it."""

    @job("mail")
    def mail(payload: dict, ctx: JobContext) -> Any:  # type: ignore[type-arg]
        first = ctx.attempt == 1
        with ctx.once("smtp", unless=(ConnectionRefusedError,)) as effect:
            if effect.is_new:
                if first and "refused" in fails:
                    raise fails["refused"]
                effect.result = world.act(effect.key)
                if first and "inside" in fails:
                    raise fails["inside"]
        if first and "after" in fails:
            raise fails["after"]
        return effect.result

    return mail


def ledger(worker: Worker, job_id: str) -> list[tuple[str, str]]:
    found = worker.store.run(effects.lineage(0, job_id))
    return [(row.state, row.how) for _, row, _, _ in found.effects] if found else []


def test_an_attempt_after_the_effect_uses_what_came_of_it(clean_server: StoreServer) -> None:
    world = World()
    with Worker(clean_server.url, [mailer(world, after=ValueError)]) as worker:
        seen = worker.ended(job_id := worker.submit("mail", backoff=SOON))
        assert (seen.state, seen.result, seen.deliveries, len(world.done)) == ("completed", 1, 2, 1)
        assert ledger(worker, job_id) == [("d", "own")]


def test_an_effect_of_unknown_outcome_ends_the_job_for_a_person(clean_server: StoreServer) -> None:
    world = World()
    with Worker(clean_server.url, [mailer(world, inside=OSError)]) as worker:
        seen = worker.ended(job_id := worker.submit("mail", backoff=SOON))
        assert (seen.state, seen.reason, seen.deliveries, len(world.done)) == ("failed", "effect_unknown", 2, 1)
        assert "EffectUnknown" in seen.failure.error
        assert ledger(worker, job_id) == [("r", "")]


def test_an_effect_that_surely_did_not_happen_is_tried_again(clean_server: StoreServer) -> None:
    world = World()
    with Worker(clean_server.url, [mailer(world, refused=ConnectionRefusedError)]) as worker:
        seen = worker.ended(worker.submit("mail", backoff=SOON))
        assert (seen.state, seen.deliveries, len(world.done)) == ("completed", 2, 1)


def test_a_coroutine_guards_its_effects(clean_server: StoreServer) -> None:
    world = World()

    @job("mail")
    async def mail(payload: dict, ctx: JobContext) -> Any:  # type: ignore[type-arg]
        async with ctx.once("smtp") as effect:
            if effect.is_new:
                effect.result = world.act(effect.key)
        if ctx.attempt == 1:
            raise ValueError
        return effect.result

    with Worker(clean_server.url, [mail]) as worker:
        seen = worker.ended(worker.submit("mail", backoff=SOON))
        assert (seen.state, seen.result, seen.deliveries, len(world.done)) == ("completed", 1, 2, 1)


def test_a_licence_whose_answer_was_lost_was_not_used(clean_server: StoreServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """The effect does not happen, the reservation is given back, and the next attempt has it."""
    monkeypatch.setattr(guards, "PATIENCE_S", 0.0)
    world = World()
    with StoreProxy(clean_server) as proxy, Worker(proxy.url, [mailer(world)], direct=clean_server.url) as worker:
        proxy.drop_reply("guard_reserve")
        job_id = worker.submit("mail", backoff=Backoff("fixed", 1_500))
        eventually(lambda: ledger(worker, job_id) == [("f", "late")], what="the reservation is given back")
        assert world.done == []
        seen = worker.ended(job_id)
        assert (seen.state, seen.failures, len(world.done)) == ("completed", 1, 1)
        assert ledger(worker, job_id) == [("d", "own")]


def test_an_effect_that_could_not_be_told_at_once_is_told_later(clean_server: StoreServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two answers are lost: the first word is in all the same, its repeat says so, and the next attempt repeats nothing."""
    monkeypatch.setattr(guards, "PATIENCE_S", 0.0)
    world = World()
    with StoreProxy(clean_server) as proxy, Worker(proxy.url, [mailer(world)], direct=clean_server.url) as worker:
        proxy.drop_reply("guard_done", 2)
        seen = worker.ended(job_id := worker.submit("mail", backoff=Backoff("fixed", 500)))
        assert (seen.state, seen.failures, len(world.done)) == ("completed", 1, 1)
        assert ledger(worker, job_id) == [("d", "own")]


def test_no_effect_begins_under_a_lease_that_was_not_confirmed_lately(clean_server: StoreServer, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    trusted = iter([False, True, False, True, True])
    monkeypatch.setattr(guards.GuardDesk, "trusts", lambda *_: next(trusted))
    with Worker(clean_server.url, [mailer(world)]) as worker:
        seen = worker.ended(worker.submit("mail", backoff=SOON))
        assert (seen.state, seen.failures, len(world.done)) == ("completed", 2, 1)
