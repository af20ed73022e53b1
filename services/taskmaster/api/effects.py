"""Effects over HTTP: those that nobody was heard of since, those of a job, and a person's word on one."""

from __future__ import annotations

import re
from typing import Annotated

import msgspec
from litestar import get, post
from litestar.handlers import HTTPRouteHandler
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import FromPath, QueryParameter

from taskmaster.api import bodies, cursor, shapes, views
from taskmaster.api.documents import with_body
from taskmaster.api.problems import BadParameter
from taskmaster.api.service import Answer, AnyRequest, data, limit_of, of, only
from taskmaster.engine import effects as engine
from taskmaster.engine import queries, strict
from taskmaster.errors import NotFound
from taskmaster.model.ids import is_job_id
from taskmaster.store import effects

__all__ = ["ROUTES", "SettleBody"]

Text = Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
_EFFECT = re.compile(r"[0-9a-f]{32}")


class SettleBody(msgspec.Struct, forbid_unknown_fields=True):
    """What a person found out about an effect, and how."""

    happened: bool
    reason: Text
    by: Text


@get("/effects", summary="Effects that are not settled, oldest first", responses={200: ResponseSpec(shapes.EffectList)})
async def list_effects(
    request: AnyRequest,
    wanted: Annotated[str | None, QueryParameter(name="state", description="unknown or running; without it both")] = None,
    after: Annotated[str | None, QueryParameter(name="cursor", description="nextCursor of the page before")] = None,
    rows: Annotated[str | None, QueryParameter(name="limit", description="1 to 200")] = None,
) -> Answer:
    """unknown: an attempt had the licence and was not heard of since. A page may be short, even empty, and still have a next one."""
    service = of(request)
    only(request, "state", "cursor", "limit")
    if wanted not in (None, "unknown", "running"):
        raise BadParameter("state is unknown or running", parameter="state")
    limit = limit_of(rows)
    place = cursor.unpack(after, "effects", wanted or "")
    pages = [await service.store.run(effects.unsettled(p, after=place, limit=limit)) for p in service.partitions]
    found, place_next = engine.merge(pages, limit)
    word = cursor.pack(place_next, "effects", wanted or "")
    items = [views.effect_of(view) for view in found if wanted in (None, view.state)]
    answer = shapes.EffectList(items=items, next_cursor=word)
    if word is None:
        return data(answer)
    return data(answer, headers={"link": cursor.next_link("/effects", word, state=wanted, limit=rows)})


@get("/jobs/{job_id:str}/effects", summary="The effects of a job and its replays", responses={200: ResponseSpec(shapes.EffectList)})
async def list_effects_of_job(request: AnyRequest, job_id: FromPath[str]) -> Answer:
    """Everything that the job, what it is a replay of, and its own replays asked a licence for; oldest first."""
    service = of(request)
    only(request)
    known = queries.id_of(job_id)
    ledger = await service.store.run(effects.lineage(service.partition(known), known))
    if ledger is None:
        raise NotFound(f"there is no job {known}, or no longer", jobId=known)
    return data(shapes.EffectList(items=[views.effect_of(view) for view in engine.of_ledger(ledger)]))


@post(
    "/effects/{effect_id:str}/settle",
    status_code=200,
    summary="Say what became of an effect",
    responses={200: ResponseSpec(shapes.EffectSettled)},
    operation_class=with_body(SettleBody),
)
async def settle_effect(request: AnyRequest, effect_id: FromPath[str]) -> Answer:
    """Kept with who said it and why. Refused with 409 while an attempt is, or may still be, at it."""
    service = of(request)
    service.require("effects:settle")
    root_id, _, effect = effect_id.partition(".")
    if not is_job_id(root_id) or not _EFFECT.fullmatch(effect):
        shown = effect_id[:80].encode("utf-8", "backslashreplace").decode()
        raise NotFound(f"there is no effect {shown!r}", effectId=shown)
    body = strict.convert(strict.decode(await bodies.read(request, 4_096)), SettleBody)
    partition, at_it_ms = service.partition(root_id), service.settings.lease_ms
    call = effects.settle(partition, root_id, effect, happened=body.happened, who=body.by, reason=body.reason, at_it_ms=at_it_ms)
    engine.settled(root_id, effect, await service.store.run(call))
    return data(shapes.EffectSettled(effect_id=effect_id, state="done" if body.happened else "not_done"))


ROUTES: list[HTTPRouteHandler] = [list_effects, list_effects_of_job, settle_effect]
