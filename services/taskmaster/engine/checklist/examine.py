"""All rules, in the order in which they are told."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from taskmaster.engine.checklist import fleet, queues, store, types, webhooks
from taskmaster.engine.checklist.facts import Facts
from taskmaster.engine.checklist.findings import Finding, Severity

__all__ = ["RULES", "examine", "has"]

RULES: tuple[Callable[[Facts], list[Finding]], ...] = (*store.RULES, *fleet.RULES, *queues.RULES, *webhooks.RULES, *types.RULES)


def examine(facts: Facts) -> list[Finding]:
    """What every rule says of *facts*. No I/O."""
    return [finding for rule in RULES for finding in rule(facts)]


def has(findings: Sequence[Finding], *severities: Severity) -> bool:
    """Whether one of them is as severe as that."""
    return any(finding.severity in severities for finding in findings)
