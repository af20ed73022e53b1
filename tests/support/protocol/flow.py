"""Who is woken when, lanes that wait for limiters, and the starvation bound. Run by `model`, which also breaks it on purpose."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import cache, partial
from math import lcm
from typing import NamedTuple


class Flow(NamedTuple):
    """Jobs here stand for lanes: each has a queue, a type, a set of limiters, runs alone. `later` jobs fall due in order of number."""

    places: tuple[str, ...]  # new, later, due, ready, wait:<limiter>, run:<worker>, done
    modes: tuple[str, ...] = ()
    # go (will call), sleep (blocked on its own inbox), full (runs a handler), poked (runs a handler and will call), drained (takes nothing
    # more, not signed off yet), tell (mutant only), dead, gone (signed off)
    inbox: frozenset[int] = frozenset()
    idle: frozenset[tuple[str, int]] = frozenset()  # (queue, worker): sleeps with room for that queue
    keeper: int | None = None  # the one consumer whose timer is set for the next due time, busy or not
    known: int | None = None  # ... which is that of this job
    armed: frozenset[str] = frozenset()  # limiters with a kick outstanding: capacity may be free while lanes wait


class FlowConfig(NamedTuple):
    """One small world. Every worker has one slot over all queues."""

    name: str
    loads: tuple[str, ...]  # per worker: the types that it has loaded
    types: str  # per job: its type
    limits: tuple[str, ...]  # per job: names of the one-slot limiters that it needs all at once
    delayed: tuple[int, ...] = ()
    queues: str = ""  # per job: its queue; default: one queue
    crashes: int = 0  # of woken workers; then the one-second tick is part of the protocol
    leaves: int = 0  # workers that may drain and sign off


GONE = ("dead", "gone")


def queue_of(cfg: FlowConfig, j: int) -> str:
    """The queue of job *j*."""
    return cfg.queues[j] if cfg.queues else "q"


def refusal(cfg: FlowConfig, f: Flow, j: int) -> str | None:
    """The first limiter of job *j* that has no room."""
    return next((limit for limit in cfg.limits[j] if not free(cfg, f, limit)), None)


def free(cfg: FlowConfig, f: Flow, limit: str) -> bool:
    """Whether the limiter's one slot is free."""
    return not any(p.startswith("run") and limit in cfg.limits[j] for j, p in enumerate(f.places))


def place(f: Flow, j: int, where: str) -> Flow:
    """Job *j* moves."""
    return f._replace(places=(*f.places[:j], where, *f.places[j + 1 :]))


def set_mode(f: Flow, w: int, mode: str) -> Flow:
    """Worker *w* changes what it does."""
    return f._replace(modes=(*f.modes[:w], mode, *f.modes[w + 1 :]))


def able(cfg: FlowConfig, w: int, j: int) -> bool:
    """Whether worker *w* has the type of job *j*."""
    return cfg.types[j] in cfg.loads[w]


def wake(cfg: FlowConfig, f: Flow, j: int, bad: set[str]) -> Flow:
    """Take one worker that sleeps with room for the job's queue and has its type off that idle list, and mark its own inbox."""
    queue = queue_of(cfg, j)
    who = [w for q, w in sorted(f.idle) if q == queue and (able(cfg, w, j) or "wake_any" in bad)][:1]
    return f._replace(idle=f.idle - {(queue, w) for w in who}, inbox=f.inbox | set(who))


def announce(cfg: FlowConfig, f: Flow, jobs: Iterable[int], bad: set[str]) -> Flow:
    """Wake one worker for each lane of *jobs* that is ready."""
    for j in jobs:
        if f.places[j] == "ready":
            f = wake(cfg, f, j, bad)
    return f


def next_due(f: Flow) -> int | None:
    """The head of the delayed index."""
    return next((j for j, p in enumerate(f.places) if p in ("later", "due")), None)


def tell_keeper(f: Flow, due: int) -> Flow:
    """The keeper's timer is set for a later time than this: mark it."""
    if f.keeper is not None and (f.known is None or due < f.known):
        f = f._replace(known=due, inbox=f.inbox | {f.keeper})
    return f


def hand_over(f: Flow, w: int) -> Flow:
    """The keeper *w* is no more: some live consumer is marked, and its next call takes the role."""
    if f.keeper == w:
        heirs = [i for i, mode in enumerate(f.modes) if i != w and mode not in GONE]
        f = f._replace(keeper=None, known=None, inbox=f.inbox | set(heirs[:1]))
    return f


def pass_on(cfg: FlowConfig, f: Flow, w: int, queue: str, bad: set[str]) -> Flow:
    """A worker that does not look into *queue* leaves its idle list; had it been picked for it, somebody else is."""
    if (queue, w) in f.idle:
        return f._replace(idle=f.idle - {(queue, w)})
    if "no_pass_on" in bad:
        return f
    return announce(cfg, f, [j for j in range(len(f.places)) if queue_of(cfg, j) == queue], bad)


def flow_cycle(cfg: FlowConfig, f: Flow, w: int, ends: bool, order: tuple[str, ...], bad: set[str]) -> Flow:
    """One script call of worker `w`: finish, promote, kick, fetch, then wake others or register as idle, all atomic.

    `ends`: its handler has ended. `order`: in which it looks into the queues.
    """
    for j, p in enumerate(f.places):  # finish
        if p == f"run:{w}" and ends:
            f = place(f, j, "done")
            if "release_without_kick" not in bad:
                f = f._replace(armed=f.armed | set(cfg.limits[j]))
    fresh: list[int] = []
    due = [j for j, p in enumerate(f.places) if p == "due"]
    for j in due[:1]:  # promote, at most one a call here
        f = place(f, j, "ready")
        fresh.append(j)
    looked_at = sorted(f.armed)
    for limit in looked_at:  # kick: one lane a call goes back to the ring
        parked = [j for j, p in enumerate(f.places) if p == f"wait:{limit}"]
        if parked and free(cfg, f, limit):
            f = place(f, parked[0], "ready")
            fresh.append(parked[0])
    is_full = any(p == f"run:{w}" for p in f.places)
    takes = not is_full and f.modes[w] != "drained"
    claimed, looked = False, set()
    for queue in order if takes else ():  # fetch: all limiters or none; the first that refuses keeps the lane
        if claimed:
            break
        looked.add(queue)
        for j, p in enumerate(f.places):
            if p == "ready" and queue_of(cfg, j) == queue and able(cfg, w, j) and not claimed:
                refused = refusal(cfg, f, j)
                claimed = refused is None
                f = place(f, j, f"run:{w}" if claimed else f"wait:{refused}")
    used_up = {  # let go, or left behind, and the room went to another: it waits on, and nobody is woken in vain
        j
        for j, p in enumerate(f.places)
        if p == "ready" and refusal(cfg, f, j) and (j in fresh or (claimed and queue_of(cfg, j) in looked and able(cfg, w, j)))
    }
    for j in used_up if "used_up_unsaid" not in bad else ():
        f = place(f, j, f"wait:{refusal(cfg, f, j)}")
    for limit in looked_at:  # whether that was enough is seen now: the lane may have been refused elsewhere, or nobody took it
        if "kick_once" in bad or f"wait:{limit}" not in f.places or not free(cfg, f, limit):
            f = f._replace(armed=f.armed - {limit})
    more = len(due) > 1 or bool(f.armed)
    mine = [j for j, p in enumerate(f.places) if p == "ready" and queue_of(cfg, j) in looked and able(cfg, w, j) and j not in used_up]
    if takes and not claimed and "idle_told_later" not in bad:
        f = f._replace(idle=f.idle | {(queue, w) for queue in order})
    elif takes or not is_full:  # filled, or draining: groups without room are named too
        for queue in order:
            f = f._replace(idle=f.idle - {(queue, w)}) if queue in looked else pass_on(cfg, f, w, queue, bad)
    f = announce(cfg, f, [j for j in fresh if j not in used_up and not (queue_of(cfg, j) in looked and able(cfg, w, j))], bad)
    if "no_chain" not in bad:
        f = announce(cfg, f, mine, bad)  # whoever leaves work behind wakes one more
    head = next_due(f)
    if f.keeper in (None, w) or (f.modes[f.keeper] in GONE and "no_handover" not in bad):
        f = f._replace(keeper=w, known=head)
    elif head is not None:
        f = tell_keeper(f, head)
    if is_full or claimed:
        return set_mode(f, w, "poked" if more else "full")
    if f.modes[w] == "drained":
        return f
    return set_mode(f, w, "go" if more else "tell" if "idle_told_later" in bad else "sleep")


def sign_off(cfg: FlowConfig, f: Flow, w: int, bad: set[str]) -> Flow:
    """Unregister: off the lists; wake-ups that it may have swallowed, and the keeper's role, go to somebody else."""
    f = set_mode(f._replace(inbox=f.inbox - {w}), w, "gone")
    for queue in sorted({queue_of(cfg, j) for j in range(len(f.places))}):
        f = pass_on(cfg, f, w, queue, bad)
    return f if "no_handover" in bad else hand_over(f, w)


def tick(cfg: FlowConfig, f: Flow, bad: set[str]) -> Flow:
    """Once a second, by any living process: forget the dead, promote what is due, look for work that nobody was told of."""
    alive = {w for w, mode in enumerate(f.modes) if mode not in GONE}
    f = f._replace(idle=frozenset(x for x in f.idle if x[1] in alive), inbox=f.inbox & alive)
    for j, p in enumerate(f.places):
        f = place(f, j, "ready") if p == "due" else f
    if f.keeper is not None and f.keeper not in alive:
        f = hand_over(f, f.keeper)
    return announce(cfg, f, range(len(f.places)), bad)


def flow_steps(cfg: FlowConfig, f: Flow, bad: set[str]) -> Iterator[tuple[bool, Flow, str | None]]:
    """Every next state: (may progress rely on this step, state, violation of the step)."""
    names = tuple(sorted({queue_of(cfg, j) for j in range(len(f.places))}))
    orders = [names[i:] + names[:i] for i in range(len(names))]
    later = [j for j, p in enumerate(f.places) if p == "later"]
    for j, p in enumerate(f.places):
        if p == "new":
            g = place(f, j, "later" if j in cfg.delayed else "ready")
            if j not in cfg.delayed:
                g = announce(cfg, g, [j], bad)
            elif "earlier_due_unsaid" not in bad:
                g = tell_keeper(g, j)
            yield True, g, None
    if later:  # the clock reaches the next due time; the keeper's own timer rings if it knew of it
        g = place(f, later[0], "due")
        if g.keeper is not None and g.known == later[0]:
            g = g._replace(inbox=g.inbox | {g.keeper})
        yield True, g, None
    for w, mode in enumerate(f.modes):
        if mode == "sleep" and w in f.inbox:
            yield True, set_mode(f._replace(inbox=f.inbox - {w}), w, "go"), None
        elif mode == "full" and w in f.inbox:
            yield True, set_mode(f._replace(inbox=f.inbox - {w}), w, "poked"), None
        elif mode == "tell":
            yield True, set_mode(f._replace(idle=f.idle | {(q, w) for q in names}), w, "sleep"), None
        if mode in ("go", "full", "poked"):
            for order in orders:
                if mode != "poked":
                    yield True, flow_cycle(cfg, f, w, True, order, bad), None
                else:
                    yield True, flow_cycle(cfg, f, w, False, order, bad), None
                    yield True, flow_cycle(cfg, f, w, True, order, bad), None
        if mode == "go" and f.modes.count("dead") < cfg.crashes:
            yield False, set_mode(f, w, "dead"), None
        if mode == "sleep" and sum(m in ("drained", "gone") for m in f.modes) < cfg.leaves:  # its next call asks for nothing
            yield False, flow_cycle(cfg, set_mode(f, w, "drained"), w, False, names, bad), None
        if mode == "drained":
            yield True, sign_off(cfg, f, w, bad), None
            if w in f.inbox:
                yield True, flow_cycle(cfg, f._replace(inbox=f.inbox - {w}), w, False, names, bad), None
    if cfg.crashes and "no_tick" not in bad:
        yield True, tick(cfg, f, bad), None


def flow_verdict(cfg: FlowConfig, f: Flow) -> str | None:
    """Nobody may sleep while there is something it could do and nobody is on the way to do it."""
    under_way = any(m in ("go", "tell", "poked") for m in f.modes) or any(f.modes[w] not in GONE for w in f.inbox)
    if cfg.crashes or under_way or "sleep" not in f.modes:
        return None
    sleepers = [w for w, m in enumerate(f.modes) if m == "sleep"]
    for j, p in enumerate(f.places):
        if p == "ready" and any(able(cfg, w, j) for w in sleepers):
            return "lost wake-up: ready work, a capable worker sleeps"
        if p == "due":
            return "lost wake-up: due work, a worker sleeps"
        if p.startswith("wait") and all(free(cfg, f, x) for x in cfg.limits[j]):
            return "stranded: a lane waits although all its limiters are free"
    first = next((j for j, p in enumerate(f.places) if p == "later"), None)
    if first is not None and (f.keeper is None or f.modes[f.keeper] in GONE or f.known != first):
        return "nobody's timer is set for the next due time"
    return None


# ---------------------------------------------------------------- the weighted choice and its bound
def longest_wait(weights: tuple[int, ...], level: int, bad: set[str]) -> int:
    """Most claims that others can win while the head of `level` waits, whoever has work when. Ties go to the earlier level.

    Tag = max(own finish tag, V). The smallest tag wins, V becomes it, the winner's finish tag grows by one stride = 1/weight.
    """
    unit = lcm(*weights)
    step = [unit // w for w in weights]

    @cache
    def others(tags: tuple[int, ...], v: int) -> int:
        """The adversary gives work to whichever rival still beats the waiting level."""
        best = 0
        for p in range(len(weights)):
            tag, limit = (tags[q] if "credit_for_idling" in bad else max(tags[q], v) for q in (p, level))
            if p != level and (tag, p) < (limit, level):
                best = max(best, 1 + others((*tags[:p], tag + step[p], *tags[p + 1 :]), max(v, tag)))
        return best

    now = 20 * unit if "credit_for_idling" in bad else 0  # rivals idle since 0, the level just served
    return others(tuple(now + step[level] if p == level else 0 for p in range(len(weights))), now)


WORLDS = [
    FlowConfig("two plugin sets", loads=("x", "xy"), types="xyy", limits=("", "", "")),
    FlowConfig("due times", loads=("x", "x"), types="xxxx", limits=("",) * 4, delayed=(0, 1, 2)),
    FlowConfig("two queues", loads=("x", "x"), types="xxx", limits=("",) * 3, queues="qrr", delayed=(2,)),
    FlowConfig("draining", loads=("xy", "xy", "x"), types="xyx", limits=("",) * 3, delayed=(0, 2), leaves=1),
    FlowConfig("several limiters", loads=("x", "x"), types="xxxx", limits=("A", "AB", "B", "A")),
    FlowConfig("room for another type", loads=("x", "y", "xy"), types="xyxy", limits=("A", "A", "A", "")),
    FlowConfig("all together", loads=("x", "xy"), types="xyxy", limits=("A", "A", "", ""), delayed=(0, 3)),
    FlowConfig("woken worker dies", loads=("x", "x"), types="xxx", limits=("A", "A", ""), delayed=(2,), crashes=1),
    FlowConfig("three workers", loads=("x", "xy", "y"), types="xyxy", limits=("A", "A", "", "B"), delayed=(1,)),
]
BOUND = {(8, 4, 2, 1): (3, 5, 9, 17), (1, 1, 1): (2, 3, 4)}
Steps = Callable[[Flow], Iterator[tuple[bool, Flow, str | None]]]


def machine(cfg: FlowConfig, bad: set[str]) -> tuple[Flow, Steps, Callable[[Flow], str | None], Callable[[Flow], bool]]:
    """First state, steps, verdict and end, for `model.explore`."""
    first = Flow(("new",) * len(cfg.types), ("go",) * len(cfg.loads))
    return first, partial(flow_steps, cfg, bad=bad), partial(flow_verdict, cfg), lambda f: set(f.places) == {"done"}


def bounds(bad: set[str]) -> Iterator[tuple[str, int, str | None]]:
    """The longest waits against the proved bounds."""
    for weights, expected in BOUND.items():
        found = tuple(longest_wait(weights, level, bad) for level in range(len(weights)))
        wrong = any(x > y for x, y in zip(found, expected, strict=True))
        yield f"longest wait, weights {weights}: {found}", 0, f"bound {expected} exceeded" if wrong else None
