"""Times, cursors, problems: the small parts of answers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskmaster.api import cursor, problems
from taskmaster.api.problems import BadParameter
from taskmaster.api.shapes import instant, moment
from taskmaster.api.submission import header_key
from taskmaster.api.views import failed_reason
from taskmaster.errors import KeyReused, NotCompleted, NotEnded, PluginError, TaskMasterError
from taskmaster.model.job import Failure

ID = "01a20557-4f89-7362-bf7c-8356bbe4029a"


@pytest.mark.parametrize(
    ("ms", "text"),
    [(0, "1970-01-01T00:00:00.000Z"), (1_790_000_000_007, "2026-09-21T14:13:20.007Z"), (253_402_300_799_999, "9999-12-31T23:59:59.999Z")],
)
def test_instants_have_milliseconds_and_z(ms: int, text: str) -> None:
    assert instant(ms) == text


def test_unset_is_null() -> None:
    assert moment(0) is None


def test_cursor_is_its_lists_own() -> None:
    """It comes back from the same filters, and from no others."""
    word = cursor.pack(("1790000000000", ID), "jobs", "waiting")

    assert word is not None
    assert cursor.unpack(word, "jobs", "waiting") == ("1790000000000", ID)
    with pytest.raises(BadParameter):
        cursor.unpack(word, "jobs", "failed")


@given(st.text(max_size=80))
def test_foreign_cursor_is_refused(word: str) -> None:
    with pytest.raises(BadParameter):
        cursor.unpack(word, "jobs")


@pytest.mark.parametrize("score", ["nan", "inf", "1e400", "", "x"])
def test_cursor_with_a_senseless_score_is_refused(score: str) -> None:
    with pytest.raises(BadParameter):
        cursor.unpack(cursor.pack((score, ID), "jobs"), "jobs")


def test_problem_has_the_facts_of_its_error() -> None:
    document = problems.describe(KeyReused("used", jobId=ID), instance="/jobs", trace="t")

    assert document == {
        "type": "/problems/idempotency-key-reused",
        "title": document["title"],
        "status": 422,
        "detail": "used",
        "instance": "/jobs",
        "traceId": "t",
        "jobId": ID,
    }


def _tree(kind: type[TaskMasterError]) -> list[type[TaskMasterError]]:
    return [kind, *(below for child in kind.__subclasses__() for below in _tree(child))]


def test_every_error_a_request_can_meet_has_a_status() -> None:
    """What the table does not know would be a 500."""
    inside = {"error", "configuration", PluginError.code, NotEnded.code, NotCompleted.code}

    assert {kind.code for kind in _tree(TaskMasterError)} - inside <= set(problems._KINDS)


@pytest.mark.parametrize(
    ("header", "key"),
    [("abc", "abc"), ('"abc"', "abc"), ('"', '"'), ("  k ", "k"), ("ключ".encode().decode("latin-1"), "ключ"), ("\xff", "\xff")],
)
def test_key_of_a_header(header: str, key: str) -> None:
    assert header_key(header) == key


def test_failed_reason_is_one_sentence() -> None:
    assert failed_reason(Failure("smtp.Refused", "no"), "fatal", 0) == "Refused: no"
    assert failed_reason(None, "worker_lost", 3) == "worker_lost: its worker process died 3 times while running it"
    assert failed_reason(None, "", 0) is None
