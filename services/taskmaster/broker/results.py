"""What a handler returned, as it is stored: JSON, or, where that is too large to stand beside a job, a reference to an artifact with it."""

from __future__ import annotations

from typing import Any

import msgspec

from taskmaster.model.outcome import RESULT_MAX, Rejected, encode_result
from taskmaster_sdk.artifacts import Artifacts

__all__ = ["kept_result"]


def _permit() -> None:
    """The end of the attempt is judged by the store."""


def kept_result(result: Any, job_id: str, artifacts: Artifacts) -> str:
    """JSON of at most RESULT_MAX bytes.

    A late attempt may write its artifact, too: the store refuses the result with its reference, so nobody hears of it.

    Raises:
        Rejected: it is not JSON, or is too large and cannot be stored as an artifact either.
    """
    text = encode_result(result)
    size = len(text) if text.isascii() else len(text.encode())
    if size <= RESULT_MAX:
        return text
    try:
        reference = artifacts.write(job_id, "result.json", text.encode(), "application/json", _permit)
    except Exception as error:
        message = (
            f"the result is {size} bytes, at most {RESULT_MAX} are kept with a job, and as an artifact it could not be stored: "
            f"{type(error).__name__}: {error}; store large data with ctx.artifact and return the reference"
        )
        raise Rejected("result_rejected", message) from error
    return msgspec.json.encode(reference).decode()
