"""A consumer's inbox: markers, asked for over a connection of its own, so that no completion stands behind the wait."""

from __future__ import annotations

import time
from typing import Any

import redis
from hiredis import pack_command

from taskmaster.store.faults import translate
from taskmaster.store.keys import key

__all__ = ["Inbox"]

#: An inbox answers so much later than its block at most, or it is lost: what came just after one gave up would be a marker lost.
_OVERDUE_S = 5.0
#: For each step of connecting an inbox.
_CONNECT_S = 1.0


class Inbox:
    """Asks for the members of `in:<wid>`, one by one. One thread uses it.

    Between `ask` and `take` it is for the caller to wait until `fileno` can be read.

    Attributes:
        answers_by: monotonic seconds by which what was asked is answered, or the inbox is lost; 0: nothing is asked.
    """

    def __init__(self, client: redis.Redis, partition: int, wid: str) -> None:
        self._pool = client.connection_pool
        self._key = key(partition, f"in:{wid}")
        self._connection: Any = None
        self.answers_by = 0.0

    @property
    def is_connected(self) -> bool:
        """Whether the next request needs no new connection."""
        return self._connection is not None

    def is_overdue(self, now: float) -> bool:
        """Whether what was asked should have been answered: a marker may be lost with it, and the caller must look for work."""
        return 0 < self.answers_by <= now

    def ask(self, block_s: float) -> None:
        """Ask for the next marker, which may take the store *block_s* seconds. Not before what was asked is answered.

        Raises:
            StoreError: the connection broke. A marker may be lost with it.
        """
        try:
            if self._connection is None:
                # Whoever waits here has a round to make: it does not wait for long.
                patience_s = {
                    name: min(_CONNECT_S, self._pool.connection_kwargs[name]) for name in ("socket_timeout", "socket_connect_timeout")
                }
                connection = self._pool.connection_class(**self._pool.connection_kwargs | patience_s)
                connection.connect()
                self._connection = connection
            command: tuple[Any, ...] = ("BZPOPMIN", self._key, block_s)
            self._connection.send_packed_command((pack_command(command),), check_health=False)
        except (redis.RedisError, OSError) as error:
            self.close()
            raise translate(error, "inbox") from error
        self.answers_by = time.monotonic() + block_s + _OVERDUE_S

    def fileno(self) -> int:
        """Of the socket on which the answer comes, once it was asked for."""
        number: int = self._connection._sock.fileno()  # noqa: SLF001 - the library has no other name for it
        return number

    def take(self) -> str | None:
        """The marker, or None: there is none yet, or none came while the store waited for one.

        Raises:
            StoreError: as `ask`.
        """
        try:
            reply = self._connection.read_response(timeout=0, disconnect_on_error=False)
        except redis.TimeoutError:  # not a whole answer yet
            return None
        except (redis.RedisError, OSError) as error:
            self.close()
            raise translate(error, "inbox") from error
        self.answers_by = 0.0
        return None if reply is None else reply[1].decode()

    def close(self) -> None:
        """Drop the connection; the next request makes another."""
        connection, self._connection, self.answers_by = self._connection, None, 0.0
        if connection is not None:
            connection.disconnect()
