"""A file of submissions, a JSON object a line (NDJSON), read in bounded memory."""

from __future__ import annotations

import codecs
from collections import deque
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from taskmaster.engine import strict
from taskmaster.errors import BodyTooLarge, InvalidRequest

if TYPE_CHECKING:  # the command line starts without the engine
    from taskmaster.client.core import Item

__all__ = ["Lines"]


class Lines:
    """The lines of a file as items to submit, read when they are asked for. Empty ones are passed over.

    Attributes:
        size: bytes of the file; 0 where that is not known.
        bytes_read: so far.
        numbers: of the lines that were handed out and not told of yet.
    """

    def __init__(self, file: IO[bytes], limit: int, defaults: dict[str, str | None], key_field: str | None) -> None:
        self._file = file
        self._limit = limit
        self._defaults = {name: value for name, value in defaults.items() if value is not None}
        self._key_field = key_field
        path = Path(str(getattr(file, "name", "")))
        self.size = path.stat().st_size if path.is_file() else 0
        self.bytes_read = 0
        self.numbers: deque[int] = deque()

    def __iter__(self) -> Iterator[Item]:
        for number in count(1):
            line = self._file.readline(self._limit + 1)
            if not line:
                return
            whole = line.rstrip(b"\r\n")
            if number == 1:
                whole = whole.removeprefix(codecs.BOM_UTF8)
            self.bytes_read += len(line)
            is_long = len(line) > self._limit and not line.endswith(b"\n")
            if is_long:
                self._skip()
            elif not whole.strip():
                continue
            self.numbers.append(number)
            try:
                if is_long:
                    raise BodyTooLarge(f"the line has more than {self._limit} bytes", limitBytes=self._limit)
                yield self._item(strict.decode(whole))
            except InvalidRequest as error:
                yield error

    def _skip(self) -> None:
        """To the end of a line that is too long."""
        while (rest := self._file.readline(self._limit)) and not rest.endswith(b"\n"):
            self.bytes_read += len(rest)
        self.bytes_read += len(rest)

    def _item(self, value: Any) -> Any:
        if not isinstance(value, dict):
            return value  # refused with the rest of what is no submission
        for name, default in self._defaults.items():
            if value.get(name) is None:
                value[name] = default
        if self._key_field is not None and value.get("idempotencyKey") is None:
            value["idempotencyKey"] = _key_of(value.get("payload"), self._key_field)
        return value


def _key_of(payload: Any, field: str) -> str:
    found = payload.get(field) if isinstance(payload, dict) else None
    if isinstance(found, bool) or not isinstance(found, str | int):
        message = "a text or whole number is needed here: it becomes the idempotency key"
        raise InvalidRequest(f"payload/{field}: {message}", errors=[{"pointer": f"/payload/{field}", "message": message}])
    return str(found)
