"""Measure TaskMaster beside stock Dramatiq and BullMQ: `python tests/bench/run.py --help`."""

import sys
from pathlib import Path

# The folder above in place of this one: modules are `bench.…` and `support.…`, and none of them hides one of the standard library.
TESTS = Path(__file__).resolve().parents[1]
sys.path[0:1] = [str(TESTS), str(TESTS.parent / "services")]

from bench.main import main  # noqa: E402

if __name__ == "__main__":
    sys.exit(main())
