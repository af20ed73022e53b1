"""What a worker does with the schedules that its plugins declare."""

from __future__ import annotations

from collections.abc import Iterator

import pluggy
import pytest
from structlog.testing import capture_logs

from support.schedules import Town, publish, town_at
from support.servers import StoreServer
from taskmaster.engine import schedules as engine
from taskmaster.engine.scheduled_jobs import Who
from taskmaster.maintenance.declarations import LOOKS, Declarations
from taskmaster.model.schedule import Schedule
from taskmaster.plugins.registry import Plugin
from taskmaster.plugins.schedules import Declared
from taskmaster_sdk.hooks import PROJECT

pytestmark = pytest.mark.server("valkey")


@pytest.fixture
def town(clean_server: StoreServer) -> Iterator[Town]:
    with town_at(clean_server) as made:
        yield made


def _plugin(*names: str, job_type: str = "alpha", version: int = 1) -> Plugin:
    schedules = tuple(Declared(name, Schedule(type=job_type, cron="0 2 * * *"), "demo", version) for name in names)
    return Plugin("demo", pluggy.PluginManager(PROJECT), schedules)


def _declarations(town: Town, plugin: Plugin) -> Declarations:
    return Declarations(town.desk.store, town.settings, [plugin])


def test_declared_schedules_are_there_after_a_tick_and_the_next_one_does_nothing(town: Town) -> None:
    """Told in the log as `schedules.registered`."""
    declarations = _declarations(town, _plugin("a", "b"))

    with capture_logs() as logs:
        declarations.tick()
        declarations.tick()

    assert [town.row(name).version for name in ("a", "b")] == [1, 1]
    assert [line["schedules"] for line in logs if line["event"] == "schedules.registered"] == [["a", "b"]]


def test_a_schedule_that_is_declared_no_more_is_told_and_goes_on(town: Town) -> None:
    """Only a person removes it; what a person made is nobody's declaration."""
    _declarations(town, _plugin("a", "b")).tick()
    town.put("mine", cron="0 3 * * *")

    with capture_logs() as logs:
        _declarations(town, _plugin("b")).tick()

    assert [line["schedule"] for line in logs if line["event"] == "schedule.not_declared"] == ["a"]
    assert town.row("a").due_ms


def test_a_type_that_comes_later_is_waited_for(town: Town) -> None:
    """Another plugin's worker may publish it; one that never comes is told at last, and holds up nothing."""
    late, never = _declarations(town, _plugin("late", job_type="beta")), _declarations(town, _plugin("never", job_type="gamma"))
    late.tick()
    before = town.run(engine.paged(1))
    publish(town.desk.store, "beta")
    late._types._looked_at = -60.0  # the catalogue is read again at most every 200 ms
    late.tick()

    with capture_logs() as logs:
        for _ in range(LOOKS + 1):
            never.tick()

    assert before == []
    assert town.row("late").version == 1
    assert [line["schedule"] for line in logs if line["event"] == "schedule.refused"] == ["never"]


def test_the_id_of_a_persons_schedule_is_not_taken(town: Town) -> None:
    """Told as refused."""
    town.put("a", cron="0 3 * * *")

    with capture_logs() as logs:
        _declarations(town, _plugin("a")).tick()
    town.run(engine.switch("a", 1, Who("ann"), enabled=False))

    assert '"0 3 * * *"' in town.row("a").fields["spec"]
    assert [line["why"] for line in logs if line["event"] == "schedule.refused"] == ["the id belongs to another schedule"]
