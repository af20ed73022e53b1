"""A log line that cannot be written neither holds up nor fails whoever wrote it."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import threading
from types import SimpleNamespace

from taskmaster.telemetry import stream as module
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


def test_lines_that_follow_one_another_are_written_together_and_in_order(monkeypatch) -> None:
    """The first at once, the others soon, in few writes; a line that is not to wait goes behind those that do."""
    read, write = os.pipe()
    with open(read, "rb", buffering=0) as reader, open(write, "w") as usual:
        stream, writes = LogStream(usual, str), list[int]()
        put = stream._put

        def counted(text: str, patience_ms: int) -> int:
            writes.append(text.count("\n"))
            return put(text, patience_ms)

        monkeypatch.setattr(stream, "_put", counted)
        for n in range(500):
            stream.write_soon(f"{n}\n")
        stream.write("urgent\n")
        lines = reader.read(1_000_000).decode().split()
        at_once = list(writes)
        stream.write_soon("alone\n")
        last = reader.read(1_000)  # nobody asks for it: it comes by itself

    assert lines == [*map(str, range(500)), "urgent"]
    assert at_once[0] == 1
    assert sum(at_once) == 501
    assert last == b"alone\n"


def test_what_waits_in_a_parent_is_not_written_by_its_child_too() -> None:
    read, write = os.pipe()
    with open(read, "rb", buffering=0) as reader, open(write, "w") as usual:
        stream = LogStream(usual, str)
        stream.write("first\n")
        stream.write_soon("waits\n")
        pid = os.fork()
        if pid == 0:
            stream.write("child\n")
            os._exit(0)
        os.waitpid(pid, 0)
        stream.flush()
        text = b""
        while text.count(b"\n") < 3:
            text += reader.read(1_000)

    assert sorted(text.split()) == [b"child", b"first", b"waits"]


def test_a_fork_waits_for_a_line_that_is_being_written(monkeypatch) -> None:
    """The child can write at once, whatever another thread of its parent was about."""
    read, write = os.pipe()
    with open(read, "rb", buffering=0) as reader, open(write, "w") as usual:
        stream, is_writing, go_on = LogStream(usual, str), threading.Event(), threading.Event()
        put = stream._put

        def slow(text: str, patience_ms: int) -> int:
            is_writing.set()
            go_on.wait(10)
            return put(text, patience_ms)

        monkeypatch.setattr(stream, "_put", slow)
        writer = threading.Thread(target=stream.write, args=("parent\n",))
        writer.start()
        is_writing.wait(10)
        threading.Timer(0.05, go_on.set).start()
        pid = os.fork()
        if pid == 0:
            stream.write("child\n")
            os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0
        writer.join(10)
        assert sorted(reader.read(1_000).split()) == [b"child", b"parent"]


def test_where_no_thread_is_to_be_had_lines_do_not_wait() -> None:
    """At a limit of memory or of processes, or when an interpreter ends. What is logged raises nothing, and is there."""
    read, write = os.pipe()
    with open(read, "rb", buffering=0) as reader, open(write, "w") as usual:
        stream = LogStream(usual, str)
        before = threading.stack_size(1 << 47)  # more than there are addresses
        try:
            for n in range(3):
                stream.write_soon(f"{n}\n")
        finally:
            threading.stack_size(before)
        lines = reader.read(1_000).split()

    assert lines == [b"0", b"1", b"2"]


def test_a_reader_that_dawdles_holds_up_nobody_for_long(monkeypatch) -> None:
    """It takes a page just before patience ends, again and again: a batch waits for it half a second in all, and the rest is counted."""
    read, write = os.pipe()
    clock = SimpleNamespace(now=0.0)
    clock.monotonic = lambda: clock.now
    with open(read, "rb", buffering=0) as reader, open(write, "w") as usual:
        seen = []

        class Dawdling:
            def register(self, fd: int, events: int) -> None:
                pass

            def poll(self, within_ms: int) -> bool:
                clock.now += (within_ms - 1) / 1_000
                seen.append(reader.read(select.PIPE_BUF))
                return True

        stream = LogStream(usual, lambda lines: f"dropped {lines}")
        monkeypatch.setattr(module, "time", clock)
        monkeypatch.setattr(module.select, "poll", Dawdling)
        stream.write("".join(f"{n:04d} {'x' * 4_000}\n" for n in range(1_000)))
        monkeypatch.undo()
        waited_s = clock.now
        seen.append(reader.read(1_000_000))
        stream.write("after\n")
        seen.append(reader.read(1_000_000))

    lines = b"".join(seen).splitlines()
    whole = [line for line in lines if len(line) == 4_005]
    assert waited_s < 1
    assert lines[-2:] == [b"dropped %d" % (1_000 - len(whole)), b"after"]
    assert len(whole) > 10


def test_nothing_waits_when_an_interpreter_ends() -> None:
    """The last lines of a process that ends by itself are there."""
    code = "from taskmaster.telemetry import logs; logs.configure('info', 'json'); [logs.get().info(str(n)) for n in range(50)]"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)

    assert [json.loads(line)["event"] for line in done.stderr.splitlines()] == [str(n) for n in range(50)]


def test_a_batch_that_does_not_fit_leaves_whole_lines(monkeypatch) -> None:
    """A pipe takes a page or nothing: what is in it can be read line by line, and what is not is counted."""
    read, write = os.pipe()
    with open(read, "rb", buffering=0) as reader, open(write, "w") as usual:
        stream = LogStream(usual, lambda lines: f"dropped {lines}")
        for n in range(3_000):
            stream.write_soon(f"{n:04d} {'x' * 95}\n")
        stream.flush()
        lines = reader.read(1_000_000).splitlines()
        stream.write("after\n")
        lines += reader.read(1_000_000).splitlines()

    whole = [line for line in lines if len(line) == 100]
    assert [int(line[:4]) for line in whole] == list(range(len(whole)))
    told = sum(int(line.split()[1]) for line in lines if line.startswith(b"dropped "))
    assert (told + len(whole), lines[-1]) == (3_000, b"after")
    assert all(line == b"after" or line.startswith(b"dropped ") for line in lines if len(line) != 100)
