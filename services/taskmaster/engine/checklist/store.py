"""Rules about the store: its configuration, its clock, its sweeps and losses."""

from __future__ import annotations

import msgspec

from taskmaster.engine.checklist.facts import Facts, Swept
from taskmaster.engine.checklist.findings import Finding, Rule, Severity
from taskmaster.store.safety import Finding as StoreFinding
from taskmaster.store.safety import Level

__all__ = ["RULES"]

#: Lines of the sweeper's report that are spelt out; the facts have all that were read.
SHOWN = 10
#: Clocks that differ by so much make times hard to compare. Nothing fails for it: whoever submits aligns to the store's clock.
SKEW_MS = 2_000

_SEVERITY: dict[Level, Severity] = {"ok": "ok", "info": "skipped", "warn": "warning", "refuse": "error"}
_CLOCK = Rule(
    "clock-skew",
    "the store's clock decides when jobs are due, expire and run out of their leases: instants that this machine gives (runAt, expiresAt) "
    "are off by as much, and its logs cannot be held against the store's times",
    "let NTP or chrony keep the clocks of this machine and of the store",
)
_SWEEP = Rule(
    "sweep",
    "records and indexes that did not fit were changed by somebody else, or by a defect",
    "what was not mended needs a person: ops/runbooks/TaskMasterStoreLostData.md",
)
_LOSS = Rule(
    "loss",
    "jobs of the lost time may be gone, back, or run again",
    "a sweep is due: wait for it, or taskmaster doctor --sweep; then ops/runbooks/TaskMasterStoreLostData.md",
)


def configuration(facts: Facts) -> list[Finding]:
    """What the store's configuration keeps. Snapshots alone are an error here, though workers start: they lose minutes of accepted jobs."""
    return [_configured(finding) for finding in facts.policy]


def _configured(finding: StoreFinding) -> Finding:
    severity = _SEVERITY[finding.level]
    if finding.rule == "persistence" and finding.level == "warn":
        severity = "error"
    return Finding(finding.rule, severity, finding.observed, finding.why, finding.fix, {"refused": finding.level == "refuse"})


def clock_skew(facts: Facts) -> list[Finding]:
    """The store's clock and ours agree."""
    skew_ms = facts.skew_ms
    told = {"skewMs": skew_ms}
    if abs(skew_ms) < SKEW_MS:
        return [_CLOCK.ok(f"the store's clock is {abs(skew_ms)} ms {'ahead of' if skew_ms >= 0 else 'behind'} ours", told)]
    text = f"the store's clock is {abs(skew_ms) / 1_000:.1f} s {'ahead of' if skew_ms > 0 else 'behind'} ours"
    return [_CLOCK.warning(text, told)]


def sweeps(facts: Facts) -> list[Finding]:
    """What the last sweep found, a finding each partition; and whether the store has lost something."""
    found = []
    for partition, swept in enumerate(facts.store.swept):
        where = f"partition {partition}: " if len(facts.store.swept) > 1 else ""
        found.append(_sweep(facts, partition, swept, where))
        state = swept.state
        if state.lost_at:
            text = f"{where}{_ago(facts, state.lost_at)} the store was {state.how}"
            told = {"partition": partition, "how": state.how, "sign": state.sign, "isChecked": state.is_checked}
            found.append(_LOSS.ok(f"{text}; a sweep has ended since", told) if state.is_checked else _LOSS.warning(text, told))
    return found


def _sweep(facts: Facts, partition: int, swept: Swept, where: str) -> Finding:
    last = swept.state.last
    if last is None:
        hint = "workers sweep every ten minutes; taskmaster doctor --sweep does it now"
        return _SWEEP.skipped(f"{where}no sweep has ended yet", {"partition": partition}, fix=hint)
    rows = [row for row in swept.state.repairs if row.at >= swept.since_ms]
    text = f"{where}{_ago(facts, last.ended)}: {last.looked} rows, {last.mended} mended, {last.found} not"
    told = {"partition": partition, "mended": last.mended, "unmended": last.found, "repairs": [msgspec.to_builtins(row) for row in rows]}
    if not rows:
        return _SWEEP.ok(text, told)
    lines = [f"{row.what} {row.id} {row.where}".rstrip() for row in rows]
    more = f" and {len(lines) - SHOWN} more" if len(lines) > SHOWN else ""
    return _SWEEP.warning(f"{text}: {'; '.join(lines[:SHOWN])}{more}", told)


def _ago(facts: Facts, ms: int) -> str:
    return f"{max(0, facts.store.now_ms - ms) // 1_000} s ago"


RULES = (configuration, clock_skew, sweeps)
