"""Load and faults for a while, then a verdict: `python tests/soak/run.py --help`."""

import sys
from pathlib import Path

# The folder above in place of this one: modules are `soak.…` and `support.…`.
sys.path[0:1] = [str(Path(__file__).resolve().parents[1])]

from soak.main import main  # noqa: E402

if __name__ == "__main__":
    sys.exit(main())
