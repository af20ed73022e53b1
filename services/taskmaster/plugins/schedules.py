"""Schedules that plugins declare, as the engine reads them."""

from __future__ import annotations

from dataclasses import asdict
from typing import NamedTuple

import msgspec

from taskmaster.errors import InvalidRequest, PluginError
from taskmaster.model import schedule as model
from taskmaster.model.schedule import Schedule
from taskmaster_sdk import Schedule as SdkSchedule

__all__ = ["Declared", "declared"]


class Declared(NamedTuple):
    """A schedule that a plugin declares; a later one has a greater *version*."""

    id: str
    schedule: Schedule
    plugin: str
    version: int


def declared(plugin: str, given: object) -> Declared:
    """What *given* declares.

    Raises:
        PluginError: it is no schedule, or one that cannot be carried out.
    """
    if not isinstance(given, SdkSchedule):
        raise PluginError(f"register_schedules gave {type(given).__name__}, not a Schedule", plugin=plugin)
    facts = asdict(given)
    facts["dst"] = {"gap": facts.pop("dst_gap"), "overlap": facts.pop("dst_overlap")}
    schedule_id, version = facts.pop("id"), facts.pop("version")
    names = dict(zip(Schedule.__struct_fields__, Schedule.__struct_encode_fields__, strict=True))
    try:
        schedule = msgspec.convert({names[name]: value for name, value in facts.items()}, Schedule)
        model.check(schedule)
    except (msgspec.ValidationError, InvalidRequest) as error:
        raise PluginError(f"schedule {schedule_id}: {error}", plugin=plugin) from error
    return Declared(schedule_id, schedule, plugin, version)
