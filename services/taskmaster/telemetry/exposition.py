"""Numbers as Prometheus reads them: text or OpenMetrics, whichever the scrape asks for.

Imported when the first scrape comes: the library takes 50 ms to load, which a process has better use for at its start.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from itertools import accumulate

from prometheus_client import CollectorRegistry, PlatformCollector, ProcessCollector
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.registry import Collector

import taskmaster
from taskmaster.telemetry import metrics
from taskmaster.telemetry.metrics import MOST, OTHER, Facts, Metric, Shown
from taskmaster.telemetry.sheet import Sheet, total

__all__ = ["build_facts", "families_of", "process_registry", "render"]


def build_facts() -> Facts:
    """Which version this is."""
    return {(taskmaster.__version__,): 1.0}


@cache
def process_registry() -> CollectorRegistry:
    """What the library knows of this very process: `process_…` and `python_info`."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    return registry


def render(accept: str, families: Iterable[Family], more: CollectorRegistry | None = None) -> tuple[bytes, str]:
    """The page and its media type, for a scrape with this `Accept` header."""
    encode, media_type = choose_encoder(accept)
    return encode(_Page([*families, *(more.collect() if more else ())])), media_type


def families_of(sheets: Sequence[Sheet], counted: Iterable[Metric], known: Mapping[Metric, Facts], shown: Shown) -> Iterator[Family]:
    """The metrics *counted* of all *sheets* together; those that are *known* from elsewhere instead.

    *shown*: kept by the caller from one page to the next.
    """
    for metric in counted:
        facts = known.get(metric)
        if facts is None:
            yield _summed(metric, total(metric, sheets))
        else:
            yield _family(metric, facts, shown.setdefault(metric.name, set()))


def _family(metric: Metric, facts: Facts, shown: set[tuple[str, ...]]) -> Family:
    """A counter or gauge of these values, its open labels bounded."""
    make = CounterMetricFamily if metric.kind == "counter" else GaugeMetricFamily
    family: CounterMetricFamily | GaugeMetricFamily = make(metric.name, metric.help, labels=metric.labels)
    for labels, value in _bounded(facts, len(metric.labels) - len(_closed_part(metric)), shown).items():
        family.add_metric(labels, value)
    return family


def _closed_part(metric: Metric) -> tuple[str, ...]:
    """Labels at the end whose values are few, and stay what they are when the others become `other`."""
    first = next((n for n, label in enumerate(metric.labels) if label in ("state", "priority") or label in metrics.CLOSED), None)
    return metric.labels[first:] if first is not None else ()


def _bounded(facts: Facts, opened: int, shown: set[tuple[str, ...]]) -> dict[tuple[str, ...], float]:
    """*facts* with at most `MOST` beginnings of *opened* labels: those *shown*, then others in order. The rest is added up as `other`."""
    out: dict[tuple[str, ...], float] = {}
    for labels, value in facts.items():
        head = labels[:opened]
        if head not in shown:
            if opened and len(shown) >= MOST:
                head = (OTHER,) * opened
            else:
                shown.add(head)
        where = (*head, *labels[opened:])
        out[where] = out.get(where, 0.0) + value
    return out


def _summed(metric: Metric, rows: dict[tuple[str, ...], list[float]]) -> Family:
    if metric.kind != "histogram":
        values = metric.closed
        facts = {
            (*labels, value) if values != ("",) else labels: cells[n]
            for labels, cells in rows.items()
            for n, value in enumerate(values)
            if values == ("",) or cells[n]
        }
        return _family(metric, facts, set())
    family = HistogramMetricFamily(metric.name, metric.help, labels=metric.labels)
    bounds = [*map(str, metric.buckets), "+Inf"]
    for labels, cells in rows.items():
        family.add_metric(labels, list(zip(bounds, accumulate(cells[:-1]), strict=True)), cells[-1])
    return family


class _Page(Collector):
    def __init__(self, families: list[Family]) -> None:
        self._families = families

    def collect(self) -> list[Family]:
        return self._families
