"""`python -m taskmaster`: the command line."""

from taskmaster.cli import main

if __name__ == "__main__":
    main()
