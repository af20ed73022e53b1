"""Exit codes, after sysexits.h."""

from __future__ import annotations

from typing import Final

from taskmaster.errors import ConfigurationError, StoreError, StoreUnsafe, TaskMasterError

__all__ = ["EX_CONFIG", "EX_FAILED", "EX_OK", "EX_UNAVAILABLE", "EX_USAGE", "code_of"]

EX_OK: Final = 0
EX_FAILED: Final = 1
EX_USAGE: Final = 2
#: The store does not answer, or refuses.
EX_UNAVAILABLE: Final = 69
#: A setting is wrong, or the store is configured so that it would lose jobs.
EX_CONFIG: Final = 78


def code_of(error: TaskMasterError) -> int:
    """The exit code that tells a script what to do about *error*."""
    if isinstance(error, ConfigurationError | StoreUnsafe):
        return EX_CONFIG
    return EX_UNAVAILABLE if isinstance(error, StoreError) else EX_FAILED
