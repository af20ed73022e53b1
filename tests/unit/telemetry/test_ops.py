"""Alerts, runbooks and dashboards: they speak of metrics that there are, and each alert has been seen to fire."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import yaml

from support.prometheus import promtool
from taskmaster.telemetry.metrics import CATALOGUE, CLOSED, Metric

ROOT = Path(__file__).parents[3]
OPS = ROOT / "ops"
RULES, RULE_TESTS = OPS / "prometheus/rules/taskmaster.yml", OPS / "prometheus/tests/taskmaster.yml"
DASHBOARD = json.loads((OPS / "grafana/taskmaster.json").read_text())
ALERTS = {rule["alert"]: rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]}
PANELS = {panel["title"]: [target["expr"] for target in panel["targets"]] for panel in DASHBOARD["panels"] if panel["type"] != "row"}
EXPRESSIONS = {name: [rule["expr"]] for name, rule in ALERTS.items()} | PANELS

#: Sample names, and of which metric they are.
SAMPLES = {metric.name: metric for metric in CATALOGUE if metric.kind != "histogram"} | {
    f"{metric.name}{end}": metric for metric in CATALOGUE if metric.kind == "histogram" for end in ("_bucket", "_sum", "_count")
}
#: What Prometheus itself makes.
FROM_PROMETHEUS = {"up": {"job", "instance"}}


def selectors(node: Any) -> Iterator[Any]:
    """All vector selectors below a node of the parsed query."""
    if isinstance(node, promql_parser.VectorSelector):
        yield node
    for part in ("expr", "lhs", "rhs", "param", "vector_selector"):
        inner = getattr(node, part, None)
        if inner is not None and not isinstance(inner, str | float | int):
            yield from selectors(inner)
    for argument in getattr(node, "args", None) or ():
        yield from selectors(argument)


def parsed(expression: str) -> Any:
    return promql_parser.parse(expression.replace("$__rate_interval", "5m"))


def labels_by(expression: str) -> set[str]:
    return {label.strip() for group in re.findall(r"by \(([a-z_, ]+)\)", expression) for label in group.split(",")}


@pytest.mark.parametrize("name", EXPRESSIONS)
def test_every_query_asks_for_metrics_and_labels_that_there_are(name: str) -> None:
    """A metric that is renamed takes its alerts and panels along."""
    for expression in EXPRESSIONS[name]:
        found = list(selectors(parsed(expression)))

        assert found, expression
        for selector in found:
            known = SAMPLES.get(selector.name)
            assert known is not None or selector.name in FROM_PROMETHEUS, f"{name}: there is no {selector.name}"
            has = set(known.labels) | {"le", "instance"} if isinstance(known, Metric) else FROM_PROMETHEUS[selector.name]
            assert {matcher.name for matcher in selector.matchers.matchers} <= has, f"{name}: {selector.name} has {sorted(has)}"
            for matcher in selector.matchers.matchers:
                if matcher.name in CLOSED:
                    assert matcher.value in CLOSED[matcher.name]
        together = {label for selector in found for label in (SAMPLES[selector.name].labels if selector.name in SAMPLES else ("job",))}
        assert labels_by(expression) <= together | {"le", "instance"}, f"{name}: nothing has these labels"


def test_a_query_for_what_is_not_there_would_be_noticed() -> None:
    """The walk over queries finds selectors wherever they stand."""
    query = "sum(rate(a_total[5m])) / on() group_left max(b) > 1 or histogram_quantile(0.9, sum by (le) (c_bucket)) unless -(d offset 5m)"

    assert [selector.name for selector in selectors(parsed(query))] == ["a_total", "b", "c_bucket", "d"]


def test_the_rules_and_the_configuration_pass_promtool() -> None:
    for what, path in (("rules", RULES), ("config", OPS / "prometheus/prometheus.yml"), ("config", OPS / "prometheus/compose.yml")):
        checked = promtool("check", what, path)
        assert checked.returncode == 0, checked.stdout + checked.stderr


def test_every_alert_fires_when_it_should_and_not_before() -> None:
    """Shown by promtool on time series, one case an alert."""
    cases = [case for test in yaml.safe_load(RULE_TESTS.read_text())["tests"] for case in test["alert_rule_test"]]
    quiet = {case["alertname"] for case in cases if not case["exp_alerts"]}
    firing = {case["alertname"] for case in cases if case["exp_alerts"]}

    checked = promtool("test", "rules", RULE_TESTS)

    assert quiet == firing == set(ALERTS)
    assert checked.returncode == 0, checked.stdout + checked.stderr


@pytest.mark.parametrize("name", ALERTS)
def test_every_alert_has_a_runbook_that_says_what_to_do(name: str) -> None:
    rule = ALERTS[name]
    page = (ROOT / rule["annotations"]["runbook"]).read_text()

    assert rule["annotations"]["runbook"] == f"ops/runbooks/{name}.md"
    assert rule["labels"]["severity"] in ("info", "warning", "critical")
    assert re.findall(r"^#+ (.*)$", page, re.MULTILINE) == [
        name,
        "What is seen",
        "How to confirm",
        "What to do",
        "What not to do",
    ]


def test_no_runbook_is_left_of_an_alert_that_is_gone() -> None:
    assert {path.stem for path in (OPS / "runbooks").iterdir()} == set(ALERTS)


def test_the_dashboard_is_whole() -> None:
    """No two panels share an id or a place, and the variable asks for a metric that there is."""
    panels = DASHBOARD["panels"]
    places = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in panels]

    assert len({panel["id"] for panel in panels}) == len(set(places)) == len(panels)
    (queue,) = [one for one in DASHBOARD["templating"]["list"] if one["name"] == "queue"]
    assert queue["query"] == "label_values(taskmaster_queue_jobs, queue)"
