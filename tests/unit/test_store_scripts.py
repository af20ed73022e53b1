"""Loading scripts: includes, headers, flags; and that Lua and Python name the same answers."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from taskmaster.store import composing, scripts
from taskmaster.store.scripts import ScriptError
from taskmaster.store.status import Status

HEADER = """--[[ {name} — does something.
FLAGS  {flags}
KEYS   meta HASH tm:{{p}}:meta
ARGV   {argv}
OUT    OK
REPEAT the same ]]
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty folder in the place of the real scripts."""
    (tmp_path / "lib").mkdir()
    monkeypatch.setattr(scripts, "LUA", tmp_path)
    scripts.load.cache_clear()
    yield tmp_path
    scripts.load.cache_clear()


def write(folder: Path, name: str, body: str = "return 0\n", *, flags: str = "allow-oom", argv: str = "now ('' = server time)") -> None:
    (folder / f"{name}.lua").write_text(HEADER.format(name=name, flags=flags, argv=argv) + body, encoding="utf-8")


def test_the_headers_fit_the_code() -> None:
    """Every script says its flags, keys, arguments, answers and how a repeat is recognised, and reads as many arguments as it says."""
    assert scripts.problems() == []


def test_answers_become_their_numbers(folder: Path) -> None:
    """`STATUS.GONE` is the number of `Status.GONE`; a word that does not exist would be nil and cut the answer off, so it is an error."""
    write(folder, "a", "return { STATUS.GONE, STATUS.STALE_OP }\n")
    write(folder, "b", "return STATUS.AWAY\n")

    assert scripts.load("a").text.endswith(b"return { %d, %d }\n" % (Status.GONE, Status.STALE_OP))
    with pytest.raises(ScriptError, match=r"b\.lua: there is no answer 'AWAY'"):
        scripts.load("b")


def test_what_nothing_names_is_left_out(folder: Path) -> None:
    """Local functions and one-line locals that no later code names are not made at every call; a comment's words do not count."""
    (folder / "lib/base.lua").write_text(
        "local kept, lost = 1, 2 -- two\nlocal unused = {} -- for unneeded\n\n"
        "local function inner()\n  return kept\nend\n\n"
        "local function needed()\n  return inner() -- not unneeded()\nend\n\n"
        "local function line() return unneeded() end\nlocal function unneeded()\n  return needed(unused)\nend\n\n"
        "local table = {\n  unneeded_too = 1,\n}\nlocal asked = call('TIME')\n"
    )
    write(folder, "a", '--- @include "lib/base"\nreturn needed()\n')

    text = scripts.load("a").text.decode()

    assert text.partition("]]\n")[2] == (
        "local kept, lost = 1, 2 -- two\n\n"
        "local function inner()\n  return kept\nend\n\n"
        "local function needed()\n  return inner() -- not unneeded()\nend\n\n\n"
        "local table = {\n  unneeded_too = 1,\n}\nlocal asked = call('TIME')\n\nreturn needed()\n"
    )


@pytest.mark.parametrize("name", scripts.names())
def test_a_loaded_script_is_whole(name: str) -> None:
    """One shebang with its flags, no include left, the digest that EVALSHA asks for, each shared part once."""
    script = scripts.load(name)
    text = script.text.decode()

    assert text.startswith("#!lua")
    assert text.count("#!lua") == text.count("local call = redis.call") == 1
    assert "@include" not in text
    assert script.sha == hashlib.sha1(script.text).hexdigest()
    assert text.count("local P = ") == 1
    assert text.count("local now\n") <= 1


def test_flags_become_the_shebang(folder: Path) -> None:
    """`allow-oom` and `no-writes` reach the server; `none` sets no flag."""
    for name, flags in (("a", "allow-oom: it is the way out"), ("b", "no-writes"), ("c", "none: refused under OOM")):
        write(folder, name, flags=flags)

    assert [scripts.load(name).text.split(b"\n")[0] for name in "abc"] == [b"#!lua flags=allow-oom", b"#!lua flags=no-writes", b"#!lua"]


def test_an_include_is_pulled_in_once_before_its_first_use(folder: Path) -> None:
    """Depth first: a part that two others need comes before both, and only once."""
    (folder / "lib/base.lua").write_text("local base = 1\n")
    (folder / "lib/left.lua").write_text('--- @include "lib/base"\nlocal left = base\n')
    (folder / "lib/right.lua").write_text('--- @include "lib/base"\nlocal right = base\n')
    write(folder, "a", '--- @include "lib/left"\n--- @include "lib/right"\nreturn left + right\n')

    lines = [line for line in scripts.load("a").text.decode().splitlines() if line.startswith(("local", "return"))]

    assert lines == ["local call = redis.call", "local base = 1", "local left = base", "local right = base", "return left + right"]


def test_libraries_stand_inside_functions_of_their_own(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What follows a library of enough locals is inside a function, unless that would use more of them than Lua allows."""
    monkeypatch.setattr(composing, "LOCALS_MIN", 3)
    monkeypatch.setattr(composing, "UPVALUES_MAX", 2)
    (folder / "lib/few.lua").write_text("local a = 1\n")
    (folder / "lib/some.lua").write_text('--- @include "lib/few"\nlocal b, c = a, a\n')
    write(folder, "a", '--- @include "lib/some"\nreturn b + c\n')
    write(folder, "b", '--- @include "lib/some"\nreturn a + b + c\n')

    inner, flat = (scripts.load(name).text.decode().split("\n\n") for name in "ab")

    assert inner[-2:] == ["local b, c = a, a\nreturn (function()", "return b + c\nend)()\n"]
    assert flat[-2:] == ["local b, c = a, a", "return a + b + c\n"]


def test_a_circle_of_includes_is_an_error(folder: Path) -> None:
    """The message shows the way round."""
    (folder / "lib/left.lua").write_text('--- @include "lib/right"\n')
    (folder / "lib/right.lua").write_text('--- @include "lib/left"\n')
    write(folder, "a", '--- @include "lib/left"\n')

    with pytest.raises(ScriptError, match=r"circular include: a -> lib/left -> lib/right -> lib/left"):
        scripts.load("a")


def test_an_include_that_is_not_there_is_an_error(folder: Path) -> None:
    """The message names the file."""
    write(folder, "a", '--- @include "lib/nothing"\n')

    with pytest.raises(ScriptError, match=r"no Lua file lib/nothing\.lua"):
        scripts.load("a")


def test_a_script_that_is_not_there_is_an_error(folder: Path) -> None:
    """The message names the file."""
    with pytest.raises(ScriptError, match=r"no Lua file nothing\.lua"):
        scripts.load("nothing")


def test_unknown_flags_are_an_error(folder: Path) -> None:
    """A misspelt flag would change what happens under memory pressure."""
    write(folder, "a", flags="allow-omm")

    with pytest.raises(ScriptError, match="allow-omm"):
        scripts.load("a")


@pytest.mark.parametrize(
    ("argv", "body", "complaint"),
    [
        ("id, now ('' = server time)", "return 0\n", r"lists 2 ARGV .* reads \[\]"),
        ("now ('' = server time)", "local id = ARGV[1]\n", r"lists 1 ARGV .* reads \[1\]"),
        ("id (a, b), now ('' = server time)", "local id, more = ARGV[1], ARGV[2]\n", r"lists 2 ARGV .* reads \[1, 2\]"),
        ("id", "return 0\n", "the last ARGV must be now"),
        ("id, now ('' = server time)", "\n" * 30 + "local id = ARGV[1]\n", "name arguments in its first lines"),
        ("now ('' = server time)", "call('KEYS', '*')\n", "'KEYS' has no bound"),
    ],
)
def test_the_lint_sees(folder: Path, argv: str, body: str, complaint: str) -> None:
    """Arguments that are not named, or not used, or named too late; reads without a bound."""
    write(folder, "a", body, argv=argv)

    assert re.search(complaint, "\n".join(scripts.problems()))


def test_the_lint_sees_a_header_that_is_not_whole(folder: Path) -> None:
    """A missing section, and a name that is not the file's."""
    (folder / "a.lua").write_text(HEADER.format(name="b", flags="none", argv="now ('' = server time)").replace("REPEAT the same", ""))

    found = scripts.problems()

    assert found == ["a.lua: no REPEAT in the header", "a.lua: the header calls it 'b'"]


def test_constants_become_numbers() -> None:
    """A function of the server's Lua has at most 200 locals: a constant is none, and is left alone where it is only quoted."""
    text = "local MOST, LEAST = 10, 0.5 -- of what\nlocal a = MOST - LEAST -- MOST\nlocal b = 'MOST'\n"

    assert composing._inlined(text) == "local a = 10 - 0.5 -- MOST\nlocal b = 'MOST'\n"
    with pytest.raises(scripts.ScriptError, match="LEAST"):
        composing._inlined(text + "LEAST = 1\n")
    with pytest.raises(scripts.ScriptError, match="LEAST is a constant of two libraries"):
        composing._inlined(text + "local LEAST = 77\n")


def test_what_a_library_sets_is_set_anew_for_each_call_of_a_function() -> None:
    """Functions are made once; what stands beside them goes, in its order, into a function that each call begins with."""
    parts = [
        (
            "--[[ a — does something.\nREPEAT the same ]]\nlocal P, n = KEYS[1], 0 -- of this call\nlocal none\n-- Says more.\n"
            "local function more()\n  n = n + 1\n  return n\nend\nif ARGV[1] then\n  n = 5\nelse\n  none = {\n    1,\n  }\nend\n"
        ),
        "local both = more() + more()\n",
        "local own = both\nreturn own\n",
    ]

    assert composing.as_function(parts, "register(run)") == (
        "local KEYS, ARGV, call\nlocal function begin_0() call = redis.call end\n"
        "local P, n\nlocal none\nlocal function more()\n  n = n + 1\n  return n\nend\n"
        "local function begin_1()\nbegin_0()\nP, n = KEYS[1], 0 -- of this call\nnone = nil\n"
        "if ARGV[1] then\n  n = 5\nelse\n  none = {\n    1,\n  }\nend\nend\n"
        "local both\nlocal function begin_2()\nbegin_1()\nboth = more() + more()\nend\n"
        "local function main()\nlocal own = both\nreturn own\nend\n"
        "local function run(keys, argv)\nKEYS, ARGV = keys, argv\nbegin_2()\nreturn main()\nend\nregister(run)\n"
    )


def test_a_library_of_a_function_may_not_end_it() -> None:
    """It would end only what begins the call."""
    with pytest.raises(ScriptError, match="may not end the script: if late then return 1 end"):
        composing.as_function(["if late then return 1 end\n", "return 0\n"], "")


def test_a_resident_script_is_a_function_as_well(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its name says which text it is, so that two releases call each their own."""
    monkeypatch.setattr(scripts, "RESIDENT", {"a"})
    write(folder, "a")
    write(folder, "b")

    first = scripts.load("a").function
    scripts.load.cache_clear()
    write(folder, "a", "return 1\n")
    second = scripts.load("a").function

    assert scripts.load("b").function is None
    assert first is not None
    assert second is not None
    assert first.name != second.name
    assert first.name.startswith("taskmaster_a_")
    assert first.code.startswith(f"#!lua name={first.name}\n".encode())
    assert f"function_name = '{first.name}', callback = run, flags = {{ 'allow-oom' }}".encode() in first.code
