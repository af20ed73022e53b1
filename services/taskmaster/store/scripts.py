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
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import NamedTuple

from taskmaster.store.status import Status

__all__ = ["Script", "ScriptError", "load", "names", "problems"]

_INCLUDE = re.compile(r'^--- @include "(lib/[a-z_]+)"$', re.MULTILINE)
_ANSWER = re.compile(r"\bSTATUS\.([A-Z_]+)")
#: What may be left out: a function, its `end` at the margin or at the end of its only line; or one line that makes values without a call.
_LOCAL = re.compile(
    r"^local (?:function (\w+)\((?:[^\n]* end|.*?^end)|([\w, ]+) = [^\n(]*?(?: --[^\n]*)?)\n(?! )", re.MULTILINE | re.DOTALL
)
#: A constant: names in capitals, each with a number. A line of the script's own margin.
_CONSTANTS = re.compile(r"^local ([A-Z][A-Z_]+(?:, [A-Z][A-Z_]+)*) = (\d+(?:\.\d+)?(?:, \d+(?:\.\d+)?)*)(?: --[^\n]*)?\n", re.MULTILINE)
_QUOTED = re.compile(r"'[^'\n]*'|\"[^\"\n]*\"|--[^\n]*")
_QUOTED_OR_CAPITALS = re.compile(rf"{_QUOTED.pattern}|\b[A-Z][A-Z_]+\b")
_GIVEN = re.compile(r"\b([A-Z][A-Z_]+)\b *=[^=]")
#: Where a library ends, in the expanded text.
_PART = "--- @part\n"
_DECLARED = re.compile(r"^local (?:function (\w+)|([\w, ]+))", re.MULTILINE)
#: Locals of outer functions that one function may use (Lua's limit is 60), and how many make another function worth its while.
UPVALUES_MAX, LOCALS_MIN = 58, 18
_COMMENT, _WORD = re.compile(r"--.*"), re.compile(r"\w+")
_SECTIONS = ("FLAGS", "KEYS", "ARGV", "OUT", "REPEAT")
_FLAGS = {"allow-oom": "flags=allow-oom", "no-writes": "flags=no-writes", "none": ""}
LUA: Traversable = files("taskmaster.store").joinpath("lua")


class ScriptError(Exception):
    """A script or include that is missing, circular or malformed."""


class Script(NamedTuple):
    """A script ready to run.

    Attributes:
        name: its verb, the file's name.
        text: what the server is sent, bytes.
        sha: SHA-1 of the text, as EVALSHA takes it.
    """

    name: str
    text: bytes
    sha: str


def _source(name: str) -> str:
    path = LUA.joinpath(f"{name}.lua")
    if not path.is_file():
        raise ScriptError(f"no Lua file {name}.lua")
    return path.read_text(encoding="utf-8")


def _expand(name: str, done: set[str], open_: tuple[str, ...]) -> str:
    if name in open_:
        raise ScriptError(f"circular include: {' -> '.join((*open_, name))}")
    out, text, at = [], _source(name), 0
    for match in _INCLUDE.finditer(text):
        out.append(text[at : match.start()])
        at = match.end()
        if match[1] not in done:
            out += [_expand(match[1], done, (*open_, name)), _PART]
            done.add(match[1])
    return "".join([*out, text[at:]])


def _inlined(text: str) -> str:
    """*text* with its constants as numbers: a function has at most 200 locals, and a number costs no look-up."""
    values: dict[str, str] = {}
    for match in _CONSTANTS.finditer(text):
        for name, value in zip(match[1].split(", "), match[2].split(", "), strict=True):
            if values.setdefault(name, value) != value:
                raise ScriptError(f"{name} is a constant of two libraries, {values[name]} and {value}")
    if not values:
        return text
    rest = _CONSTANTS.sub("", text)
    again = values.keys() & set(_GIVEN.findall(_QUOTED.sub("", rest)))
    if again:
        raise ScriptError(f"{min(again)} is spelled like a constant and is given a value again")
    return _QUOTED_OR_CAPITALS.sub(lambda match: values.get(match[0], match[0]), rest)


def _needed(text: str) -> str:
    """*text* without the locals that nothing after them names."""
    kept: list[str] = []
    named: set[str] = set()

    def keep(part: str) -> None:
        kept.append(part)
        named.update(_WORD.findall(_COMMENT.sub("", part)))

    end = len(text)
    for match in reversed(list(_LOCAL.finditer(text))):
        keep(text[match.end() : end])
        if named.intersection(_WORD.findall(match[1] or match[2])):
            keep(match[0])
        end = match.start()
    return "".join(reversed([*kept, text[:end]]))


def _nested(text: str) -> str:
    """*text* with libraries inside functions of their own, each in the one before.

    A closure that is made looks for each local that it uses among all those of the function around it that others use already, one by one;
    what belongs to a function further out is at hand.
    """
    parts = text.split(_PART)
    words = [set(_WORD.findall(_COMMENT.sub("", part))) for part in parts]
    out, locals_, inside, depth = [parts[0]], {"call"}, 0, 0
    for place, part in enumerate(parts[1:], 1):
        for match in _DECLARED.finditer(parts[place - 1]):
            locals_.update(_WORD.findall(match[1] or match[2]))
        if len(locals_) - inside >= LOCALS_MIN and len(locals_.intersection(*[set().union(*words[place:])])) <= UPVALUES_MAX:
            out.append("return (function()\n")
            inside, depth = len(locals_), depth + 1
        out.append(part)
    return "".join([*out, *["end)()\n"] * depth])


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
    flags = _header(_source(name)).get("FLAGS", "").partition(":")[0].strip()
    if flags not in _FLAGS:
        raise ScriptError(f"{name}.lua: the header's FLAGS is {flags!r}, one of {', '.join(_FLAGS)} is expected")
    shebang = f"#!lua {_FLAGS[flags]}".rstrip()
    text = f"{shebang}\nlocal call = redis.call\n{_numbered(name, _nested(_needed(_inlined(_expand(name, set(), ())))))}".encode()
    return Script(name, text, hashlib.sha1(text, usedforsecurity=False).hexdigest())


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
