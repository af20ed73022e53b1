"""Loading the Lua scripts: one file is one transition, `--- @include "lib/x"` pulls in a shared part once.

The server runs a script's text from top to bottom at every call, so what it would make in vain is left out: a local function or a plain
local that nothing after it names. `STATUS.OK` and the other answers of `status.py` become their numbers.

Every script opens with a header that says FLAGS, KEYS, ARGV, OUT and REPEAT; `problems` holds headers against code, for lint and tests.
Run as a module (`python -m taskmaster.store.scripts`) it prints them and exits 1 if there are any.
"""

from __future__ import annotations

import hashlib
import re
import sys
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import NamedTuple

from taskmaster.store.composing import ScriptError, as_function, as_script, parts_of
from taskmaster.store.status import Status

__all__ = ["PREFIX", "Function", "Script", "ScriptError", "load", "names", "problems"]

_ANSWER = re.compile(r"\bSTATUS\.([A-Z_]+)")
_SECTIONS = ("FLAGS", "KEYS", "ARGV", "OUT", "REPEAT")
_FLAGS = {"allow-oom": "allow-oom", "no-writes": "no-writes", "none": ""}
#: What runs many times a second and is long: the server keeps these as functions, if it may.
RESIDENT = frozenset({"cycle", "submit"})
#: How the names of our functions begin.
PREFIX = "taskmaster_"
_PLACE = "@name@"
LUA: Traversable = files("taskmaster.store").joinpath("lua")


class Script(NamedTuple):
    """A script ready to run.

    Attributes:
        name: its verb, the file's name.
        text: what the server is sent, bytes.
        sha: SHA-1 of the text, as EVALSHA takes it.
        function: does the same; None: it is not worth keeping.
    """

    name: str
    text: bytes
    sha: str
    function: Function | None = None


class Function(NamedTuple):
    """A script as the server keeps it.

    Attributes:
        name: of the function and of the library that it is all of: verb and digest, so that releases do not meet.
        code: what FUNCTION LOAD takes.
    """

    name: str
    code: bytes


def _source(name: str) -> str:
    path = LUA.joinpath(f"{name}.lua")
    if not path.is_file():
        raise ScriptError(f"no Lua file {name}.lua")
    return path.read_text(encoding="utf-8")


def _numbered(name: str, text: str) -> str:
    try:
        return _ANSWER.sub(lambda match: str(Status[match[1]].value), text)
    except KeyError as error:
        raise ScriptError(f"{name}.lua: there is no answer {error}") from error


def _header(source: str) -> dict[str, str]:
    match = re.match(r"--\[\[ ([a-z_]+) — .+?\]\]", source, re.DOTALL)
    if not match:
        return {}
    found = {"name": match[1]}
    for section in _SECTIONS:
        part = re.search(rf"^{section} +(.+?)(?=^[A-Z]{{3,}} |\]\]|\Z)", match[0], re.DOTALL | re.MULTILINE)
        if part:
            found[section] = part[1].strip()
    return found


@cache
def load(name: str) -> Script:
    """Read, expand and hash one script. Cached.

    Raises:
        ScriptError: no such file, an include that is missing or circular, or a header without flags.
    """
    flags, parts = _flags(name), parts_of(name, _source)
    shebang = f"#!lua flags={flags}" if flags else "#!lua"
    text = f"{shebang}\n{_numbered(name, as_script(parts))}".encode()
    return Script(name, text, _digest(text), _function(name, flags, parts) if name in RESIDENT else None)


def _function(name: str, flags: str, parts: Sequence[str]) -> Function:
    told = f", flags = {{ '{flags}' }}" if flags else ""
    register = f"redis.register_function{{ function_name = '{_PLACE}', callback = run{told} }}"
    text = _numbered(name, as_function(parts, register))
    full_name = f"{PREFIX}{name}_{_digest(text.encode())[:12]}"
    return Function(full_name, f"#!lua name={full_name}\n{text.replace(_PLACE, full_name)}".encode())


def _digest(text: bytes) -> str:
    return hashlib.sha1(text, usedforsecurity=False).hexdigest()


def _flags(name: str) -> str:
    said = _header(_source(name)).get("FLAGS", "").partition(":")[0].strip()
    if said not in _FLAGS:
        raise ScriptError(f"{name}.lua: the header's FLAGS is {said!r}, one of {', '.join(_FLAGS)} is expected")
    return _FLAGS[said]


def names() -> list[str]:
    """All verbs, sorted."""
    return sorted(f.name[:-4] for f in LUA.iterdir() if f.name.endswith(".lua"))


def problems() -> list[str]:
    """What is wrong with the scripts' headers and shape, a line each; empty when all is well."""
    wrong: list[str] = []
    for name in names():
        source = _source(name)
        header, body = _header(source), source[source.find("]]") + 2 :]
        wrong += [f"{name}.lua: no {section} in the header" for section in ("name", *_SECTIONS) if section not in header]
        if header.get("name") != name:
            wrong.append(f"{name}.lua: the header calls it {header.get('name')!r}")
        if wrong and wrong[-1].startswith(f"{name}.lua"):
            continue
        listed = re.sub(r"\([^()]*(?:\([^()]*\)[^()]*)*\)", "", header["ARGV"])
        count = listed.count(",") + 1
        used = {int(n) for n in re.findall(r"ARGV\[(\d+)\]", body)}
        if used != set(range(1, count)):  # the last one is `now`, read by lib/now
            wrong.append(f"{name}.lua: the header lists {count} ARGV ({listed!r}), the code reads {sorted(used)} and now")
        if "now ('' = server time)" not in header["ARGV"]:
            wrong.append(f"{name}.lua: the last ARGV must be now ('' = server time)")
        naming = body[: body.rfind("ARGV[")].count("\n") if "ARGV[" in body else 0
        if naming > 20:
            wrong.append(f"{name}.lua: ARGV is read {naming} lines into the body; name arguments in its first lines")
        wrong += [f"{name}.lua: {word} has no bound" for word in ("'KEYS'", "'SCAN'", "'SMEMBERS', P .. 'it:") if f"call({word}" in body]
    return wrong


if __name__ == "__main__":
    found = problems()
    for line in found:
        sys.stderr.write(f"{line}\n")
    sys.exit(bool(found))
