"""Rows of measurements as markdown and as JSON."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field

from bench.parts.base import Part
from bench.targets import Outcome, judge

__all__ = ["Row", "as_json", "as_markdown", "medians_of"]


@dataclass(frozen=True, slots=True)
class Row:
    """One run of one part for one subject.

    Attributes:
        load: average number of runnable processes in the minute before it.
        others: processors that processes of others used meanwhile.
        speed: million turns a second of an empty Python loop just before it: what the machine could do then.
        error: why there are no figures; empty: there are.
    """

    part: str
    subject: str
    repetition: int
    load: float
    others: float
    speed: float
    figures: Mapping[str, float] = field(default_factory=dict)
    error: str = ""


def medians_of(rows: Sequence[Row]) -> dict[tuple[str, str], dict[str, float]]:
    """Median of each figure over the repetitions, by part and subject."""
    return {key: {name: statistics.median(values) for name, values in figures.items()} for key, figures in _gathered(rows).items()}


def as_markdown(parts: Iterable[Part], rows: Sequence[Row], facts: Mapping[str, object]) -> str:
    """One table of figures a part, medians with their extremes; then the targets."""
    lines = [f"{name}: {value}" for name, value in facts.items()]
    gathered, medians = _gathered(rows), medians_of(rows)
    for part in parts:
        subjects = [s for s in part.subjects if (part.name, s) in gathered]
        names = list(dict.fromkeys(name for s in subjects for name in gathered[part.name, s]))
        own = [row for row in rows if row.part == part.name]
        machine = f"load average {_spread([r.load for r in own])}, processors used by others {_spread([r.others for r in own])}, "
        machine += f"Python loop {_spread([r.speed for r in own])} million turns/s"
        lines += ["", f"### {part.name}: {part.title}", "", machine, ""]
        if names:
            lines += _table(["", *subjects, *(f"x {s}" for s in subjects[1:])], _figure_rows(part.name, subjects, names, gathered, medians))
        lines += [f"- {row.subject}: {row.error}" for row in own if row.error]
    outcomes = list(judge(medians))
    if outcomes:
        lines += ["", "### Targets", "", *_table(["part", "figure", "reached", "must", "goal", "met"], map(_outcome_row, outcomes))]
    return "\n".join(lines) + "\n"


def as_json(rows: Sequence[Row], facts: Mapping[str, object]) -> str:
    """Everything that was measured, row by row, and the medians."""
    medians = [{"part": part, "subject": subject, "figures": figures} for (part, subject), figures in medians_of(rows).items()]
    targets = [
        asdict(outcome.target) | {"reached": outcome.reached, "bound here": outcome.bound, "met": outcome.is_met}
        for outcome in judge(medians_of(rows))
    ]
    return json.dumps({**facts, "rows": [asdict(row) for row in rows], "medians": medians, "targets": targets}, indent=1) + "\n"


def _gathered(rows: Sequence[Row]) -> dict[tuple[str, str], dict[str, list[float]]]:
    gathered: dict[tuple[str, str], dict[str, list[float]]] = {}
    for row in rows:
        for name, value in row.figures.items():
            gathered.setdefault((row.part, row.subject), {}).setdefault(name, []).append(value)
    return gathered


def _figure_rows(
    part: str,
    subjects: Sequence[str],
    names: Sequence[str],
    gathered: Mapping[tuple[str, str], Mapping[str, list[float]]],
    medians: Mapping[tuple[str, str], Mapping[str, float]],
) -> Iterator[list[str]]:
    for name in names:
        cells = [_spread(gathered[part, s].get(name, [])) for s in subjects]
        first = medians[part, subjects[0]].get(name)
        others = [medians[part, s].get(name) for s in subjects[1:]]
        yield [name, *cells, *(f"{first / other:.2f}" if first is not None and other else "-" for other in others)]


def _outcome_row(outcome: Outcome) -> list[str]:
    target = outcome.target
    sign = "≤" if target.is_ceiling else "≥"
    unit = f" x {target.beside or target.over}" if target.beside or target.over else ""
    bounds = [f"{sign} {_number(bound)}{unit}" for bound in (target.bound, target.goal)]
    if target.pace is not None and outcome.bound != target.bound:
        pace = target.pace
        bounds[0] += f" where {pace.subject} has {_number(pace.there)} {pace.figure}; here {sign} {_number(outcome.bound)}"
    return [target.part, target.figure, _number(outcome.reached) + unit, *bounds, "yes" if outcome.is_met else "**no**"]


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *rows)]


def _spread(values: Sequence[float]) -> str:
    if not values:
        return "-"
    middle = _number(statistics.median(values))
    return middle if len(values) == 1 else f"{middle} ({_number(min(values))}-{_number(max(values))})"


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
