"""Build the image and run compose.yaml: `python tests/compose/run.py --help`."""

import sys
from pathlib import Path

# The folder above in place of this one: modules are `compose.…` and `support.…`.
sys.path[0:1] = [str(Path(__file__).resolve().parents[1])]

from compose.main import main  # noqa: E402

if __name__ == "__main__":
    sys.exit(main())
