"""Lua files made into what a server is sent: shared parts pulled in once, what would be made in vain left out.

The same parts become a script, which the server runs from top to bottom at every call, or a function, which it keeps: there what the parts
declare is made once, and only what they set is set anew for each call.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence

__all__ = ["ScriptError", "as_function", "as_script", "parts_of"]

_INCLUDE = re.compile(r'^--- @include "(lib/[a-z_]+)"$', re.MULTILINE)
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
#: A local with its value, or without one.
_SET = re.compile(r"local ([\w, ]+?)(?: = (.*)| *(?:--.*)?)", re.DOTALL)
_HEADER = re.compile(r"\A\s*--\[\[.*?\]\]\n?", re.DOTALL)
#: A line that goes on with the statement before it.
_GOES_ON = re.compile(r"(?:end|else|elseif|until)\b|[ \t})\]]")


class ScriptError(Exception):
    """A script or include that is missing, circular or malformed."""


def parts_of(name: str, source: Callable[[str], str]) -> list[str]:
    """The parts of a script: each library once and before whoever uses it, the script's own part last.

    Args:
        name: of the script's file.
        source: reads one of the files by its name.

    Raises:
        ScriptError: an include that is missing or circular, or a constant that is none.
    """
    return _needed(_inlined(_expand(name, source, set(), ()))).split(_PART)


def as_script(parts: Sequence[str]) -> str:
    """*parts* as a text that the server runs from top to bottom."""
    return f"local call = redis.call\n{_nested(parts)}"


def as_function(parts: Sequence[str], register: str) -> str:
    """*parts* as a library that the server keeps, its function being `run(keys, argv)`.

    Functions are made once. What the libraries set beside them, as well as `KEYS`, `ARGV` and `call`, is set anew when a call begins, in
    the same order; the script's own part is one function, so that all of it is anew.

    Args:
        parts: as `parts_of` has them.
        register: the statement that makes `run` known.

    Raises:
        ScriptError: a library that may end the script.
    """
    *libraries, own = (_HEADER.sub("", part) for part in parts)
    out = ["local KEYS, ARGV, call\nlocal function begin_0() call = redis.call end\n"]
    begun = 0
    for library in libraries:
        declared, functions, sets = [], [], []
        for statement in _statements(library):
            if statement.startswith("local function "):
                functions.append(statement)
            elif match := _SET.fullmatch(statement):
                declared.append(f"local {match[1]}")
                sets.append(f"{match[1]} = {match[2] or 'nil'}")
            elif re.search(r"\breturn\b", statement):
                raise ScriptError(f"a library may not end the script: {statement}")
            else:
                sets.append(statement)
        if sets:
            begun += 1
            functions.append("\n".join((f"local function begin_{begun}()", f"begin_{begun - 1}()", *sets, "end")))
        out.append("\n".join([*declared, *functions, ""]))
    run = f"local function run(keys, argv)\nKEYS, ARGV = keys, argv\nbegin_{begun}()\nreturn main()\nend"
    return _nested([*out, f"local function main()\n{own}end\n{run}\n{register}\n"])


def _statements(library: str) -> Iterator[str]:
    """What stands at the margin, each with the lines that belong to it, without comments between them."""
    lines: list[str] = []
    for line in library.splitlines():
        if not line.strip() or line.startswith("--"):
            continue
        if lines and not _GOES_ON.match(line):
            yield "\n".join(lines)
            lines = []
        lines.append(line)
    if lines:
        yield "\n".join(lines)


def _expand(name: str, source: Callable[[str], str], done: set[str], open_: tuple[str, ...]) -> str:
    if name in open_:
        raise ScriptError(f"circular include: {' -> '.join((*open_, name))}")
    out, text, at = [], source(name), 0
    for match in _INCLUDE.finditer(text):
        out.append(text[at : match.start()])
        at = match.end()
        if match[1] not in done:
            out += [_expand(match[1], source, done, (*open_, name)), _PART]
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
    wanted: list[str] = []
    named: set[str] = set()

    def keep(part: str) -> None:
        wanted.append(part)
        named.update(_WORD.findall(_COMMENT.sub("", part)))

    end = len(text)
    for match in reversed(list(_LOCAL.finditer(text))):
        keep(text[match.end() : end])
        if named.intersection(_WORD.findall(match[1] or match[2])):
            keep(match[0])
        end = match.start()
    return "".join(reversed([*wanted, text[:end]]))


def _nested(parts: Sequence[str]) -> str:
    """*parts* as one text with libraries inside functions of their own, each in the one before.

    A closure that is made looks for each local that it uses among all those of the function around it that others use already, one by one;
    what belongs to a function further out is at hand.
    """
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
