"""What the checklist answers: one finding a rule, with what was seen, why it matters and what to do."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal, NamedTuple

import msgspec

__all__ = ["Finding", "Rule", "Severity", "named"]

Severity = Literal["ok", "warning", "error", "skipped"]
#: Names that are spelt out in a line for people; the facts have all of them.
NAMED = 8


class Finding(msgspec.Struct, frozen=True, rename="camel"):
    """One rule and what came of it.

    Attributes:
        rule: stable id. A rule about parts, such as partitions or plugins, has one finding a part, which its facts name.
        severity: error: jobs are lost, refused or never run; warning: they may be, or wait, or nobody would notice; skipped: it could not
            be looked at, and `observed` says why.
        observed: what was found, one line.
        why: why it matters.
        fix: what to do; empty where nothing is to be done.
        facts: the same for programs; JSON values, keys in camelCase.
    """

    rule: str
    severity: Severity
    observed: str
    why: str
    fix: str = ""
    facts: Mapping[str, Any] = {}


class Rule(NamedTuple):
    """A rule's words, so that what is said of it is said once."""

    id: str
    why: str
    fix: str

    def ok(self, observed: str, facts: Mapping[str, Any] | None = None) -> Finding:
        """Nothing is to be done."""
        return Finding(self.id, "ok", observed, self.why, facts=facts or {})

    def skipped(self, reason: str, facts: Mapping[str, Any] | None = None, *, fix: str = "") -> Finding:
        """It could not be looked at."""
        return Finding(self.id, "skipped", reason, self.why, fix, facts or {})

    def warning(self, observed: str, facts: Mapping[str, Any] | None = None, *, fix: str = "") -> Finding:
        """Something should be done; *fix* where it is not the usual."""
        return Finding(self.id, "warning", observed, self.why, fix or self.fix, facts or {})

    def error(self, observed: str, facts: Mapping[str, Any] | None = None, *, fix: str = "") -> Finding:
        """Something must be done."""
        return Finding(self.id, "error", observed, self.why, fix or self.fix, facts or {})


def named(names: Iterable[str]) -> str:
    """Names for people: the first eight, and how many more."""
    known = sorted(names)
    more = f" and {len(known) - NAMED} more" if len(known) > NAMED else ""
    return ", ".join(known[:NAMED]) + more
