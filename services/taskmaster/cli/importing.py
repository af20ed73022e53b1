"""`taskmaster import`: as many jobs as a file has lines."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any, Protocol, Self

import msgspec
import rich_click as click

from taskmaster.cli.exits import EX_FAILED, EX_OK
from taskmaster.cli.lines import Lines
from taskmaster.cli.options import STORE, as_json, echo_json, settings_from, settings_options
from taskmaster.errors import StoreError, TaskMasterError

if TYPE_CHECKING:  # the command line starts without the engine
    from taskmaster.engine.receipts import SubmittedJob

__all__ = ["import_"]

#: Seconds between two lines about the progress where there is no terminal; a terminal's bar moves more often.
_SAY_EVERY_S, _MOVE_EVERY_S = 5.0, 0.2
#: Rejected lines that are told on standard error when no file is named for them.
_SHOWN = 10


@click.command(name="import")
@click.argument("file", type=click.File("rb"))
@click.option("--type", "job_type", metavar="TYPE", help="Job type of lines that name none.")
@click.option("--queue", metavar="NAME", help="Queue of lines that name none.")
@click.option("--key-field", metavar="NAME", help="Payload field whose value is the idempotency key of lines that give none.")
@click.option("--rejects", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE", help="Write lines that were not taken there.")
@click.option("--dry-run", is_flag=True, help="Check all lines, and store nothing.")
@as_json
@settings_options(*STORE, "idempotency", "max_body_bytes")
def import_(
    file: IO[bytes],
    job_type: str | None,
    queue: str | None,
    key_field: str | None,
    rejects: Path | None,
    dry_run: bool,
    as_json: bool,
    **texts: str | None,
) -> None:
    """Submit the jobs in FILE, a submission a line (NDJSON) as POST /jobs takes it; `-` reads standard input.

    Lines with a key may be imported again, after an interruption or a correction: what is stored already counts as a duplicate. Each
    rejected line goes to --rejects as {"line": its number, "problem": {"code", "detail", …}}.

    Exit codes: 0 all lines were taken, 1 some were not, 2 wrong usage, 69 no store: lines behind the last one told may be stored or not.
    """
    settings = settings_from(texts)
    from taskmaster.client import Client

    lines = Lines(file, settings.max_body_bytes, {"type": job_type, "queue": queue}, key_field)
    with Client(settings, origin="cli") as client, _Rejects(rejects) as out:
        tally = _Tally(lines, out)
        progress = _progress(lines)
        try:
            outcomes: Iterable[Any] = client.check_many(lines) if dry_run else client.submit_many(lines)
            for outcome in outcomes:
                tally.add(outcome)
                progress.show(tally)
        except StoreError as error:
            told = f"what became of {tally.lines:,} lines is known. Import the file again: lines with a key make no second job"
            message = f"{error.message}; {told}"
            raise type(error)(message, **error.facts) from error
        finally:
            progress.end()
            tally.tell(as_json=as_json, dry_run=dry_run)
    sys.exit(EX_FAILED if tally.rejected else EX_OK)


class _Rejects:
    """Where lines go that were not taken: a file, or the first few to standard error."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._file: IO[bytes] | None = None
        self._shown = 0

    def __enter__(self) -> Self:
        self._file = self._path.open("wb") if self._path else None
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._file is not None:
            self._file.close()

    def add(self, line: int, error: TaskMasterError) -> None:
        """One more."""
        if self._file is not None:
            problem = {"code": error.code, "detail": error.message} | error.facts
            self._file.write(msgspec.json.encode({"line": line, "problem": problem}, enc_hook=str) + b"\n")
        elif self._shown < _SHOWN:
            self._shown += 1
            click.echo(f"line {line}: {error.message}", err=True)
            if self._shown == _SHOWN:
                click.echo("further rejected lines are not shown; --rejects FILE keeps all", err=True)


class _Tally:
    """What became of the lines so far."""

    def __init__(self, source: Lines, rejects: _Rejects) -> None:
        self._source = source
        self._rejects = rejects
        self._began = time.monotonic()
        self.accepted = self.duplicates = self.rejected = 0

    @property
    def lines(self) -> int:
        """How many were told of."""
        return self.accepted + self.duplicates + self.rejected

    @property
    def seconds(self) -> float:
        """Since the begin."""
        return time.monotonic() - self._began

    @property
    def rate(self) -> float:
        """Lines a second."""
        return self.lines / max(self.seconds, 0.001)

    @property
    def counts(self) -> str:
        """For people."""
        return f"{self.accepted:,} accepted, {self.duplicates:,} duplicates, {self.rejected:,} rejected"

    def add(self, outcome: SubmittedJob | TaskMasterError | None) -> None:
        """One more; None: it would be accepted."""
        number = self._source.numbers.popleft()
        if isinstance(outcome, TaskMasterError):
            self.rejected += 1
            self._rejects.add(number, outcome)
        elif outcome is not None and outcome.duplicate:
            self.duplicates += 1
        else:
            self.accepted += 1

    def tell(self, *, as_json: bool, dry_run: bool) -> None:
        """Print them."""
        if as_json:
            counts = {"lines": self.lines, "accepted": self.accepted, "duplicates": self.duplicates, "rejected": self.rejected}
            echo_json(counts | {"seconds": round(self.seconds, 3), "dryRun": dry_run})
            return
        checked = " checked, nothing stored" if dry_run else ""
        click.echo(f"{self.lines:,} lines{checked}: {self.counts}; {self.seconds:.1f} s, {self.rate:,.0f}/s")


class _Progress(Protocol):
    def show(self, tally: _Tally) -> None:
        """Tell where we are, if it is time to."""

    def end(self) -> None:
        """Leave the terminal as it was."""


class _Spoken:
    """A line every few seconds, for logs."""

    def __init__(self) -> None:
        self._next = time.monotonic() + _SAY_EVERY_S

    def show(self, tally: _Tally) -> None:
        if time.monotonic() >= self._next:
            self._next += _SAY_EVERY_S
            click.echo(f"taskmaster: {tally.lines:,} lines in {tally.seconds:.0f} s: {tally.counts}", err=True)

    def end(self) -> None:
        """Nothing to do."""


class _Drawn:
    """A bar on a terminal."""

    def __init__(self, source: Lines) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        self._source = source
        columns = (BarColumn(), TextColumn("{task.percentage:>3.0f} %"), TimeRemainingColumn(), TextColumn("{task.description}"))
        self._bar = Progress(*columns, console=Console(stderr=True), auto_refresh=False, transient=True)
        self._task = self._bar.add_task("", total=source.size or None)
        self._next = 0.0
        self._bar.start()

    def show(self, tally: _Tally) -> None:
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + _MOVE_EVERY_S
            words = f"{tally.counts}, {tally.rate:,.0f}/s"
            self._bar.update(self._task, completed=self._source.bytes_read, description=words, refresh=True)

    def end(self) -> None:
        self._bar.stop()


def _progress(source: Lines) -> _Progress:
    return _Drawn(source) if sys.stderr.isatty() else _Spoken()
