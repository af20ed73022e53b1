"""What tests capture of the log does not hang on which tests ran before in the same process."""

from __future__ import annotations

from structlog.testing import capture_logs

from taskmaster.telemetry import logs

log = logs.get()


def test_a_service_that_set_up_its_log_leaves_nothing_behind() -> None:
    """The first line through a logger after `configure` binds it for good where the logs are cached, and here they are not."""
    logs.configure("error", "json")
    log.error("store.lost")


def test_lines_are_captured_afterwards() -> None:
    """The other half: runs after the one above."""
    with capture_logs() as lines:
        log.info("job.started")

    assert [line["event"] for line in lines] == ["job.started"]
