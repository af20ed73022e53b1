"""A log line that cannot be written neither holds up nor fails whoever wrote it."""

from __future__ import annotations

import os
import threading

from taskmaster.telemetry.stream import LogStream


def test_a_full_pipe_drops_lines_and_says_how_many() -> None:
    """Whole lines only; the count comes before the next line that gets through."""
    read, write = os.pipe()
    with open(read, "rb", buffering=0) as reader, open(write, "w") as usual:
        stream = LogStream(usual, lambda lines: f"dropped {lines}")
        writer = threading.Thread(target=lambda: [stream.write(f"{n:04d} {'x' * 95}\n") for n in range(2_000)])
        writer.start()
        writer.join(10)
        assert not writer.is_alive()
        lines = reader.read(1_000_000).splitlines()
        stream.write("after\n")
        lines += reader.read(1_000_000).splitlines()

    whole = [line for line in lines if len(line) == 100]
    told = sum(int(line.split()[1]) for line in lines if line.startswith(b"dropped "))
    assert [int(line[:4]) for line in whole] == list(range(len(whole)))
    assert told == 2_000 - len(whole) > 1_000
    assert lines[-1] == b"after"


def test_a_reader_that_died_raises_nothing() -> None:
    read, write = os.pipe()
    os.close(read)
    with open(write, "w") as usual:
        assert LogStream(usual, str).write("line\n") == 5


def test_a_full_disk_raises_nothing() -> None:
    usual = open("/dev/full", "w")  # noqa: SIM115 - closing it fails as well
    assert LogStream(usual, str).write("line\n") == 5
    os.dup2(os.open(os.devnull, os.O_WRONLY), usual.fileno())  # what is in its buffer can go now
    usual.close()
