"""Job types over HTTP: the catalogue."""

from __future__ import annotations

from litestar import get
from litestar.handlers import HTTPRouteHandler
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import FromPath

from taskmaster.api import shapes, views
from taskmaster.api.service import Answer, AnyRequest, data, of, only
from taskmaster.engine.catalogue import AT_ONCE_S
from taskmaster.engine.submit import unknown_type
from taskmaster.errors import NotFound, UnknownJobType

__all__ = ["ROUTES"]


@get("/job-types", summary="All job types", responses={200: ResponseSpec(shapes.JobTypeList)})
async def list_types(request: AnyRequest) -> Answer:
    """What workers have published: schema, policy, defaults, plugin."""
    service = of(request)
    only(request)
    await service.catalogue.look(AT_ONCE_S)
    required = service.settings.idempotency == "required"
    items = [views.type_of(entry, key_required_by_default=required) for entry in service.catalogue.types.entries.values()]
    return data(shapes.JobTypeList(items=items))


@get("/job-types/{job_type:str}", summary="One job type", responses={200: ResponseSpec(shapes.JobType)})
async def show_type(request: AnyRequest, job_type: FromPath[str]) -> Answer:
    """Schema, policy, example, plugin, version."""
    service = of(request)
    only(request)
    try:
        entry, _ = await service.catalogue.of(job_type)
    except UnknownJobType:
        unknown = unknown_type(job_type, service.catalogue.types.entries)
        raise NotFound(unknown.message, **unknown.facts) from None
    return data(views.type_of(entry, key_required_by_default=service.settings.idempotency == "required"))


ROUTES: list[HTTPRouteHandler] = [list_types, show_type]
