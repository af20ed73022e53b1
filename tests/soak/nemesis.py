"""Carries out the planned faults, one after the other, and counts those that took effect."""

from __future__ import annotations

import contextlib
import os
import time
from collections import Counter
from collections.abc import Callable

import psutil

from soak.history import History
from soak.plan import REPLIES, Fault
from soak.world import World
from support.eventually import eventually
from support.proxy import StoreProxy

__all__ = ["Nemesis"]

PAUSE_S = 0.5


class Nemesis:
    """Runs on the thread that entered the world: what it starts lives as long as that thread.

    Attributes:
        fired: how many faults of each kind took effect.
    """

    def __init__(self, world: World, history: History) -> None:
        self._world = world
        self._history = history
        self.fired: Counter[str] = Counter()

    def strike(self, fault: Fault) -> None:
        """One fault, from beginning to end, and a pause."""
        kind, _, point = fault.kind.partition(":")
        self._history.note("fault", kind=fault.kind, hold_s=fault.hold_s, at=fault.at)
        did = self._kill_at(point, fault) if kind == "kill_at" else getattr(self, f"_{kind}")(fault)
        self._history.note("fault_over", kind=fault.kind, fired=did)
        self.fired[fault.kind] += bool(did)
        time.sleep(PAUSE_S)

    def _road(self, fault: Fault) -> StoreProxy:
        names = sorted(self._world.roads)
        return self._world.roads[names[fault.at % len(names)]]

    def _victim(self, fault: Fault) -> psutil.Process | None:
        children = self._world.children()
        return children[fault.at % len(children)] if children else None

    # ------------------------------------------------------------ processes
    def _worker_kill(self, fault: Fault) -> bool:
        victim = self._victim(fault)
        if victim is not None:
            victim.kill()
        return victim is not None

    def _worker_stop(self, fault: Fault) -> bool:
        """Frozen beyond its lease, then continued: a zombie."""
        victim = self._victim(fault)
        if victim is None:
            return False
        self._world.freeze(victim)
        time.sleep(fault.hold_s)
        is_there = victim.is_running()
        self._world.thaw()
        return is_there

    def _service_kill(self, fault: Fault) -> bool:
        """The supervisor; its children go with it."""
        names = sorted(self._world.workers)
        name = names[fault.at % len(names)]
        self._world.workers[name].kill()
        time.sleep(fault.hold_s)
        self._world.start_worker(name)
        return True

    def _api_kill(self, fault: Fault) -> bool:
        names = sorted(self._world.apis)
        name = names[fault.at % len(names)]
        self._world.kill_api(name)
        time.sleep(fault.hold_s)
        self._world.start_api(name)
        return True

    def _kill_at(self, point: str, fault: Fault) -> bool:
        """Whichever worker comes to this point first is killed there; not armed any more when nobody came in time."""
        file = self._world.fired / point
        file.unlink(missing_ok=True)
        with contextlib.suppress(AssertionError):
            eventually(file.exists, fault.hold_s)
            return True
        try:
            os.close(os.open(file, os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            return True
        return False

    # ------------------------------------------------------------ the store
    def _store_kill(self, fault: Fault) -> bool:
        self._world.server.kill()
        time.sleep(fault.hold_s)
        self._world.server.start()
        return True

    def _store_pause(self, fault: Fault) -> bool:
        self._world.server.pause()
        time.sleep(fault.hold_s)
        self._world.server.resume()
        return True

    def _store_full(self, fault: Fault) -> bool:
        self._world.server.call("CONFIG", "SET", "maxmemory", "1mb")
        time.sleep(fault.hold_s)
        self._world.server.call("CONFIG", "SET", "maxmemory", "0")
        return True

    def _scripts_flushed(self, fault: Fault) -> bool:
        self._world.server.call("SCRIPT", "FLUSH")
        self._world.server.call("FUNCTION", "FLUSH")
        return True

    # ------------------------------------------------------------ the roads
    def _cut(self, fault: Fault) -> bool:
        self._road(fault).cut()
        return True

    def _reply_lost(self, fault: Fault) -> bool:
        """Of a few calls of one script, on the road where it is called."""
        script = REPLIES[fault.at % len(REPLIES)]
        prefix = "api" if script == "submit" else "worker"
        roads = [road for name, road in sorted(self._world.roads.items()) if name.startswith(prefix)]
        before = [sum(road.lost.values()) for road in roads]
        for road in roads:
            road.drop_reply(script, 2)
            road.drop_reply("cycle" if prefix == "worker" else "submit")
        time.sleep(fault.hold_s)
        return [sum(road.lost.values()) for road in roads] != before

    def _half_request(self, fault: Fault) -> bool:
        for name, road in self._world.roads.items():
            road.halve_request("submit" if name.startswith("api") else "cycle", 2)
        time.sleep(fault.hold_s)
        return True

    def _while_broken(self, fault: Fault, break_: Callable[[StoreProxy], None], mend: Callable[[StoreProxy], None]) -> bool:
        road = self._road(fault)
        break_(road)
        time.sleep(fault.hold_s)
        mend(road)
        return True

    def _latency(self, fault: Fault) -> bool:
        return self._while_broken(fault, lambda road: road.latency(0.05, 0.2), lambda road: road.latency(0))

    def _blackhole(self, fault: Fault) -> bool:
        return self._while_broken(fault, StoreProxy.blackhole, StoreProxy.restore)

    def _mute(self, fault: Fault) -> bool:
        return self._while_broken(fault, StoreProxy.mute, StoreProxy.restore)
