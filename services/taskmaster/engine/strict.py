"""Reading what others wrote: JSON as RFC 8259 has it and every reader understands it alike, or an error that says where it is not.

Refused, because readers differ on them or they cannot be stored faithfully: duplicate names, NaN and infinities (also by overflow),
integers beyond 64 bits, lone surrogates, bytes that are not UTF-8, and nesting or sizes beyond the limits.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any, NoReturn, TypeVar

import msgspec

from taskmaster.errors import InvalidRequest, MalformedBody

__all__ = ["DEPTH_MAX", "ITEMS_MAX", "convert", "decode", "exceeds"]

T = TypeVar("T")
#: Levels of arrays and objects, and commas between their members, in one body.
DEPTH_MAX, ITEMS_MAX = 32, 100_000
_INT_MIN, _INT_MAX = -(2**63), 2**64 - 1
#: A string, or the rest of the body where one is not closed: so each byte is looked at once.
_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)', re.DOTALL)
_PATH_PART = re.compile(r"\.([A-Za-z_][\w-]*)|\[(\d+)\]|(\[\.\.\.\])")
_UNKNOWN = re.compile(r"Object contains unknown field `(.*)`")
_MISSING = re.compile(r"Object missing required field `(.*)`")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        twice = next(name for name, _ in pairs if name in seen or seen.add(name))  # type: ignore[func-returns-value]
        raise MalformedBody(f"an object has the name {_short(twice)} twice")
    return found


def _constant(text: str) -> NoReturn:
    raise MalformedBody(f"{text} is not JSON")


def _int(text: str) -> int:
    if len(text) <= 20:
        number = int(text)
        if _INT_MIN <= number <= _INT_MAX:
            return number
    raise MalformedBody(f"the number {text[:24]}{'…' if len(text) > 24 else ''} does not fit in 64 bits; send it as a string")


def _float(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise MalformedBody(f"the number {text[:24]} is too large for a double")
    return number


_decoder = json.JSONDecoder(object_pairs_hook=_object, parse_constant=_constant, parse_int=_int, parse_float=_float)


def exceeds(body: bytes) -> bool:
    """Whether *body* may be nested or filled beyond the limits; quick, and sure only when it says no."""
    return body.count(b"[") + body.count(b"{") > DEPTH_MAX or (len(body) > ITEMS_MAX and body.count(b",") > ITEMS_MAX)


def decode(body: bytes) -> Any:
    """The value that *body* says.

    Raises:
        MalformedBody: it is refused; the message says why.
    """
    if exceeds(body):
        _check_shape(body)
    try:
        text = body.decode()
    except UnicodeDecodeError as error:
        raise MalformedBody(f"byte {error.start} is not UTF-8") from error
    try:
        value = _decoder.decode(text)
    except json.JSONDecodeError as error:
        raise MalformedBody(f"not JSON: {error.msg} at line {error.lineno}, column {error.colno}") from error
    except RecursionError as error:
        raise MalformedBody(f"nested more than {DEPTH_MAX} levels deep") from error
    if "\\u" in text and re.search(r"\\u[dD][89a-fA-F]", text):
        try:
            json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError as error:
            raise MalformedBody("a string has half of a surrogate pair") from error
    return value


def _check_shape(body: bytes) -> None:
    """Depth and number of members, without decoding: the decoder recurses."""
    bare = _STRING.sub(b"", body)
    if bare.count(b",") > ITEMS_MAX:
        raise MalformedBody(f"more than {ITEMS_MAX} members")
    depth = 0
    for byte in re.finditer(rb"[\[\]{}]", bare):
        depth += 1 if byte[0] in b"[{" else -1
        if depth > DEPTH_MAX:
            raise MalformedBody(f"nested more than {DEPTH_MAX} levels deep")


def convert(value: Any, kind: type[T]) -> T:
    """The decoded *value* as a *kind*.

    Raises:
        InvalidRequest: it has another shape; fact `errors` says where.
    """
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        message, _, path = str(error).rpartition(" - at `$") if " - at `$" in str(error) else (str(error), "", "")
        pointer = _pointer(path.rstrip("`"))
        for pattern, words in ((_UNKNOWN, "is not a known field"), (_MISSING, "is required")):
            found = pattern.fullmatch(message)
            if found:
                pointer, message = f"{pointer}/{_short(found[1])}", words
        shown = f"{pointer.lstrip('/') or 'the body'}: {message}"
        raise InvalidRequest(shown, errors=[{"pointer": pointer, "message": message}]) from error


def _pointer(path: str) -> str:
    return "".join("/" + (name or index or "*") for name, index, _ in _PATH_PART.findall(path))


def _short(text: str) -> str:
    plain = text.encode("utf-8", "backslashreplace").decode()
    return plain if len(plain) <= 64 else plain[:63] + "…"
