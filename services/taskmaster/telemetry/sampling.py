"""Which spans are recorded: whoever began decides for all that follows, over links as well as over parents."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from opentelemetry.context import Context, create_key
from opentelemetry.sdk.trace.sampling import Decision, ParentBased, Sampler, SamplingResult, TraceIdRatioBased
from opentelemetry.trace import Link, SpanKind, TraceState

if TYPE_CHECKING:
    from opentelemetry.util.types import Attributes

__all__ = ["CHOSEN", "KeepDecision"]


#: The context of a root span that is to be recorded: whoever begins it has drawn already.
CHOSEN = Context({create_key("taskmaster-chosen"): True})


class KeepDecision(Sampler):
    """As its parent, else as what it is linked to, else by chance.

    Args:
        ratio: 0 to 1, of what begins here.
    """

    def __init__(self, ratio: float) -> None:
        self._usual = ParentBased(TraceIdRatioBased(ratio))

    def should_sample(
        self,
        parent_context: Context | None,
        trace_id: int,
        name: str,
        kind: SpanKind | None = None,
        attributes: Attributes = None,
        links: Sequence[Link] | None = None,
        trace_state: TraceState | None = None,
    ) -> SamplingResult:
        """Decide for one span."""
        if kind is SpanKind.CONSUMER and links:
            is_sampled = any(link.context.trace_flags.sampled for link in links)
            return SamplingResult(Decision.RECORD_AND_SAMPLE if is_sampled else Decision.DROP, attributes)
        if parent_context is CHOSEN:
            return SamplingResult(Decision.RECORD_AND_SAMPLE, attributes)
        return self._usual.should_sample(parent_context, trace_id, name, kind, attributes, links, trace_state)

    def get_description(self) -> str:
        """For people."""
        return "KeepDecision: as the parent, as the link, or by chance"
