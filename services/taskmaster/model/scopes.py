"""What a caller of the API may do. There is no authentication yet: every caller holds the scopes that the API process is given."""

from __future__ import annotations

from typing import Final, Literal

__all__ = ["ORDINARY", "Scope"]

Scope = Literal[
    "jobs:submit",
    "jobs:cancel",
    "jobs:delete",
    "dlq:replay",
    "dlq:discard",
    "effects:settle",
    "payload:reveal",
    "audit:read",
    "webhooks:manage",
]
#: All but what destroys records, or shows what is marked secret or pii.
ORDINARY: Final[tuple[Scope, ...]] = ("jobs:submit", "jobs:cancel", "dlq:replay", "effects:settle", "audit:read", "webhooks:manage")
