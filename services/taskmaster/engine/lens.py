"""What people are shown of a job: its payload without what is marked secret or pii, and where its trace is."""

from __future__ import annotations

from typing import Any

import msgspec

from taskmaster.engine.catalogue import Types
from taskmaster.errors import UnknownJobType
from taskmaster.model.job import Envelope
from taskmaster.model.trace import url_of
from taskmaster.plugins.marks import MASK, masked

__all__ = ["Lens"]

_HIDDEN = msgspec.Raw(msgspec.json.encode(MASK))


class Lens:
    """Made for one answer.

    Args:
        types: say what is marked. The payload of a type that is not among them is hidden whole: nobody knows what is in it.
        trace_template: the address of a trace, with {trace_id} in it.
        reveals: whether everything is shown; whoever may see that has been asked before, and it is in the audit.
    """

    def __init__(self, types: Types, trace_template: str | None, *, reveals: bool = False) -> None:
        self._types = types
        self._template = trace_template
        self._reveals = reveals

    def trace_url(self, trace_id: str) -> str | None:
        """Where people look at that trace."""
        return url_of(self._template, trace_id)

    def payload(self, envelope: Envelope) -> msgspec.Raw:
        """The payload as it may be shown."""
        if self._reveals:
            return envelope.payload
        try:
            validator = self._types.find(envelope.type)[1]
        except UnknownJobType:
            return _HIDDEN
        if not validator.is_marked:
            return envelope.payload
        return msgspec.Raw(msgspec.json.encode(masked(msgspec.json.decode(envelope.payload), validator.schema)))

    def value(self, job_type: str, payload: Any) -> Any:
        """The same of a payload that is no job's."""
        return self.payload(Envelope(job_type, msgspec.Raw(msgspec.json.encode(payload))))
