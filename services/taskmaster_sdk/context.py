"""What a handler and a plugin's hooks are given."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Mapping, MutableMapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from taskmaster_sdk.artifacts import Artifacts
from taskmaster_sdk.effects import Effect, Guards, Mode
from taskmaster_sdk.outcomes import Cancelled

__all__ = ["JobContext", "PluginContext"]

_formatter = logging.Formatter()


class JobContext:
    """One attempt of one job, as its handler sees it. Usable from any thread of the handler.

    Attributes:
        job_id: stable over all attempts.
        type: the job type.
        queue: where the job was taken from.
        attempt: 1 for the first.
        max_attempts: executions at most.
        root_id: the job that this one is a replay of, over all replays; its own id if it is none. The key for effects.
        deadline: when this attempt must have ended, seconds of `time.monotonic`.
        plugin: name and version of the code that runs, `name==version`.
        trace_id: of what this attempt does, 32 hex digits; empty when its job came without a trace and none is recorded.
        logger: records carry all of these but `max_attempts`, `root_id` and `deadline`.
        host: the host's own record of this attempt; nothing of it is promised.
    """

    __slots__ = (
        "_artifacts",
        "_cancelled",
        "_guards",
        "_keep",
        "_keep_from",
        "_logger",
        "_report",
        "attempt",
        "deadline",
        "host",
        "job_id",
        "max_attempts",
        "plugin",
        "queue",
        "root_id",
        "trace_id",
        "type",
    )

    def __init__(
        self,
        *,
        job_id: str,
        type: str,  # noqa: A002 - the wire's word
        queue: str,
        attempt: int,
        max_attempts: int,
        root_id: str,
        deadline: float,
        report: Callable[[JobContext, float, str], None] | None = None,
        guards: Callable[[JobContext], Guards] | None = None,
        artifacts: Artifacts | None = None,
        keep: Callable[[JobContext, int, str], None] | None = None,
        keep_from: int = logging.INFO,
        host: Any = None,
        plugin: str = "",
        trace_id: str = "",
    ) -> None:
        self.job_id = job_id
        self.type = type
        self.queue = queue
        self.attempt = attempt
        self.max_attempts = max_attempts
        self.root_id = root_id
        self.deadline = deadline
        self._report = report
        self._guards = guards
        self._artifacts = artifacts
        self._keep = keep
        self._keep_from = keep_from
        self.host = host
        self.plugin = plugin
        self.trace_id = trace_id
        self._cancelled = False
        self._logger: logging.LoggerAdapter[logging.Logger] | None = None

    @property
    def logger(self) -> logging.LoggerAdapter[logging.Logger]:
        """A standard logger that adds this attempt's facts to every record. What `extra=` gives is told in the line, too: 32 names.

        Its lines are also kept with the job, from the level on that the service's `job_log_level` says (info), whatever is logged: the
        newest 1,000 and 64 KiB, each at most 4,000 characters. What is said after the attempt has ended is not kept.
        """
        if self._logger is None:
            facts: dict[str, Any] = {"jobId": self.job_id, "type": self.type, "queue": self.queue, "attempt": self.attempt}
            facts |= {name: value for name, value in (("plugin", self.plugin), ("traceId", self.trace_id)) if value}
            self._logger = _JobLogger(logging.getLogger(f"taskmaster.job.{self.type}"), facts, self)
        return self._logger

    def log(self, text: str) -> None:
        """A line for those who look at this job: `logger.info` of a text that is no format."""
        self.logger.info("%s", text)

    def keep(self, level: int, text: str) -> None:
        """Keep a line with the job, if there is anybody to do so. For the logger, and for tests of a host."""
        if self._keep is not None:
            self._keep(self, level, text)

    @property
    def remaining_s(self) -> float:
        """Seconds until the deadline, 0 when it has passed."""
        return max(0.0, self.deadline - time.monotonic())

    @property
    def cancelled(self) -> bool:
        """Whether somebody asked to cancel this job. Look at it between steps of long work."""
        return self._cancelled

    def check(self) -> None:
        """Stop here if the job was cancelled.

        Raises:
            Cancelled: somebody asked. Let it pass: the job then ends as cancelled.
        """
        if self._cancelled:
            raise Cancelled("cancelled while running")

    def once(self, name: str, key: str = "", *, unless: tuple[type[BaseException], ...] = ()) -> Effect:
        """A guard for an effect that must not happen twice, whatever crashes: see `effect`, mode `at_most_once`."""
        return self.effect(name, key, unless=unless)

    def effect(
        self,
        name: str,
        key: str = "",
        *,
        mode: Mode = "at_most_once",
        verify: Callable[[Effect], bool | None] | None = None,
        unless: tuple[type[BaseException], ...] = (),
    ) -> Effect:
        """A guard around something that this handler does to the world outside, for `with` and `async with`.

        Args:
            name: which effect: `smtp`, `charge`. 1 to 64 characters.
            key: tells apart several of that name within one job: the recipient, the number of the item.
            mode: what happens when an earlier attempt had the licence and was not heard of since. at_most_once: `EffectUnknown` is
                raised, which ends the job for a person to look at. at_least_once: it is done again, with the same `Effect.key`.
                verify: the callback is asked.
            verify: gets the effect, asks the provider about `Effect.key`; True: it happened, False: it did not, None: nobody knows.
            unless: exceptions which say that the effect surely did not happen, so that a retry may try again.

        Raises:
            ValueError: a name, key or mode that cannot be.
            RuntimeError: the host offers no guards.
        """
        return Effect(self.guards, self.root_id, name, key, mode, verify, unless)

    @property
    def guards(self) -> Guards:
        """The host's side of effects.

        Raises:
            RuntimeError: there is none.
        """
        if self._guards is None:
            raise RuntimeError("this context has no effect guards; in a test, use taskmaster_sdk.testing.run")
        return self._guards(self)

    def artifact(self, name: str, content: bytes | Path, *, content_type: str = "application/octet-stream") -> dict[str, Any]:
        """Store a file with this job, and get what stands for it in results and payloads: a small dict, JSON.

        It is kept as long as the job, or its dead letter. Blocks while it is written: from a coroutine, use `asyncio.to_thread`.

        Args:
            name: for people, such as `report.pdf`; folders and odd characters in it are replaced.
            content: bytes, or the path of a file, which is copied.
            content_type: told to whoever downloads it.

        Raises:
            LeaseLost: another attempt has the job, or this one has ended: nothing is stored.
            Fatal: it is larger than the service allows.
            ValueError: no content type.
            OSError: it cannot be read or written.
            RuntimeError: the host offers no place for artifacts.
        """
        return self.artifacts.write(self.job_id, name, content, content_type, self.guards.permit)

    def open_artifact(self, reference: Mapping[str, Any]) -> BinaryIO:
        """The content of an artifact of this or another job, once its digest was checked. Close it.

        Raises:
            ValueError: not a reference.
            ArtifactLost: it is gone with its job, or is not what the reference says.
            RuntimeError: the host offers no place for artifacts.
        """
        return self.artifacts.open(reference)

    @property
    def artifacts(self) -> Artifacts:
        """The host's side of artifacts.

        Raises:
            RuntimeError: there is none.
        """
        if self._artifacts is None:
            raise RuntimeError("this context has no place for artifacts; in a test, use taskmaster_sdk.testing.run")
        return self._artifacts

    def progress(self, fraction: float, note: str = "") -> None:
        """Tell people how far the work is. Cheap: sent at most a few times a second, the last word wins.

        Args:
            fraction: 0 to 1.
            note: at most 200 characters are kept.
        """
        if self._report is not None:
            self._report(self, min(1.0, max(0.0, float(fraction))), note[:200])

    def request_cancel(self) -> None:
        """Set the cancel flag. For the host, and for tests of a handler."""
        self._cancelled = True


class _JobLogger(logging.LoggerAdapter[logging.Logger]):
    """Logs, and keeps lines with the job. Keeping never fails the handler: like logging itself."""

    def __init__(self, logger: logging.Logger, facts: dict[str, object], context: JobContext) -> None:
        super().__init__(logger, facts)
        self._context = context

    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:
        """The caller's `extra=` with the attempt's facts, which it cannot change."""
        kwargs["extra"] = {**(kwargs.get("extra") or {}), **(self.extra or {})}
        return msg, kwargs

    def log(self, level: int, msg: object, *args: object, **kwargs: Any) -> None:
        """As `LoggerAdapter.log`."""
        if self._context._keep is not None and level >= self._context._keep_from:  # noqa: SLF001 - the other half of it
            self._context.keep(level, _text_of(level, msg, args, kwargs.get("exc_info")))
        kwargs["stacklevel"] = kwargs.get("stacklevel", 1) + 1
        super().log(level, msg, *args, **kwargs)


def _text_of(level: int, msg: object, args: tuple[object, ...], exc_info: Any) -> str:
    """What a formatter would make of it; or that it cannot be made."""
    if isinstance(exc_info, BaseException):
        exc_info = (type(exc_info), exc_info, exc_info.__traceback__)
    elif exc_info and not isinstance(exc_info, tuple):
        exc_info = sys.exc_info()
    try:
        return _formatter.format(logging.LogRecord("", level, "", 0, msg, args, exc_info or None))
    except Exception:
        return f"(a line that could not be made: {type(msg).__name__})"


@dataclass(frozen=True, slots=True)
class PluginContext:
    """What `on_init` and `on_shutdown` are given.

    Attributes:
        plugin: name of the plugin's entry point.
        data_dir: a folder that outlives the process; the plugin may make its own below it.
        environ: the process environment, read only.
        state: the plugin's own, kept between `on_init` and `on_shutdown`.
    """

    plugin: str
    data_dir: Path
    environ: dict[str, str]
    state: dict[str, Any] = field(default_factory=dict)

    @property
    def logger(self) -> logging.Logger:
        """The plugin's logger."""
        return logging.getLogger(f"taskmaster.plugin.{self.plugin}")
