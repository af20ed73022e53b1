"""A job from a script, without HTTP: for the timers of a machine, a deployment, another program.

    python -m taskmaster_system.producer generate-report '{"title": "After the backup"}' --every-s 86400

The key is the type and the begin of the stretch of time, so that however often, and from however many machines, it runs in that stretch,
there is one job. The store is found as the commands find it: environment, `.env`, `taskmaster.toml`.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import sys
import time
from collections.abc import Sequence
from typing import Any

from taskmaster.client import Client
from taskmaster.errors import TaskMasterError

__all__ = ["bucket_key", "main"]


def bucket_key(job_type: str, every_s: int, now_s: float) -> str:
    """The same for all moments of one stretch of *every_s* seconds, counted from 1970."""
    begin = dt.datetime.fromtimestamp(now_s // every_s * every_s, dt.UTC)
    return f"{job_type}@{begin:%Y-%m-%dT%H:%M:%SZ}"


def main(words: Sequence[str] | None = None) -> int:
    """Submit one job and print its id. 0: it is stored, or was; 1: refused, or the store does not answer."""
    given = _parser().parse_args(words)
    try:
        with Client() as client:
            done = client.submit(given.type, given.payload, key=bucket_key(given.type, given.every_s, time.time()))
    except TaskMasterError as error:
        sys.stderr.write(f"{error.message}\n")
        return 1
    sys.stdout.write(f"{done.id}\n")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m taskmaster_system.producer", description="Submit one job of a stretch of time.")
    parser.add_argument("type", help="job type")
    parser.add_argument("payload", type=_object, nargs="?", default={}, help="JSON object ({} when not given)")
    parser.add_argument(
        "--every-s", type=_positive, default=86_400, metavar="S", help="one job in each so many seconds (86400: a day, UTC)"
    )
    return parser


def _object(text: str) -> dict[str, Any]:
    found = json.loads(text)
    if not isinstance(found, dict):
        raise argparse.ArgumentTypeError("a JSON object is meant")
    return found


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("1 or more is meant")
    return number


if __name__ == "__main__":
    sys.exit(main())
