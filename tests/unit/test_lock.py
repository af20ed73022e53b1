"""The lock: names what every project needs, pinned and hashed, and no place to fetch it from."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
PROJECTS = [ROOT / "pyproject.toml", *sorted((ROOT / "plugins").glob("*/pyproject.toml"))]


def name_of(requirement: str) -> str:
    found = re.match(r"[A-Za-z0-9._-]+", requirement)
    assert found is not None, requirement
    return re.sub(r"[-_.]+", "-", found[0]).lower()


def test_every_direct_dependency_is_locked() -> None:
    tables = [tomllib.loads(path.read_text()) for path in PROJECTS]
    own = {name_of(table["project"]["name"]) for table in tables}
    wanted = {name_of(one) for table in tables for one in table["project"]["dependencies"]}
    root = tables[0]
    more = [*root["dependency-groups"].values(), *root["project"]["optional-dependencies"].values()]
    wanted |= {name_of(one) for group in more for one in group}
    locked = set(re.findall(r"^([a-z0-9.-]+)==", (ROOT / "ops" / "requirements.lock").read_text(), re.MULTILINE))

    assert wanted - own - locked == set(), "ops/dev lock brings the lock up to date"
    assert own & locked == set()


def test_every_pin_has_a_hash_and_no_address() -> None:
    text = (ROOT / "ops" / "requirements.lock").read_text()

    pins = re.split(r"^(?=[a-z0-9.-]+==)", text, flags=re.MULTILINE)[1:]
    assert [pin.splitlines()[0] for pin in pins if "--hash=sha256:" not in pin] == []
    assert re.search(r"://|file:|^-", text, re.MULTILINE) is None
