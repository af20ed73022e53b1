"""What a log line looks like, whatever is put into it."""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest

from taskmaster.telemetry import events, logs
from taskmaster_sdk import JobContext, job
from taskmaster_sdk.testing import run

HOSTILE = "a\x1b[2J\r\nb\u2028c\u202ed\x07\ud800"


@pytest.fixture(autouse=True)
def _root_as_it_was():
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = handlers, level


def said(capfd, form: str) -> list[str]:
    logs.configure("info", form)
    logs.get().info(events.JOB_STARTED, type=HOSTILE)
    logging.getLogger("somebody").warning("a line: %s", HOSTILE)
    logs.flush()
    return capfd.readouterr().err.splitlines()


def test_a_json_line_stays_one_line(capfd) -> None:
    """Control characters, separators and half characters are escaped, in our lines and those of libraries."""
    lines = said(capfd, "json")

    assert [json.loads(line)["event"] for line in lines] == ["job.started", f"a line: {HOSTILE}"]
    assert all(line.isascii() and line.isprintable() for line in lines)


@pytest.mark.parametrize("form", ["json", "console"])
def test_a_line_that_its_writer_got_wrong_is_a_line_all_the_same(capfd, form: str) -> None:
    """No page of the standard library's past our stream, with all arguments in it: what was to be logged, and what is wrong with it."""
    logs.configure("info", form)
    logging.getLogger("somebody").warning("%d files", "canary-7d1f")
    logs.flush()
    [line] = capfd.readouterr().err.splitlines()

    assert "%d files (TypeError" in line
    assert "canary-7d1f" not in line


def test_what_a_handler_gives_as_extra_is_told_with_its_facts(capfd) -> None:
    """Under its names, as JSON as far as it can be, none of it longer than a value may be; it stands in no fact's and no field's place."""
    logs.configure("info", "json")

    @job("tells")
    def tells(payload: Any, ctx: JobContext) -> None:
        order = {
            "event": "mine",
            "level": "mine",
            "jobId": "mine",
            "order": 7,
            "tags": ["a", {"b": None}],
            "odd": {1, 2}.__class__,
            "long": ["x" * 20_000],
        }
        ctx.logger.warning("paid", extra=order)
        logging.getLogger("somebody").warning("a library", extra={"payload": "canary-7d1f", "attempt": 3})

    run(tells, None)
    logs.flush()
    ours, theirs = (json.loads(line) for line in capfd.readouterr().err.splitlines())

    assert (ours["event"], ours["level"], ours["order"], ours["tags"]) == ("paid", "warning", 7, ["a", {"b": None}])
    assert ours["jobId"] not in ("mine", "")
    assert ours["odd"] == "<class 'set'>"
    assert 8_000 < len(ours["long"]) < 8_100
    assert ours.keys() - {"event", "level", "timestamp", "jobId", "type", "queue", "attempt", "order", "tags", "odd", "long"} <= {
        "plugin",
        "traceId",
    }
    assert theirs == {"event": "a library", "level": "warning", "timestamp": theirs["timestamp"], "attempt": 3}


@pytest.mark.parametrize("form", ["json", "console"])
def test_names_that_a_submitter_chose_are_told_as_values_are(capfd, form: str) -> None:
    """A payload that is given as `extra=`: its names move no cursor, need be no texts, and are at most so many; facts stand first."""
    logs.configure("info", form)

    @job("tells")
    def tells(payload: Any, ctx: JobContext) -> None:
        ctx.logger.warning("got it", extra={HOSTILE: 1, 7: "seven", "x" * 1_000: 2} | {f"n{n}": n for n in range(100)})

    run(tells, None)
    logs.flush()
    [line] = capfd.readouterr().err.splitlines()

    assert not {"\x1b[2J", "\u202e", "\u2028", "\x07"} & {line[at : at + size] for at in range(len(line)) for size in (1, 4)}
    assert "got it" in line
    assert "seven" in line
    assert "x" * 101 not in line
    assert "n20" in line
    assert "n40" not in line
    if form == "json":
        told = json.loads(line)
        assert list(told)[:2] == ["event", "level"]
        assert {"jobId", "type", "queue", "attempt"} <= told.keys()
        assert len(told.keys() - {"event", "level", "timestamp", "exception", *logs.FACTS}) == logs.EXTRAS_MAX


@pytest.mark.parametrize(
    ("job_id", "trace_id"), [("01a21e06-83dc", "4bf9"), ("01a21e06-83dc", ""), (HOSTILE, "4bf9"), ('"', ""), ("01a21e06-83dc", '"')]
)
def test_the_lines_that_each_job_has_are_those_that_any_event_would_be(capfd, job_id: str, trace_id: str) -> None:
    """The short way to a line leads to the same line; below the level there is none, and to a terminal there is but one way."""
    about = (job_id, HOSTILE, "one", 1, "tests==1.0", trace_id)
    facts = logs.facts_of(*about)
    logs.configure("info", "json")
    tell = logs.teller()
    assert tell is not None
    tell.tell(events.JOB_STARTED, tell.prepare(*about))
    logs.get().info(events.JOB_STARTED, **facts)
    logs.flush()
    short, usual = (json.loads(line) for line in capfd.readouterr().err.splitlines())
    logs.configure("info", "console")
    pretty = logs.teller()
    assert pretty is not None
    pretty.tell(events.JOB_STARTED, pretty.prepare(*about))
    logs.flush()
    logs.configure("warning", "json")

    assert short.pop("timestamp")[:19] == usual.pop("timestamp")[:19]
    assert short == usual
    assert "job.started" in capfd.readouterr().err
    assert logs.teller() is None


def test_a_terminal_is_told_nothing_to_obey(capfd) -> None:
    """What a job's author or submitter wrote moves no cursor, clears no screen and begins no line."""
    lines = said(capfd, "console")

    assert len(lines) == 2
    assert all("a\\x1b[2J\\x0d\\nb\\x2028c\\x202ed\\x07" in line for line in lines)


@pytest.mark.parametrize("form", ["json", "console"])
def test_a_traceback_keeps_its_end_and_a_text_its_beginning(capfd, form) -> None:
    """Both are cut, and say so."""
    logs.configure("info", form)
    try:
        raise ValueError("x" * 100_000 + "the end")
    except ValueError as error:
        logs.get().error(events.API_FAILED, exc_info=error, path="/begin" + "y" * 100_000)
    text = capfd.readouterr().err

    assert len(text) < 20_000
    assert "the end" in text
    assert text.count("characters before)") == text.count("characters more)") == 1
    assert "/begin" in text
