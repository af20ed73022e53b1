"""A client that was made, and used, before a fork; and the example of the README."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from integration.client.conftest import counted, working
from support.processes import environ_of
from support.servers import StoreServer
from taskmaster_sdk import JobContext, job

README = Path(__file__).resolve().parents[3] / "README.md"

#: As a pre-forking server: the parent has used the client, and goes on using it while its children do.
FORKING = """
import os, sys
from taskmaster.client import Client
client = Client(sys.argv[1])
client.submit("mail", {"to": "parent"}, key="before")
children = []
for child in range(4):
    pid = os.fork()
    if not pid:
        try:
            for n in range(50):
                client.submit("mail", {"to": "child"}, key=f"{child}-{n}")
            assert client.submit("mail", {"to": "parent"}, key="before").duplicate
            items = ({"type": "mail", "idempotencyKey": f"m{n}", "payload": {"to": "all"}} for n in range(600))
            assert sum(1 for _ in client.submit_many(items)) == 600
            client.close()
        except BaseException as error:
            print(repr(error), flush=True)
            os._exit(1)
        os._exit(0)
    children.append(pid)
    client.submit("mail", {"to": "parent"}, key=f"after-{child}")
for n in range(50):
    client.submit("mail", {"to": "parent"}, key=f"beside-{n}")
print(sorted({os.waitpid(pid, 0)[1] for pid in children}))
client.submit("mail", {"to": "parent"}, key="end")
"""

FORKING_LOOPS = """
import asyncio, os, sys
from taskmaster.client import AsyncClient
client = AsyncClient(sys.argv[1])

async def some(who):
    for n in range(30):
        await client.submit("mail", {"to": "a"}, key=f"{who}-{n}")

async def parent():
    await some("parent")
    pid = os.fork()
    if not pid:
        asyncio.events._set_running_loop(None)
        try:
            asyncio.run(some("child"))
        except BaseException as error:
            print(repr(error), flush=True)
            os._exit(1)
        os._exit(0)
    await some("after")
    print(os.waitpid(pid, 0)[1])
    await some("end")
    await client.close()

asyncio.run(parent())
"""


def run(script: str, *arguments: str, **options: Any) -> str:
    done = subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=False, timeout=100, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    return done.stdout


def test_a_fork_gets_connections_of_its_own(url: str) -> None:
    """Parent and children use it at once; no answer goes to the wrong one, no connection is closed for another."""
    assert run(FORKING, url) == "[0]\n"

    assert counted(url) == 1 + 4 * 50 + 600 + 4 + 50 + 1


def test_a_fork_of_a_loop_gets_connections_of_its_own(url: str) -> None:
    assert run(FORKING_LOOPS, url) == "0\n"

    assert counted(url) == 4 * 30


@job("welcome-email")
def welcome(payload: dict[str, str], ctx: JobContext) -> dict[str, str]:
    """Say whom it would greet."""
    return {"to": payload["email"]}


@pytest.mark.parametrize("number", [0, 1])
def test_the_readmes_examples_run(clean_server: StoreServer, tmp_path: Path, number: int) -> None:
    """As they stand, beside a worker that has the type."""
    section = README.read_text("utf-8").partition("## From Python")[2].partition("\n## ")[0]
    example = re.findall(r"```python\n(.*?)```", section, re.DOTALL)[number]

    with working(clean_server.url, welcome):
        said = run(example, env=environ_of(redis_url=clean_server.url), cwd=tmp_path)

    assert "albert@example.com" in said
