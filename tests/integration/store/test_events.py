"""The stream of events as the script reads it: what is behind a place, and that what was trimmed is not passed over in silence."""

from __future__ import annotations

import pytest

from support.desk import Desk
from taskmaster.store import events
from taskmaster.store.events import NOTHING, OLDEST, Place, Wanted


def behind(desk: Desk, place: Place) -> events.Happened:
    return desk.run(events.events(0, place, Wanted()))


@pytest.mark.parametrize("kept", [3, 2, 0])
def test_a_place_whose_entry_is_not_kept_is_lost(desk: Desk, kept: int) -> None:
    """Once, and reading goes on with what is there; a place that is kept loses nothing, however much was trimmed before it."""
    desk.raw.delete("tm:{0}:ev")
    for _ in range(3):
        desk.submit()
    first, *_, last = (row.place for row in behind(desk, OLDEST).rows)
    desk.raw.xtrim("tm:{0}:ev", maxlen=kept, approximate=False)

    found = behind(desk, first)
    again = behind(desk, found.place)

    assert found.is_lost == (kept < 3)
    assert len(found.rows) == min(kept, 2)
    assert (again.is_lost, again.rows) == (False, ())
    assert behind(desk, last).is_lost == (kept == 0)
    assert behind(desk, OLDEST).is_lost is False
    assert behind(desk, NOTHING).is_lost == (kept in (1, 2))
