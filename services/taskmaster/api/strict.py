"""Reading request bodies: JSON as RFC 8259 has it and every reader understands it alike, or a clear 4xx.

Refused, because readers differ on them or they cannot be stored faithfully: duplicate names, NaN and infinities (also by overflow),
integers beyond 64 bits, lone surrogates, bytes that are not UTF-8, and nesting or sizes beyond the limits.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any, NoReturn, TypeVar, cast

import msgspec
from litestar import Request

from taskmaster.api.problems import BodyTooLarge, MalformedBody, UnsupportedMediaType
from taskmaster.errors import InvalidRequest

__all__ = ["DEPTH_MAX", "ITEMS_MAX", "convert", "decode", "is_left", "read"]

T = TypeVar("T")
#: Levels of arrays and objects, and commas between their members, in one body.
DEPTH_MAX, ITEMS_MAX = 32, 100_000
_INT_MIN, _INT_MAX = -(2**63), 2**64 - 1
#: A string, or the rest of the body where one is not closed: so each byte is looked at once.
_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)', re.DOTALL)
_IS_READ = "taskmaster.body_is_read"
_PATH_PART = re.compile(r"\.([A-Za-z_][\w-]*)|\[(\d+)\]|(\[\.\.\.\])")
_UNKNOWN = re.compile(r"Object contains unknown field `(.*)`")
_MISSING = re.compile(r"Object missing required field `(.*)`")


async def read(request: Request[Any, Any, Any], limit: int) -> bytes:
    """The whole body; reading stops when it is too long.

    Raises:
        UnsupportedMediaType: it is not sent as plain JSON.
        BodyTooLarge: more than *limit* bytes.
        MalformedBody: the client went away in the middle.
    """
    for name, value in request.scope["headers"]:
        if name == b"content-type":
            if value != b"application/json":
                _check_media_type(value)
        elif name == b"content-encoding":
            if value.strip().lower() not in (b"", b"identity"):
                raise UnsupportedMediaType("compressed bodies are not taken; send it without Content-Encoding")
        elif name == b"content-length" and (len(value) > 15 or (value.isdigit() and int(value) > limit)):
            raise _too_large(limit)
    message: Any = await request.receive()
    if message["type"] == "http.request" and not message.get("more_body"):  # nearly always
        body: bytes = message["body"]
        if len(body) > limit:
            raise _too_large(limit)
        _note_end(request)
        return body
    parts, total = [], 0
    while message["type"] == "http.request":
        parts.append(message["body"])
        total += len(parts[-1])
        if total > limit:
            raise _too_large(limit)
        if not message.get("more_body"):
            _note_end(request)
            return b"".join(parts)
        message = await request.receive()
    raise MalformedBody("the body ended early")


def _note_end(request: Request[Any, Any, Any]) -> None:
    cast("dict[str, Any]", request.scope)[_IS_READ] = True


def is_left(request: Request[Any, Any, Any]) -> bool:
    """Whether the client sends a body that was not read to its end. The server closes the connection after such a request."""
    if _IS_READ in request.scope:
        return False
    return any(name == b"transfer-encoding" or (name == b"content-length" and value != b"0") for name, value in request.scope["headers"])


def _check_media_type(value: bytes) -> None:
    essence = value.decode("latin-1").partition(";")[0].strip().lower()
    if essence != "application/json" and not (essence.startswith("application/") and essence.endswith("+json")):
        raise UnsupportedMediaType(f"the body is sent as {essence[:100]!r}; send Content-Type: application/json")


def _too_large(limit: int) -> BodyTooLarge:
    return BodyTooLarge(f"the body has more than {limit} bytes", limitBytes=limit)


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


def decode(body: bytes) -> Any:
    """The value that *body* says.

    Raises:
        MalformedBody: it is refused; the message says why.
    """
    if body.count(b"[") + body.count(b"{") > DEPTH_MAX or body.count(b",") > ITEMS_MAX:
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
