"""Endpoints that are told of ends of jobs, over HTTP; their deliveries, which are jobs like any others."""

from __future__ import annotations

from typing import Annotated

from litestar import delete, get, post, put
from litestar.handlers import HTTPRouteHandler
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import FromPath, QueryParameter

from taskmaster.api import bodies, cursor, shapes, webhook_shapes
from taskmaster.api.documents import with_body
from taskmaster.api.jobs import ReplayBody, replay_answer, replay_request
from taskmaster.api.orders import OrderBody, etag, known_revision, word, word_of
from taskmaster.api.service import Answer, AnyRequest, data, limit_of, of, only, sending_of
from taskmaster.api.submission import accept, store
from taskmaster.engine import deliveries, queries, strict
from taskmaster.engine.webhooks import (
    Endpoint,
    change_endpoint,
    delete_endpoint,
    find_endpoint,
    has_deliveries,
    list_endpoints,
    make_endpoint,
    new_endpoint_secret,
    redelivery,
    test_delivery,
)
from taskmaster.model.webhooks import DELIVERY
from taskmaster.store import reads

__all__ = ["ROUTES"]

BODY_MAX = 65_536


@get("/webhooks", summary="All webhooks", responses={200: ResponseSpec(webhook_shapes.WebhookList)})
async def list_all(request: AnyRequest) -> Answer:
    """Endpoints that are told of ends of jobs. Their secrets are not shown."""
    service = of(request)
    only(request)
    now_ms = await service.store.now_ms()
    found = await service.store.converse(list_endpoints())
    return data(webhook_shapes.WebhookList(items=[webhook_shapes.webhook_of(view, now_ms) for view in found]))


@get("/webhooks/{webhook:str}", summary="One webhook", responses={200: ResponseSpec(webhook_shapes.Webhook)})
async def show(request: AnyRequest, webhook: FromPath[str]) -> Answer:
    """The same of one."""
    service = of(request)
    only(request)
    view = await service.store.converse(find_endpoint(webhook))
    return data(webhook_shapes.webhook_of(view, await service.store.now_ms()), headers=etag(view.revision))


@post(
    "/webhooks",
    status_code=201,
    summary="Make a webhook",
    responses={201: ResponseSpec(webhook_shapes.WebhookMade)},
    operation_class=with_body(Endpoint),
)
async def make(request: AnyRequest) -> Answer:
    """201 with its secret, which is shown this once: it signs what the URL is sent, by Standard Webhooks. Told is what ends from now on."""
    service = of(request)
    only(request)
    service.require("webhooks:manage")
    wanted = strict.convert(strict.decode(await bodies.read(request, BODY_MAX)), Endpoint)
    now_ms = await service.store.now_ms()
    talk = make_endpoint(wanted, word_of(None, ""), partitions=service.settings.partitions)
    view, secret = await service.store.converse(talk)
    return data(webhook_shapes.webhook_made(view, now_ms, secret), 201, {"location": f"/webhooks/{view.id}"} | etag(view.revision))


@put(
    "/webhooks/{webhook:str}",
    status_code=200,
    summary="Change a webhook",
    responses={200: ResponseSpec(webhook_shapes.Webhook)},
    operation_class=with_body(Endpoint),
)
async def change(request: AnyRequest, webhook: FromPath[str]) -> Answer:
    """All of it but its secret, which stays unless one is given: then that signs, and for a day those before it as well. `disabled` false
    enables it again. If-Match: only if nobody has changed it.
    """
    service = of(request)
    only(request)
    service.require("webhooks:manage")
    wanted = strict.convert(strict.decode(await bodies.read(request, BODY_MAX)), Endpoint)
    now_ms, settings = await service.store.now_ms(), service.settings
    talk = change_endpoint(webhook, wanted, word_of(None, ""), partitions=settings.partitions, now_ms=now_ms, known=known_revision(request))
    view = await service.store.converse(talk)
    return data(webhook_shapes.webhook_of(view, now_ms), headers=etag(view.revision))


@post(
    "/webhooks/{webhook:str}/rotate",
    status_code=200,
    summary="Make a new secret for a webhook",
    responses={200: ResponseSpec(webhook_shapes.WebhookMade)},
    operation_class=with_body(OrderBody),
)
async def rotate(request: AnyRequest, webhook: FromPath[str]) -> Answer:
    """The new secret is shown this once. What it had signs as well for a day, so that the receiver has the time to change."""
    service = of(request)
    only(request)
    service.require("webhooks:manage")
    order, now_ms = await word(request), await service.store.now_ms()
    talk = new_endpoint_secret(webhook, order, partitions=service.settings.partitions, now_ms=now_ms, known=known_revision(request))
    view, secret = await service.store.converse(talk)
    return data(webhook_shapes.webhook_made(view, now_ms, secret), headers=etag(view.revision))


@delete("/webhooks/{webhook:str}", status_code=204, summary="Delete a webhook")
async def delete_one(request: AnyRequest, webhook: FromPath[str]) -> None:
    """With its secrets. Deliveries that have not been made are discarded when they are due."""
    service = of(request)
    only(request)
    service.require("webhooks:manage")
    known = known_revision(request)
    await service.store.converse(delete_endpoint(webhook, word_of(None, ""), partitions=service.settings.partitions, known=known))


@post("/webhooks/{webhook:str}/test", status_code=202, summary="Send a test event", responses={202: ResponseSpec(shapes.Accepted)})
async def test(request: AnyRequest, webhook: FromPath[str]) -> Answer:
    """A delivery of an event `webhook.test`, to be followed as a job."""
    service = of(request)
    only(request)
    service.require("webhooks:manage")
    talk = test_delivery(webhook, partitions=service.settings.partitions, now_ms=await service.store.now_ms())
    accepted = await accept(service, await store(service, await service.store.converse(talk)))
    return data(accepted, 202, {"location": f"/jobs/{accepted.job_id}"})


@get(
    "/webhooks/{webhook:str}/deliveries",
    summary="Deliveries of a webhook, newest first",
    responses={200: ResponseSpec(webhook_shapes.WebhookDeliveryList)},
)
async def list_deliveries(
    request: AnyRequest,
    webhook: FromPath[str],
    after: Annotated[str | None, QueryParameter(name="cursor", description="nextCursor of the page before")] = None,
    rows: Annotated[str | None, QueryParameter(name="limit", description="1 to 200")] = None,
) -> Answer:
    """As long as retention keeps them. `callback` in place of an id: those of jobs' callbacks. A page may be short and have a next one."""
    service = of(request)
    only(request, "cursor", "limit")
    await service.store.converse(has_deliveries(webhook))
    limit = limit_of(rows)
    place = cursor.unpack(after, "webhooks", webhook)
    tag = deliveries.tag_of(webhook)
    kind = DELIVERY  # anybody may give a job of theirs this tag
    pages = [await service.store.run(reads.find(p, "tagged", job_type=kind, tag=tag, after=place, limit=limit)) for p in service.partitions]
    found, place_next = queries.merge_pages(pages, limit)
    next_word = cursor.pack(place_next, "webhooks", webhook)
    items = [webhook_shapes.delivery_of(queries.summary_of(row)) for row in found]
    answer = webhook_shapes.WebhookDeliveryList(items=items, next_cursor=next_word)
    if next_word is None:
        return data(answer)
    return data(answer, headers={"link": cursor.next_link(f"/webhooks/{webhook}/deliveries", next_word, limit=rows)})


@post(
    "/webhooks/{webhook:str}/deliveries/{job_id:str}/redeliver",
    status_code=202,
    summary="Deliver again",
    responses={202: ResponseSpec(shapes.Replayed)},
    operation_class=with_body(ReplayBody),
)
async def redeliver(request: AnyRequest, webhook: FromPath[str], job_id: FromPath[str]) -> Answer:
    """A replay of a delivery that has ended, whatever way: the same event under the same `webhook-id`, to where the webhook is now. An
    Idempotency-Key header makes a repeat safe.
    """
    service = of(request)
    only(request)
    service.require("webhooks:manage")
    with sending_of(request) as span:
        wanted = await replay_request(request, span.traceparent)
        now_ms = await service.store.now_ms()
        talk = redelivery(webhook, job_id, wanted, partitions=service.settings.partitions, now_ms=now_ms)
        return await replay_answer(service, await service.store.converse(talk), span)


ROUTES: list[HTTPRouteHandler] = [list_all, show, make, change, rotate, delete_one, test, list_deliveries, redeliver]
