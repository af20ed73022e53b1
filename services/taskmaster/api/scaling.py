"""How many workers are needed, in the shape that KEDA's metrics-api scaler reads: a flat object, one number a field."""

from __future__ import annotations

from collections.abc import Sequence

from litestar import get
from litestar.handlers import HTTPRouteHandler
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import FromPath

from taskmaster.api import flow_shapes
from taskmaster.api.problems import BadParameter
from taskmaster.api.queues import overview, queue_view
from taskmaster.api.service import Answer, AnyRequest, Service, data, of, only
from taskmaster.engine.queries import QueueView
from taskmaster.engine.queue_rules import queue_rules
from taskmaster.engine.rules import read_rules
from taskmaster.engine.scaling import WITHIN_MS, workers_needed
from taskmaster.settings import slots_of
from taskmaster.store.flow import Rules

__all__ = ["ROUTES"]

#: The last completed jobs of a queue whose run time counts.
TIMED = 100
SLOTS_MAX, WITHIN_MAX_S = 1_000_000, 86_400


@get("/scaling", summary="Workers that each queue needs", responses={200: ResponseSpec(flow_shapes.ScalingList)})
async def scaling(request: AnyRequest) -> Answer:
    """Of every queue: backlog, age of the oldest, rate, and workers needed; `slots` and `withinS` as below."""
    service = of(request)
    slots, within_ms = _asked(request)
    orders = await service.store.converse(read_rules(service.settings.partitions))
    found = [_shown(service, view, orders, slots, within_ms) for view in await overview(service, timed=TIMED)]
    return data(flow_shapes.ScalingList(items=found))


@get("/scaling/{queue:str}", summary="Workers that one queue needs", responses={200: ResponseSpec(flow_shapes.Scaling)})
async def scaling_of(request: AnyRequest, queue: FromPath[str]) -> Answer:
    """`slots`: jobs of the queue that one worker (one replica) runs at once; by default as this process's settings have it.

    `withinS`: in which time what waits is to have begun; by default the queue's SLA, else 60.
    """
    service = of(request)
    slots, within_ms = _asked(request)
    view = await queue_view(service, queue)
    orders = await service.store.converse(read_rules(service.settings.partitions))
    return data(_shown(service, view, orders, slots, within_ms))


def _asked(request: AnyRequest) -> tuple[int | None, int | None]:
    only(request, "slots", "withinS")
    slots, within_s = _number(request, "slots", SLOTS_MAX), _number(request, "withinS", WITHIN_MAX_S)
    return slots, within_s * 1_000 if within_s is not None else None


def _number(request: AnyRequest, name: str, most: int) -> int | None:
    text = request.query_params.get(name)
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= 7 and 1 <= int(text) <= most):
        raise BadParameter(f"{name} is a whole number from 1 to {most}", parameter=name)
    return int(text)


def _shown(service: Service, view: QueueView, orders: Sequence[Rules], slots: int | None, within_ms: int | None) -> flow_shapes.Scaling:
    rules, settings = queue_rules(orders, view.name), service.settings
    slots = slots or (rules.concurrency or slots_of(settings, view.name)) * settings.worker_processes
    within_ms = within_ms or rules.sla_ms or WITHIN_MS
    is_paused = rules.paused is not None
    return flow_shapes.Scaling(
        queue=view.name,
        backlog=view.counts.waiting,
        active=view.counts.active,
        oldest_waiting_ms=view.oldest_ms or 0,
        rate_per_minute=view.rate_per_minute,
        mean_run_ms=view.mean_run_ms,
        is_paused=is_paused,
        slots_per_worker=slots,
        within_ms=within_ms,
        workers_needed=workers_needed(view, slots=slots, within_ms=within_ms, is_paused=is_paused),
    )


ROUTES: list[HTTPRouteHandler] = [scaling, scaling_of]
