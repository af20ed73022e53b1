"""The application: routes, their parts, and the one way in which errors leave."""

from __future__ import annotations

import re
import time
from functools import cache
from typing import Any

from litestar import Litestar, Request, Response, get
from litestar.datastructures import State
from litestar.openapi import OpenAPIConfig
from litestar.response.base import ASGIResponse

import taskmaster
from taskmaster.api import (
    audit,
    bodies,
    breakers,
    dlq,
    effects,
    feed,
    groups,
    health,
    jobs,
    limits,
    operations,
    origin,
    output,
    problems,
    queues,
    records,
    scaling,
    schedules,
    stats,
    submission,
    tenants,
    types,
    webhooks,
    workers,
)
from taskmaster.api.metrics import Scrape
from taskmaster.api.problems import CrossSite
from taskmaster.api.service import Answer, AnyRequest, Service, data, only
from taskmaster.api.watch import Watch
from taskmaster.engine.artifacts import artifacts_of
from taskmaster.engine.catalogue import Catalogue
from taskmaster.engine.enqueue import AsyncEnqueuer
from taskmaster.engine.gather import Gather
from taskmaster.engine.pressure import PressureGauge
from taskmaster.engine.waiting import Waiting
from taskmaster.errors import ConfigurationError, StoreError
from taskmaster.settings import Settings
from taskmaster.store.aio import AsyncStore
from taskmaster.telemetry import events, logs, tracing
from taskmaster.telemetry.meters import ApiMeter
from taskmaster.telemetry.metrics import OTHER

__all__ = ["create_app", "end_waits"]

#: The path of a submission, with POST.
_SUBMIT = "/jobs"
_HOST = re.compile(rb"[a-zA-Z0-9.-]+(:[0-9]+)?")
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


def create_app(settings: Settings) -> Litestar:
    """The REST API over the store of *settings*. Nothing is connected before start-up, and start-up does not need the store.

    Raises:
        ConfigurationError: the settings name no store.
    """
    if not settings.redis_url:
        raise ConfigurationError("the API needs a store: set TASKMASTER_REDIS_URL, or run `taskmaster up`", name="redis_url")
    timeout_s = settings.store_timeout_ms / 1_000
    meter = ApiMeter()
    store = AsyncStore(settings.redis_url, timeout_s=timeout_s, meter=meter)
    gather = Gather(store.channel, settings.partitions, timeout_s)
    watch = Watch(store, settings.partitions, is_strict=settings.durability == "strict")
    service = Service(
        settings=settings,
        store=store,
        gather=gather,
        enqueuer=AsyncEnqueuer(gather, store),
        catalogue=Catalogue(store, _unusable),
        waiting=Waiting(store, settings.partitions, block_ms=min(1_000, settings.store_timeout_ms // 2)),
        watch=watch,
        pressure=PressureGauge(store, settings),
        scrape=Scrape(store, settings.partitions, watch, meter),
        artifacts=artifacts_of(settings),
        is_traced=tracing.is_on(settings),
    )

    async def start() -> None:
        try:
            await service.catalogue.look()
            await service.store.now_ms()
        except StoreError as error:
            logs.get().warning(events.STORE_LOST, error=str(error))
        service.catalogue.start()
        service.watch.start()
        service.pressure.start()

    async def stop() -> None:
        service.waiting.close()
        await service.watch.stop()
        await service.pressure.stop()
        await service.catalogue.stop()
        await service.gather.close()
        await service.store.close()

    return _Api(
        meter,
        route_handlers=[*_ROUTES, openapi_document],
        on_startup=[start],
        on_shutdown=[stop],
        exception_handlers={Exception: _problem},
        openapi_config=None,  # with one, the framework serves pages that load from outside hosts
        request_max_body_size=submission.BULK_BODIES * settings.max_body_bytes,
        state=State({"service": service}),
        logging_config=None,
        debug=False,
        pdb_on_exception=False,
    )


class _Api(Litestar):
    """Counts and times all requests, those that no route takes too, and knows the short way to the submission of a job."""

    def __init__(self, meter: ApiMeter, **parts: Any) -> None:
        super().__init__(**parts)
        self._meter = meter

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await super().__call__(scope, receive, send)
            return
        began_at, status = time.perf_counter(), 500

        async def noting(message: Any) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        method = scope["method"]
        try:
            origin.check(method, scope["headers"])
            if scope["path"] == _SUBMIT and method == "POST" and _is_plain(scope):
                await self._submit(scope, receive, noting)
            else:
                await super().__call__(scope, receive, noting)
        except CrossSite as error:
            await self._refuse(error, scope, receive, noting)
        finally:
            self._meter.answered(method if method in _METHODS else OTHER, scope.get("path_template") or OTHER, status, began_at)

    async def _submit(self, scope: Any, receive: Any, send: Any) -> None:
        """POST /jobs past the framework's routes, layers and tables of arguments: a third of a submission's time, and nothing is among them
        that it needs.
        """
        scope["path_template"] = _SUBMIT
        request = self._request(scope, receive, send)
        try:
            answer: ASGIResponse = await submission.submit.fn(request)
        except Exception as error:
            await self._refuse(error, scope, receive, send)
        else:
            await answer(scope, receive, send)

    async def _refuse(self, error: Exception, scope: Any, receive: Any, send: Any) -> None:
        request = self._request(scope, receive, send)
        await _problem(request, error).to_asgi_response(None, request)(scope, receive, send)

    def _request(self, scope: Any, receive: Any, send: Any) -> AnyRequest:
        scope["app"] = scope["litestar_app"] = self
        scope.setdefault("state", {})
        return Request(scope, receive, send)


def _is_plain(scope: Any) -> bool:
    """Whether the framework would have no question about where the request is for."""
    return not scope.get("root_path") and all(_HOST.fullmatch(value) for name, value in scope["headers"] if name == b"host")


def _unusable(job_type: str, why: str) -> None:
    logs.get().warning(events.PLUGIN_FAILED, type=job_type, error=why)


def end_waits(app: Litestar) -> None:
    """Answer everybody who waits for a job now: a server that stops first waits for open requests. For the loop's signal handlers."""
    app.state["service"].waiting.close()


def _problem(request: AnyRequest, error: Exception) -> Response[bytes]:
    made = problems.answer(request, error)
    closing = {"connection": "close"} if bodies.is_left(request) else {}
    return Response(made.body, status_code=made.status_code, media_type=problems.MEDIA_TYPE, headers=dict(made.headers.items()) | closing)


@get("/openapi.json", include_in_schema=False)
async def openapi_document(request: AnyRequest) -> Answer:
    """The contract as OpenAPI 3.1."""
    only(request)
    return data(_document())


@cache
def _document() -> dict[str, Any]:
    """Made by an application that is never served."""
    config = OpenAPIConfig(title="TaskMaster", version=taskmaster.__version__)
    return Litestar(route_handlers=_ROUTES, openapi_config=config, logging_config=None).openapi_schema.to_schema()


_ROUTES = [
    *submission.ROUTES,
    *jobs.ROUTES,
    *records.ROUTES,
    *groups.ROUTES,
    *audit.ROUTES,
    *dlq.ROUTES,
    *effects.ROUTES,
    *operations.ROUTES,
    *output.ROUTES,
    *feed.ROUTES,
    *queues.ROUTES,
    *breakers.ROUTES,
    *types.ROUTES,
    *tenants.ROUTES,
    *limits.ROUTES,
    *workers.ROUTES,
    *schedules.ROUTES,
    *webhooks.ROUTES,
    *scaling.ROUTES,
    *stats.ROUTES,
    *health.ROUTES,
]
