"""Job types that trace what they do, and fail before they succeed."""

from __future__ import annotations

import logging
import os
from typing import Annotated, Any, TypedDict

from opentelemetry import trace

from taskmaster.client import AsyncClient, Client
from taskmaster_sdk import Backoff, Fatal, JobContext, Pii, Secret, hookimpl, job

SOON = Backoff(kind="fixed", delay_ms=20)


class Payload(TypedDict, total=False):
    fails: int
    then: str
    secret: str


def _work(payload: Payload, ctx: JobContext) -> None:
    with trace.get_tracer("shop").start_as_current_span("call the bank") as span:
        span.set_attribute("shop.attempt", ctx.attempt)
        logging.getLogger("shop").warning("a line of a library")
        ctx.logger.warning("a line of the handler")
        if ctx.attempt <= payload.get("fails", 0):
            raise ConnectionError(f"the bank hung up on {payload.get('secret')}")


def _submit(payload: Payload) -> None:
    if payload.get("then"):
        with trace.get_tracer("shop").start_as_current_span("order"), Client(os.environ["TASKMASTER_PLUGIN_TRACED_STORE"]) as client:
            client.submit(payload["then"], {}, key="next")


@job("linked", backoff=SOON)
def linked(payload: Payload, ctx: JobContext) -> None:
    """Begins a trace of its own."""
    _work(payload, ctx)
    _submit(payload)


@job("child", backoff=SOON, trace="child")
def child(payload: Payload, ctx: JobContext) -> None:
    """Belongs to its submission's."""
    _work(payload, ctx)
    _submit(payload)


@job("coroutine", backoff=SOON, trace="child")
async def coroutine(payload: Payload, ctx: JobContext) -> None:
    """The same on the event loop."""
    _work(payload, ctx)
    if payload.get("then"):
        async with AsyncClient(os.environ["TASKMASTER_PLUGIN_TRACED_STORE"]) as client:
            await client.submit(payload["then"], {}, key="next")


@job("isolated", backoff=SOON, trace="child", isolation="process")
def isolated(payload: Payload, ctx: JobContext) -> str:
    """The same in a process of its own."""
    _work(payload, ctx)
    return ctx.trace_id


class Card(TypedDict):
    number: Annotated[str, Secret]
    brand: str


class Marked(TypedDict, total=False):
    card: Card
    cards: dict[str, Card]
    tokens: list[Annotated[str, Secret]]
    email: Annotated[str | None, Pii]
    either: Card | int
    gentle: bool


def _tell_all(payload: Marked, ctx: JobContext) -> None:
    """Fails for what its payload says, twice: then it is dead."""
    if payload.get("gentle"):
        return
    with trace.get_tracer("shop").start_as_current_span("pay"):
        error = f"cannot pay with {payload} or {payload['card']['number']!r}"
        raise ValueError(error) if ctx.attempt == 1 else Fatal(error)


@job("marked", backoff=SOON)
def marked(payload: Marked, ctx: JobContext) -> None:
    """Has secrets."""
    _tell_all(payload, ctx)


@job("marked-coroutine", backoff=SOON)
async def marked_coroutine(payload: Marked, ctx: JobContext) -> None:
    """Has secrets."""
    _tell_all(payload, ctx)


@job("marked-isolated", backoff=SOON, isolation="process")
def marked_isolated(payload: Marked, ctx: JobContext) -> None:
    """Has secrets."""
    _tell_all(payload, ctx)


@hookimpl
def register_jobs() -> list[Any]:
    return [linked, child, coroutine, isolated, marked, marked_coroutine, marked_isolated]
