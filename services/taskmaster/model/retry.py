"""When to try again."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Annotated, Literal

import msgspec

__all__ = ["DEFAULT", "Backoff", "delay_ms", "schedule_ms"]

BackoffKind = Literal["exponential", "fixed", "linear", "list"]
#: 31 days: nothing waits longer between two attempts.
LONGEST_MS = 31 * 86_400_000


class Backoff(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel", omit_defaults=True):
    """The wire form of a backoff policy; the rule is `delay_ms`. Times in milliseconds."""

    kind: BackoffKind = "exponential"
    delay_ms: Annotated[int, msgspec.Meta(ge=0, le=LONGEST_MS)] = 1_000
    max_ms: Annotated[int, msgspec.Meta(ge=0, le=LONGEST_MS)] = 3_600_000
    jitter: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.0
    delays_ms: Annotated[tuple[Annotated[int, msgspec.Meta(ge=0, le=LONGEST_MS)], ...], msgspec.Meta(max_length=100)] = ()


DEFAULT = Backoff()


def delay_ms(backoff: Backoff, failures: int, draw: Callable[[], float] = random.random) -> int:
    """Milliseconds to wait after the *failures*-th failure (1, 2, …).

    fixed d; linear d*n; exponential d*2^(n-1); list: the n-th entry, the last one repeating. Never above `max_ms`; jitter j takes off a
    random share of at most j, so that failures that came together do not come back together.
    """
    if backoff.kind == "list":
        delay = backoff.delays_ms[min(failures, len(backoff.delays_ms)) - 1] if backoff.delays_ms else backoff.delay_ms
    elif backoff.kind == "linear":
        delay = backoff.delay_ms * failures
    elif backoff.kind == "exponential":
        delay = backoff.delay_ms << min(failures - 1, 40)
    else:
        delay = backoff.delay_ms
    delay = min(delay, backoff.max_ms)
    return delay if not backoff.jitter else int(delay * (1 - backoff.jitter * draw()))


def schedule_ms(backoff: Backoff, attempts: int) -> list[int]:
    """The waits between *attempts* executions, jitter left out: what the API shows."""
    plain = msgspec.structs.replace(backoff, jitter=0.0)
    return [delay_ms(plain, n) for n in range(1, attempts)]
