"""Guards as a handler sees them, on the ledger that the SDK has for tests."""

from __future__ import annotations

from typing import Any

import pytest

from taskmaster_sdk import Effect, EffectUnknown, JobContext, job
from taskmaster_sdk.effects import RESULT_MAX, effect_key
from taskmaster_sdk.testing import Ledger, run


class World:
    """What the handlers below do to the outside."""

    def __init__(self, fails: tuple[BaseException, ...] = ()) -> None:
        self.sent: list[str] = []
        self.fails = list(fails)

    def send(self, key: str) -> str:
        if self.fails:
            raise self.fails.pop(0)
        self.sent.append(key)
        return f"receipt {len(self.sent)}"


def mailer(world: World, **options: Any) -> Any:
    """A handler with one effect."""

    @job("mail")
    def mail(payload: dict, ctx: JobContext) -> Any:  # type: ignore[type-arg]
        with ctx.effect("smtp", payload.get("to", ""), **options) as effect:
            if effect.is_new:
                effect.result = world.send(effect.key)
        return effect.result

    return mail


def test_an_effect_happens_once_and_its_result_is_kept() -> None:
    world, ledger = World(), Ledger()
    mail = mailer(world)
    assert run(mail, {}, ledger=ledger).value == "receipt 1"
    assert run(mail, {}, attempt=2, ledger=ledger).value == "receipt 1"
    assert len(world.sent) == 1


def test_the_key_is_that_of_job_name_and_key_over_all_replays() -> None:
    world, ledger = World(), Ledger()
    mail = mailer(world)
    run(mail, {"to": "a"}, ledger=ledger)
    run(mail, {"to": "b"}, ledger=ledger)
    run(mail, {"to": "a"}, job_id="0190f000-0000-7000-8000-000000000002", root_id="00000000-0000-7000-8000-000000000001", ledger=ledger)
    assert world.sent == [effect_key("00000000-0000-7000-8000-000000000001", "smtp", to) for to in "ab"]


def test_after_an_exception_nobody_knows() -> None:
    world, ledger = World((OSError("cut"),)), Ledger()
    mail = mailer(world)
    with pytest.raises(OSError, match="cut"):
        run(mail, {}, ledger=ledger)
    second = run(mail, {}, attempt=2, ledger=ledger)
    assert isinstance(second.outcome, EffectUnknown)
    assert world.sent == []


def test_what_surely_did_not_happen_may_be_tried_again() -> None:
    world, ledger = World((ConnectionRefusedError(),)), Ledger()
    mail = mailer(world, unless=(ConnectionRefusedError,))
    with pytest.raises(ConnectionRefusedError):
        run(mail, {}, ledger=ledger)
    assert run(mail, {}, attempt=2, ledger=ledger).value == "receipt 1"


def test_at_least_once_repeats_with_the_same_key() -> None:
    world, ledger = World(), Ledger()

    @job("charge")
    def charge(payload: dict, ctx: JobContext) -> Any:  # type: ignore[type-arg]
        with ctx.effect("card", mode="at_least_once") as effect:
            if effect.is_new:
                world.send(effect.key)
                if ctx.attempt == 1:
                    raise OSError("the answer was lost")

    with pytest.raises(OSError, match="the answer"):
        run(charge, {}, ledger=ledger)
    run(charge, {}, attempt=2, ledger=ledger)
    assert len(world.sent) == 2
    assert len(set(world.sent)) == 1


@pytest.mark.parametrize(("says", "sent", "result"), [(True, 0, "found"), (False, 1, "receipt 1"), (None, 0, None)])
def test_verify_asks_the_provider(says: bool | None, sent: int, result: str | None) -> None:
    world, ledger = World((OSError("cut"),)), Ledger()

    def verify(effect: Effect) -> bool | None:
        effect.result = "found" if says else None
        return says

    mail = mailer(world, mode="verify", verify=verify)
    with pytest.raises(OSError, match="cut"):
        run(mail, {}, ledger=ledger)
    second = run(mail, {}, attempt=2, ledger=ledger)
    assert len(world.sent) == sent
    assert second.value == result
    assert isinstance(second.outcome, EffectUnknown) == (says is None)


def test_in_a_coroutine() -> None:
    world, ledger = World(), Ledger()

    @job("mail")
    async def mail(payload: dict, ctx: JobContext) -> Any:  # type: ignore[type-arg]
        async with ctx.once("smtp") as effect:
            if effect.is_new:
                effect.result = world.send(effect.key)
        return effect.result

    assert run(mail, {}, ledger=ledger).value == run(mail, {}, ledger=ledger).value == "receipt 1"


@pytest.mark.parametrize("result", [object(), float("nan"), "x" * RESULT_MAX])
def test_a_result_that_cannot_be_kept_does_not_undo_the_effect(result: Any) -> None:
    ledger = Ledger()

    @job("mail")
    def mail(payload: dict, ctx: JobContext) -> Any:  # type: ignore[type-arg]
        with ctx.once("smtp") as effect:
            effect.result = result

    run(mail, {}, ledger=ledger)
    assert [word for word, _, _ in ledger.effects.values()] == ["done"]


@pytest.mark.parametrize(
    ("name", "options", "says"),
    [
        ("", {}, "1 to 64"),
        ("x" * 65, {}, "1 to 64"),
        ("x", {"key": "k" * 1_001}, "1000"),
        ("x", {"mode": "twice"}, "use one of"),
        ("x", {"mode": "verify"}, "verify"),
        ("x", {"verify": bool}, "verify"),
    ],
)
def test_a_guard_that_cannot_be_says_why(name: str, options: dict[str, Any], says: str) -> None:
    @job("mail")
    def mail(payload: dict, ctx: JobContext) -> None:  # type: ignore[type-arg]
        ctx.effect(name, **options)

    with pytest.raises(ValueError, match=says):
        run(mail, {})
