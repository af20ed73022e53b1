"""Break the engine on purpose, a rule at a time: `python tests/mutants/run.py --help`."""

import sys
from pathlib import Path

# The folder above in place of this one: modules are `mutants.…` and `support.…`.
sys.path[0:1] = [str(Path(__file__).resolve().parents[1])]

from mutants.main import main  # noqa: E402

if __name__ == "__main__":
    sys.exit(main())
