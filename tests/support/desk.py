"""A store with a clock of its own, on a real server, and the shortest words for what tests of scripts do to it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import redis

from support.protocol.dump import Snapshot, lasting, snapshot, violations
from support.servers import StoreServer
from taskmaster.model.retention import Kept
from taskmaster.store import calls, upkeep
from taskmaster.store.call import Call
from taskmaster.store.client import SyncStore
from taskmaster.store.status import Status

__all__ = ["ALIVE_MS", "BEGINNING_MS", "GRACE_MS", "LEASE_MS", "WINDOW_MS", "Desk", "desk_at", "keeping"]

BEGINNING_MS = 1_800_000_000_000
LEASE_MS, GRACE_MS, ALIVE_MS, WINDOW_MS = 30_000, 5_000, 30_000, 86_400_000


def keeping(count: int, age_ms: int = 10**9, size: int = -1) -> calls.Limits:
    """The same retention for every state: so many jobs, not older than, at most so many bytes."""
    kept = Kept(count, age_ms, size)
    return calls.Limits(WINDOW_MS, kept, kept, kept)


@dataclass
class Desk:
    """A store with a clock of its own, and the shortest words for what tests do to it."""

    store: SyncStore
    raw: redis.Redis
    now: int = BEGINNING_MS
    made: int = 0
    last_id: str = ""
    seqs: Counter[str] = field(default_factory=Counter)

    def run(self, call: Call[Any]) -> Any:
        return self.store.run(call)

    def answer(self, call: Call[Any]) -> Any:
        """As the script says it, not as the client reads it."""
        return self.store.run(replace(call, decode=lambda raw: raw))

    def item(self, kind: str = "alpha", queue: str = "one", *, at_ms: int | None = None, **fields: Any) -> calls.NewJob:
        """A submission with the next id."""
        self.made += 1
        stamp = f"{self.now if at_ms is None else at_ms:012x}"
        facts: dict[str, Any] = {
            "id": f"{stamp[:8]}-{stamp[8:]}-7000-8000-{self.made:012x}",
            "queue": queue,
            "type": kind,
            "priority": 2,
            "due_ms": 0,
            "delay_ms": 0,
            "max_attempts": 5,
            "key": "",
            "request": "r" * 22,
            "blob": f'["{kind}"]',
        }
        self.last_id = facts["id"]
        return calls.NewJob(**(facts | fields))

    def submit(self, kind: str = "alpha", queue: str = "one", **fields: Any) -> str:
        """One new job; its id."""
        item = self.item(kind, queue, **fields)
        assert self.run(calls.submit(0, [item]))[0].status is Status.OK
        return item.id

    def register(self, wid: str, *types: str, info: str = "{}", catalogue: Sequence[tuple[str, str]] = (), **depends: str) -> str:
        """*depends*: types and the dependency of each, with `?` behind it if the type has a fallback."""
        types = types or tuple(depends) or ("alpha",)
        facts: dict[str, Any] = {"cap": "cap-" + "-".join(types), "info": info, "plugin_set": "{}", "types": types, "catalogue": catalogue}
        needs = [(kind, depends.get(kind, "").rstrip("?"), "?" if depends.get(kind, "").endswith("?") else "") for kind in types]
        self.run(calls.register(0, wid=wid, alive_ms=ALIVE_MS, gen="g", dependencies=needs, **facts))
        return wid

    def next_cycle(
        self, who: str, *wants: tuple[int | str, ...], finishes: Sequence[calls.Finish] = (), **options: Any
    ) -> Call[calls.Cycle]:
        self.seqs[who] += 1
        facts: dict[str, Any] = {"gen": "g", "wid": who, "seq": self.seqs[who], "lease_ms": LEASE_MS, "finishes": finishes, "wants": wants}
        return calls.cycle(0, **(facts | options))

    def cycle(self, who: str, *wants: tuple[int | str, ...], finishes: Sequence[calls.Finish] = (), **options: Any) -> calls.Cycle:
        answer: calls.Cycle = self.run(self.next_cycle(who, *wants, finishes=finishes, **options))
        return answer

    def claim(self, wid: str, slots: int = 1, queue: str = "one") -> list[str]:
        """Ids of what one round brought."""
        return [claim.id for claim in self.cycle(wid, (slots, queue)).claims]

    def token(self, wid: str) -> str:
        return calls.token_of(wid, self.seqs[wid])

    def end(self, wid: str, job_id: str, outcome: str = "c", token: str = "", **facts: Any) -> calls.Finish:
        return calls.Finish(id=job_id, token=token or self.token(wid), outcome=outcome, **facts)

    def bury(
        self, n: int = 1, kind: str = "alpha", queue: str = "one", *, fingerprint: str = "f", message: str = "no", wid: str = "grave"
    ) -> list[str]:
        """Dead letters: jobs whose first attempt failed for good; their ids, oldest first."""
        if not self.seqs[wid]:
            self.register(wid, "alpha", "beta")
        ids = [self.submit(kind, queue) for _ in range(n)]
        claimed = self.claim(wid, n, queue)
        assert sorted(claimed) == sorted(ids), "other jobs are waiting there"
        body = f'["ValueError","{message}","{fingerprint}","","tests==1"]'
        self.cycle(wid, finishes=[self.end(wid, job_id, "f", reason="fatal", fingerprint=fingerprint, body=body) for job_id in ids])
        return ids

    def reap(self) -> tuple[bool, tuple[str, ...]]:
        return self.run(upkeep.reap(0, grace_ms=GRACE_MS, losses=3, key_window_ms=WINDOW_MS))  # type: ignore[no-any-return]

    def field(self, job_id: str, name: str) -> str | None:
        value: Any = self.raw.hget(f"tm:{{0}}:j:{job_id}", name)
        return value

    def inbox(self, *wids: str) -> list[list[str]]:
        return [self.raw.zrange(f"tm:{{0}}:in:{wid}", 0, -1) for wid in wids]  # type: ignore[misc]

    def woken(self, *wids: str) -> list[str]:
        """Those of *wids* with a marker; it is taken out."""
        return [wid for wid in wids if self.raw.zrem(f"tm:{{0}}:in:{wid}", "w")]

    def dump(self) -> Snapshot:
        """All keys; the invariants hold."""
        snap, wrong = snapshot(self.raw)
        assert not wrong + violations(snap)
        return lasting(snap)


@contextmanager
def desk_at(server: StoreServer) -> Iterator[Desk]:
    """A desk at an empty server."""
    made: list[Desk] = []
    store = SyncStore(server.url, now_ms=lambda: made[0].now)
    made.append(Desk(store, redis.Redis.from_url(server.url, decode_responses=True, protocol=2)))
    yield made[0]
    store.close()
    made[0].raw.close()
