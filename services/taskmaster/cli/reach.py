"""Whether the API's `/scaling` answers, tried from here."""

from __future__ import annotations

import contextlib
import http.client
from typing import Any

import msgspec

from taskmaster.cli.launcher import loopback
from taskmaster.engine.checklist.facts import Reach

__all__ = ["reach"]

#: For a connection, and for each part of an answer.
WITHIN_S = 2.0
ANSWER_MAX = 4_000_000


class _Scaling(msgspec.Struct):
    items: list[Any]


def reach(host: str, port: int) -> Reach:
    """Ask the API that listens on *host* and *port*. Not reached is no fault of its own: it may run elsewhere, or not yet.

    What answers there and is not this API is not judged.
    """
    if not port:
        return Reach(None, "no port of the API is set")
    shown = loopback(host)
    url = f"http://{f'[{shown}]' if ':' in shown else shown}:{port}/scaling"
    try:
        with contextlib.closing(http.client.HTTPConnection(shown, port, timeout=WITHIN_S)) as connection:
            connection.request("GET", "/scaling")
            answer = connection.getresponse()
            kind, status, body = answer.headers.get_content_type(), answer.status, answer.read(ANSWER_MAX)
        if status != 200 and kind == "application/problem+json":
            return Reach(False, f"{url} answers {status}")
        msgspec.json.decode(body, type=_Scaling)
    except OSError as error:
        return Reach(None, f"no API answers at {url} from here ({type(error).__name__})")
    except (http.client.HTTPException, msgspec.MsgspecError, UnicodeError):
        return Reach(None, f"what answers at {url} is not this API")
    return Reach(True, f"{url} answers")
