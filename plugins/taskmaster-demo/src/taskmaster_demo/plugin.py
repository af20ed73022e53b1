"""Hooks only: which jobs there are, and where the clean-up may work."""

from __future__ import annotations

from taskmaster_demo.cleanup import Cleaner
from taskmaster_demo.dummy import dummy, dummy_isolated
from taskmaster_demo.report import generate_report
from taskmaster_sdk import Job, PluginContext, Schedule, hookimpl, job

__all__ = ["DemoPlugin", "plugin"]


class DemoPlugin:
    """What the entry point names. Holds the clean-up's folder from `on_init` on."""

    def __init__(self) -> None:
        self.cleaner = Cleaner()

    @hookimpl
    def register_jobs(self) -> list[Job]:
        """All job types."""
        example = {"olderThanS": 86_400, "dryRun": True}
        cleanup = job("cleanup-temp", queue="cleanup-queue", attempts=3, timeout_s=300, example=example)(self.cleaner.cleanup_temp)
        return [generate_report, cleanup, dummy, dummy_isolated]

    @hookimpl
    def register_schedules(self) -> list[Schedule]:
        """Samples: a report each night, one each Monday in another zone, and a clean-up that skips a turn while the last one still runs."""
        report = "generate-report"
        return [
            Schedule(
                id="demo-nightly-report",
                type=report,
                cron="0 2 * * *",
                payload={"title": "Figures of {{localDate}}", "pages": 3, "pageMs": 50},
            ),
            Schedule(
                id="demo-weekly-report",
                type=report,
                cron="0 9 * * 1",
                timezone="Asia/Kolkata",
                payload={"title": "Week until {{localDate}}", "pages": 3, "pageMs": 50},
            ),
            Schedule(
                id="demo-cleanup", type="cleanup-temp", cron="17 * * * *", payload={"olderThanS": 86_400}, overlap="skip", catch_up="none"
            ),
        ]

    @hookimpl
    def on_init(self, context: PluginContext) -> None:
        """Point the clean-up at its folder; made on first use."""
        self.cleaner.folder = context.data_dir / "tmp"


plugin = DemoPlugin()
