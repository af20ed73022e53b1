"""Removing old files below one folder, and never anything outside it."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from taskmaster_sdk import Fatal, JobContext

__all__ = ["Cleaner", "Cleanup"]

#: Names listed in the result.
LISTED = 100


@dataclass
class Cleanup:
    """What to remove.

    Attributes:
        olderThanS: seconds since the last change of a file, at least.
        dryRun: count only.
    """

    olderThanS: int  # noqa: N815 - as on the wire
    dryRun: bool = False  # noqa: N815


class Cleaner:
    """The handler and the folder it works in, set by the plugin's `on_init`."""

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder

    def cleanup_temp(self, payload: Cleanup, ctx: JobContext) -> dict[str, Any]:
        """Remove files below the data folder's tmp that have not changed for some time. Symbolic links are neither followed nor removed."""
        if payload.olderThanS < 0:
            raise Fatal(f"olderThanS is {payload.olderThanS}: 0 or more is meant")
        if self.folder is None:
            raise RuntimeError("the plugin was not initialised: there is no folder to clean")
        if self.folder.is_symlink():
            raise Fatal("the tmp folder is a symbolic link: refused")
        self.folder.mkdir(parents=True, exist_ok=True)
        before = time.time() - payload.olderThanS
        removed, kept, links, freed = [], 0, 0, 0
        for entry in _files(str(self.folder), ctx):
            facts = entry.status
            if stat.S_ISLNK(facts.st_mode):
                links += 1
            elif not stat.S_ISREG(facts.st_mode) or facts.st_mtime > before:
                kept += 1
            elif payload.dryRun or entry.remove():
                removed.append(entry.name)
                freed += facts.st_size
        removed.sort()
        return {
            "dryRun": payload.dryRun,
            "removed": len(removed),
            "kept": kept,
            "linksSkipped": links,
            "freedBytes": freed,
            "files": removed[:LISTED],
        }


@dataclass(frozen=True, slots=True)
class _Entry:
    """One name in a folder that is held open, so that nobody can swap the folder for a link between looking and removing."""

    name: str
    base: str
    folder_fd: int
    status: os.stat_result

    def remove(self) -> bool:
        """Whether it is gone by our hand."""
        try:
            os.unlink(self.base, dir_fd=self.folder_fd)
        except FileNotFoundError:
            return False
        return True


def _files(top: str, ctx: JobContext) -> Iterator[_Entry]:
    """Everything below *top* that is not a folder. `fwalk` opens each folder without following links."""
    for folder, folders, names, folder_fd in os.fwalk(top, follow_symlinks=False):
        ctx.check()
        for base in (*names, *folders):  # a link to a folder is among the folders
            try:
                status = os.stat(base, dir_fd=folder_fd, follow_symlinks=False)
            except FileNotFoundError:
                continue
            if stat.S_ISDIR(status.st_mode):
                continue
            yield _Entry(os.path.relpath(os.path.join(folder, base), top), base, folder_fd, status)
