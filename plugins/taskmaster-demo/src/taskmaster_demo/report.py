"""A long job that tells how far it is and can be cancelled between two pages."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from taskmaster_sdk import JobContext, job

__all__ = ["Report", "generate_report"]


@dataclass
class Report:
    """What to write.

    Attributes:
        title: of the report.
        pages: how many.
        pageMs: milliseconds of work in each.
    """

    title: str
    pages: int = 10
    pageMs: int = 200  # noqa: N815 - as on the wire


@job("generate-report", queue="report-queue", attempts=3, timeout_s=600, example={"title": "Quarterly figures", "pages": 10, "pageMs": 200})
def generate_report(payload: Report, ctx: JobContext) -> dict[str, Any]:
    """Write a report page by page, with progress."""
    began = time.monotonic()
    words = 0
    for page in range(1, payload.pages + 1):
        ctx.check()
        time.sleep(max(0, payload.pageMs) / 1_000)
        words += len(f"{payload.title}, page {page} of {payload.pages}".split())
        ctx.progress(page / payload.pages, f"page {page} of {payload.pages}")
    took_ms = round((time.monotonic() - began) * 1_000)
    summary = f"{payload.title}: {max(0, payload.pages)} pages, {words} words"
    return {"title": payload.title, "pages": max(0, payload.pages), "words": words, "tookMs": took_ms, "summary": summary}
