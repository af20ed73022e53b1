"""What the routes share: one store, one gatherer, one catalogue, one reader of events for each API process."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any, cast
from urllib.parse import quote

from litestar import Request
from litestar.response.base import ASGIResponse

from taskmaster.api import shapes
from taskmaster.api.catalogue import Catalogue
from taskmaster.api.gather import Gather
from taskmaster.api.problems import BadParameter
from taskmaster.api.waiting import Waiting
from taskmaster.errors import NotFound
from taskmaster.model.ids import is_job_id, partition_of
from taskmaster.settings import Settings
from taskmaster.store.aio import AsyncStore

__all__ = ["LIMIT_DEFAULT", "LIMIT_MAX", "AnyRequest", "Service", "data", "job_id_of", "limit_of", "of", "only"]

AnyRequest = Request[Any, Any, Any]
LIMIT_DEFAULT, LIMIT_MAX = 50, 200
_HEADERS = {"cache-control": "no-store", "x-content-type-options": "nosniff"}


@dataclass(slots=True)
class Service:
    """The parts behind the routes."""

    settings: Settings
    store: AsyncStore
    gather: Gather
    catalogue: Catalogue
    waiting: Waiting
    started: float = field(default_factory=time.monotonic)

    def partition(self, job_id: str) -> int:
        """Where the job is."""
        return partition_of(job_id, self.settings.partitions)

    @property
    def partitions(self) -> range:
        """All of them."""
        return range(self.settings.partitions)


def of(request: AnyRequest) -> Service:
    """The application's parts."""
    return cast("Service", request.app.state["service"])


def data(answer: Any, status: int = 200, headers: dict[str, str] | None = None) -> ASGIResponse:
    """An answer of ours as JSON."""
    return ASGIResponse(body=shapes.encode(answer), status_code=status, headers=_HEADERS | headers if headers else _HEADERS)


def job_id_of(text: str) -> str:
    """*text*, if it is spelt like a job id.

    Raises:
        NotFound: it is not, so there can be no such job.
    """
    if not is_job_id(text):
        shown = text[:64].encode("utf-8", "backslashreplace").decode()
        raise NotFound(f"there is no job {shown!r}", jobId=shown)
    return text


def only(request: AnyRequest, *known: str) -> None:
    """Refuse query parameters that would otherwise be ignored.

    Raises:
        BadParameter: one is not *known* here.
    """
    for name in request.query_params:
        if name not in known:
            shown = quote(name[:64])
            raise BadParameter(f"unknown parameter {shown!r}; known are: {', '.join(known) or 'none'}", parameter=shown)


def limit_of(text: str | None) -> int:
    """Rows a page, 1 to 200; 50 when not given.

    Raises:
        BadParameter: something else was given.
    """
    if text is None:
        return LIMIT_DEFAULT
    if not (text.isascii() and text.isdigit() and len(text) <= 4 and 1 <= int(text) <= LIMIT_MAX):
        raise BadParameter(f"limit is {quote(text[:32])!r}; 1 to {LIMIT_MAX} is meant", parameter="limit")
    return int(text)
