"""Words in payloads that stand for the instant."""

from __future__ import annotations

import datetime as dt

import pytest

from taskmaster.model.template import WORDS, TemplateError, check_template, render, words_of
from taskmaster.model.zones import zone

AT_MS = 1_798_120_800_000  # 2026-12-24 14:00 UTC


def test_each_word_stands_for_the_instant_in_the_schedules_zone() -> None:
    """In texts at any depth; names of members and other values stay as they are."""
    words = words_of("daily", AT_MS, dt.datetime.fromtimestamp(AT_MS / 1_000, zone("America/New_York")))
    payload = {"title": "Report of {{localDate}}, {{ localTime }}", "{{instant}}": ["{{instant}}", 7, None], "by": "{{scheduleId}}"}

    assert render(payload, words) == {
        "title": "Report of 2026-12-24, 09:00:00",
        "{{instant}}": ["2026-12-24T14:00:00Z", 7, None],
        "by": "daily",
    }
    assert render("{{local}} {{instantMs}}", words) == f"2026-12-24T09:00:00-05:00 {AT_MS}"
    assert set(words) == set(WORDS)


@pytest.mark.parametrize("text", ["{{}}", "{{now}}", "{{instant.year}}", "{{ __class__ }}"])
def test_other_words_are_refused(text: str) -> None:
    """A template has no expressions; a misspelt word is told when the schedule is made."""
    with pytest.raises(TemplateError, match="stands for nothing"):
        check_template({"deep": [text]})


def test_what_is_put_in_is_not_looked_at_again() -> None:
    """A schedule may not smuggle a word in by its id, and single braces are text."""
    assert render("{{scheduleId}} {x} {{", {"scheduleId": "{{instant}}"}) == "{{instant}} {x} {{"


def test_a_long_text_without_an_end_is_looked_through_once() -> None:
    """Hostile payloads are short of nothing but an end; a look that goes back would take hours for this one."""
    assert render("{{" + " " * 200_000, {}) == "{{" + " " * 200_000
    assert render("{{ a" * 50_000, {}) == "{{ a" * 50_000
