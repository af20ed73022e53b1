"""A partition's real keys, read in one go, and the invariants of PROTOCOL.md that can be seen in them."""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from typing import Any

import redis

__all__ = ["Snapshot", "ids_of", "lasting", "snapshot", "violations"]

Snapshot = dict[str, Any]  # key without the partition's tag -> dict, list of (member, score), set, list or text; streams: their length

NAME = r"[a-z0-9][a-z0-9._-]{0,63}"
ID = r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}"
#: Every key that may exist: its pattern, its type, whether it has a TTL (None: it depends).
KEYS: tuple[tuple[str, str, bool | None], ...] = (
    ("meta|n|keeper|maint|cat|sweep", "hash", False),
    ("swept", "list", False),
    ("qs", "set", False),
    (f"bands:{NAME}", "set", False),
    (f"lane:{NAME}/[0-3]/{NAME}!?/.+", "zset", False),
    (f"ring:{NAME}/[0-3]/{NAME}!?(~{NAME})*|flow:{NAME}/[0-3]", "zset", False),
    (f"vt:{NAME}|q:{NAME}", "hash", False),
    ("turns:[0-9a-f]{40}", "hash", True),
    ("delayed|active|ws|exp|kick", "zset", False),
    ("parked|ls", "set", False),
    ("pause|orders|tl", "hash", False),
    (f"L:!?{NAME}", "hash", False),
    (f"L:!?{NAME}(@[^:]+)?:[sw]|L:{NAME}:i|L:=tenant(:i|@[^:]+:w)", "zset", False),
    (f"L:!{NAME}:c", "hash", True),
    (f"L:{NAME}(@[^:]+)?:t", "zset", True),
    (f"L:{NAME}(@[^:]+)?:b", "hash", True),
    ("u:.+", "string", None),
    ("ig:.+", "zset", False),
    (f"fin:{NAME}/[cfx]", "zset", False),
    (f"[jd]:{ID}", "hash", False),
    (f"e:{ID}", "hash", False),
    (f"line:{ID}", "set", False),
    ("eu", "zset", False),
    (f"[br]:{ID}", "string", False),
    (f"[hg]:{ID}", "list", False),
    (f"dlq:{NAME}|fp:.+|fps|it:{NAME}", "zset", False),
    ("k:[A-Za-z0-9_-]{22}", "string", None),
    (r"gone:\d+", "set", True),
    ("w:[^.]+", "hash", True),
    ("o:[^.]+|set:.+", "string", True),
    ("cap:.+", "set", True),
    (f"tc:{NAME}!?|idle:{NAME}/.+", "zset", False),
    ("in:[^.]+", "zset", True),
    ("ev|audit|ob", "stream", False),
    ("cb|obd", "hash", False),
    ("wh:we_[0-9a-f]{16}", "hash", None),
    ("whs|whl", "set", False),
    ("chain", "hash", False),
    ("ops|oplog", "zset", False),
    ("op:[A-Za-z0-9_-]{22}", "hash", None),
    ("opj:[A-Za-z0-9_-]{22}", "zset", False),
    (f"sc:{NAME}|scheduler", "hash", False),
    ("scdue|scall|scmissed|scs", "zset", False),
    ("scheld", "set", False),
    (f"scfire:{NAME}", "list", False),
)
#: What PTTL says of a key that ended between its listing and its reading.
GONE = -2
PATTERNS = [(re.compile(pattern), kind, ttl) for pattern, kind, ttl in KEYS]
READ = {
    "hash": lambda pipe, key: pipe.hgetall(key),
    "zset": lambda pipe, key: pipe.zrange(key, 0, -1, withscores=True),
    "set": lambda pipe, key: pipe.smembers(key),
    "list": lambda pipe, key: pipe.lrange(key, 0, -1),
    "string": lambda pipe, key: pipe.get(key),
    "stream": lambda pipe, key: pipe.xlen(key),
}


def snapshot(client: redis.Redis, partition: int = 0) -> tuple[Snapshot, list[str]]:
    """All keys of a partition, and what is wrong with their names, types and TTLs."""
    tag, wrong = f"tm:{{{partition}}}:", []
    names = sorted(str(key) for key in client.scan_iter(match="*", count=1_000))
    kinds = []
    for name in names:
        found = next(((kind, ttl) for pattern, kind, ttl in PATTERNS if name.startswith(tag) and pattern.fullmatch(name[len(tag) :])), None)
        if found is None:
            wrong.append(f"I9 key {name} is in no documented pattern")
        kinds.append(found or ("none", None))
    pipe = client.pipeline(transaction=False)
    for name, (kind, _) in zip(names, kinds, strict=True):
        pipe.pttl(name)
        READ.get(kind, lambda pipe, key: pipe.type(key))(pipe, name)
    found_values = pipe.execute(raise_on_error=False)
    out: Snapshot = {}
    for i, (name, (_, ttl)) in enumerate(zip(names, kinds, strict=True)):
        left, value = found_values[2 * i], found_values[2 * i + 1]
        if isinstance(value, Exception):
            wrong.append(f"I9 key {name}: {value}")
            continue
        if left == GONE:
            continue
        if ttl is not None and (left > 0) is not ttl:
            wrong.append(f"I9 key {name} has {'no' if ttl else 'a'} TTL")
        out[name[len(tag) :]] = value
        if name[len(tag) :].startswith(("k:", "op:", "u:")):
            out[f"ttl {name[len(tag) :]}"] = left > 0
    return out, wrong


def lasting(snap: Snapshot) -> Snapshot:
    """What a repeated request must leave as it was: all but the arrival counter, which may have gaps."""
    meta = {k: v for k, v in snap.get("meta", {}).items() if k != "seq"}
    return {key: value for key, value in snap.items() if key != "meta"} | ({"meta": meta} if meta else {})


def ids_of(snap: Snapshot, prefix: str) -> set[str]:
    """The ids that keys of one kind carry."""
    return {key[len(prefix) :] for key in snap if key.startswith(prefix)}


def effect_violations(snap: Snapshot, jobs: dict[str, Any], dead: set[str]) -> list[str]:
    """I7: a lineage is held by exactly its jobs, the records that outlive them and its open effects; and it holds its effects."""
    wrong: list[str] = []
    unsettled, members, letters = defaultdict[str, set[str]](set), defaultdict[str, set[str]](set), defaultdict[str, set[str]](set)
    for member, _ in snap.get("eu", ()):
        unsettled[member.partition("/")[0]].add(member)
    for job_id, job in jobs.items():
        if "rt" in job or "gd" in job:
            members[job.get("rt", job_id)].add(job_id)
    for job_id in dead:
        letters[snap[f"d:{job_id}"]["rt"]].add(f"d/{job_id}")
    for root in ids_of(snap, "e:") | ids_of(snap, "line:") | unsettled.keys():
        fields, line = snap.get(f"e:{root}", {}), set(snap.get(f"line:{root}", ()))
        rows = {name: json.loads(row) for name, row in fields.items() if name != "#" and not name.startswith("r/")}
        reserved = {name for name, row in rows.items() if row[0] == "r"}
        if int(fields.get("#", 0)) != len(reserved):
            wrong.append(f"I7 {root} counts {fields.get('#')} unsettled effects of {sorted(reserved)}")
        if {f"{root}/{name}" for name in reserved} != unsettled[root]:
            wrong.append(f"I7 the unsettled effects of {root} are {sorted(reserved)}, listed are {sorted(unsettled[root])}")
        by_rights = members[root] | (letters[root] & line) | {f"e/{name}" for name in reserved}
        if line != by_rights or not line:
            wrong.append(f"I7 the lineage of {root} is held by {sorted(line)}, by rights by {sorted(by_rights)}")
    held = ids_of(snap, "line:")
    parts = {job_id: job.get("rt", job_id) for job_id, job in jobs.items() if "gd" in job}
    return wrong + [f"I7 {job_id} has a part in a lineage that nothing holds" for job_id, root in parts.items() if root not in held]


def operation_violations(snap: Snapshot) -> list[str]:
    """An operation ends by its TTL if and only if it has ended; those that run, or whose jobs are followed, are listed for the duty."""
    wrong: list[str] = []
    open_, listed = dict(snap.get("ops", ())), dict(snap.get("oplog", ()))
    followed = ids_of(snap, "opj:")
    for op, record in ((op, snap[f"op:{op}"]) for op in ids_of(snap, "op:")):
        is_running = record["st"] == "running"
        if snap[f"ttl op:{op}"] is is_running:
            wrong.append(f"O1 operation {op} is {record['st']} and {'ends' if is_running else 'never ends'}")
        if (op in open_) is not (is_running or op in followed):
            wrong.append(f"O1 operation {op} is {record['st']}, listed: {op in open_}, its jobs are followed: {op in followed}")
        if op not in listed:
            wrong.append(f"O1 operation {op} is in no list")
    known = ids_of(snap, "op:")
    return wrong + [f"O1 {op} is followed and has no record" for op in (followed | open_.keys()) - known]


def limiter_violations(snap: Snapshot, jobs: dict[str, Any]) -> list[str]:
    """B6: slots in use are those of active jobs. W2: a lane is out of turn just while it waits where somebody looks."""
    wrong: list[str] = []
    held: dict[str, set[str]] = defaultdict(set)
    for job_id, job in jobs.items():
        for instance in filter(None, job.get("hl", "").split(",") if job["st"] == "a" else ()):
            held[instance].add(job_id)
    waiting: Counter[str] = Counter()
    kicks = dict(snap.get("kick", ()))
    for key, value in snap.items():
        if not key.startswith("L:"):
            continue
        instance, _, part = key[2:].partition(":")
        name = instance.partition("@")[0]
        rule = snap.get(f"L:{name}", {})
        if part == "s" and rule.get("kind") == "slots" and {member for member, _ in value} != held[instance]:
            wrong.append(f"B6 slots of {instance}: {value}, held by {sorted(held[instance])}")
        if part == "i":
            wrong += [f"W2 {member} counts as one with units that wait" for member, _ in value if f"L:{member}:w" not in snap]
        if part == "w":
            waiting.update(member for member, _ in value)
            if instance != name and instance not in dict(snap.get(f"L:{name}:i", ())):
                wrong.append(f"W2 units wait for {instance}, which its limiter does not list")
            is_by_key = rule.get("by") == "key"
            most = int(rule.get(f"max/{instance.partition('@')[2]}", rule.get("max", 0)))
            is_full = rule.get("kind") == "slots" and is_by_key == ("@" in instance) and len(snap.get(f"L:{instance}:s", ())) >= most
            is_full |= name == "=tenant" and f"k/{instance.partition('@')[2]}" in snap.get("pause", ())
            if instance not in kicks and name not in kicks and not is_full and rule.get("kind") not in ("gate", "breaker"):
                wrong.append(f"W2 units wait for {instance}, and nobody will look: {value}")
    for instance, members in held.items():
        if snap.get(f"L:{instance.partition('@')[0]}", {}).get("kind") == "slots" and f"L:{instance}:s" not in snap:
            wrong.append(f"B6 {sorted(members)} hold {instance}, which counts none of them")
    for key, value in snap.items():
        if key.startswith("ring:"):
            for name, tag in value:
                unit = f"{key[5:].partition('~')[0]}/{name}"
                if waiting[unit] != (tag == float("inf")):
                    wrong.append(f"W2 lane {unit} with tag {tag} waits {waiting[unit]} times")
    stopped = {scope[2:] for scope in snap.get("pause", ()) if scope.startswith("q/")}
    parked = set(snap.get("parked", ()))
    return wrong + [f"W2 {unit} counts as waiting and waits for nothing" for unit in parked - stopped if not waiting[unit]]


def index_violations(snap: Snapshot, jobs: dict[str, Any]) -> list[str]:
    """I1 of what jobs are listed by beside their state: expiry, tags, unique work."""
    wrong: list[str] = []
    expiring = {(job_id, float(job["ex"])) for job_id, job in jobs.items() if "ex" in job and job["st"] in "wd"}
    if expiring != set(snap.get("exp", ())):
        wrong.append(f"I1 {sorted(expiring)} may not begin late, listed are {snap.get('exp')}")
    tagged = {(tag, job_id) for job_id, job in jobs.items() for tag in filter(None, job.get("tg", "").split(","))}
    listed = {(key[3:], member) for key, value in snap.items() if key.startswith("ig:") for member, _ in value}
    wrong += [f"I1 {job_id} is not listed under its tag {tag}" for tag, job_id in tagged - listed]
    wrong += [f"I1 tag {tag} lists {job_id}, which has it not or is gone" for tag, job_id in listed - tagged]
    for key, value in snap.items():
        if key.startswith("u:") and value and not snap[f"ttl {key}"] and jobs.get(value, {}).get("ux") != key[2:]:
            wrong.append(f"I1 {key} names {value}, which is gone or does other work")
    return wrong


def schedule_violations(snap: Snapshot) -> list[str]:
    """I10: a schedule is listed; due exactly while it has a next instant and is not paused; in `scheld` while an instant waits.

    A history, and a note of misses, belong to one.
    """
    rows = {schedule_id: snap[f"sc:{schedule_id}"] for schedule_id in ids_of(snap, "sc:")}
    lists = {
        "scall": set(rows),
        "scdue": {name for name, row in rows.items() if "next" in row and "paused" not in row},
        "scheld": {name for name, row in rows.items() if "held" in row},
    }
    found = {key: {member[0] if isinstance(member, tuple) else member for member in snap.get(key, ())} for key in lists}
    wrong = [f"I10 {key} has {sorted(found[key])}, by rights {sorted(lists[key])}" for key in lists if found[key] != lists[key]]
    wrong += [f"I10 scmissed has {member[0]}, which is no schedule" for member in snap.get("scmissed", ()) if member[0] not in rows]
    return wrong + [f"I10 scfire:{name} has no schedule" for name in ids_of(snap, "scfire:") - rows.keys()]


def violations(snap: Snapshot) -> list[str]:
    """Broken invariants I1-I3, I5-I8, a line each."""
    wrong: list[str] = []
    jobs = {job_id: snap[f"j:{job_id}"] for job_id in ids_of(snap, "j:")}
    places: dict[str, list[str]] = defaultdict(list)
    for key, value in snap.items():
        if key in ("delayed", "active") or key.startswith(("lane:", "fin:")):
            for member, _ in value:
                places[member].append(key)
    wrong += [f"I1 {member} is in {places[member]} and has no hash" for member in places.keys() - jobs.keys()]
    counts: Counter[str] = Counter()
    stored: Counter[str] = Counter()  # bytes of ended jobs
    by_type: Counter[str] = Counter()
    for job_id, job in jobs.items():
        state, queue, kind = job["st"], job["q"], job["ty"]
        failures, losses, back, epoch = (int(job.get(field, 0)) for field in ("fl", "ls", "hb", "ep"))
        counts[f"{queue}/{state}"] += 1
        by_type[f"{kind}/{queue}"] += 1
        band, name = f"{job.get('pr', '2')}/{kind}{'!' if losses else ''}", job.get("ln", "-")
        limits = name[name.index("~") :] if "~" in name else ""
        index = {"w": f"lane:{queue}/{band}/{name}", "d": "delayed", "a": "active"}.get(state, f"fin:{queue}/{state}")
        if places[job_id] != [index]:
            wrong.append(f"I1 {job_id} is in {places[job_id]}, its state {state} says {index}")
        if state == "w" and (band if name == "-" else f"{band}{limits}*") not in snap.get(f"bands:{queue}", ()):
            wrong.append(f"I1 {job_id} waits in band {band}, which its queue does not list")
        if state == "w" and name != "-" and name not in dict(snap.get(f"ring:{queue}/{band}{limits}", ())):
            wrong.append(f"I1 {job_id} waits in lane {name}, which its ring does not list")
        if "hl" in job and state not in "ac":
            wrong.append(f"B6 {job_id} is {state} and holds {job['hl']}")
        if job_id not in dict(snap.get(f"it:{kind}", ())):
            wrong.append(f"I1 {job_id} is not listed under its type")
        if f"b:{job_id}" not in snap:
            wrong.append(f"I1 {job_id} has no blob")
        if state in "wda" and (state == "a") != bool(job.get("tk")):
            wrong.append(f"I2 {job_id} is {state} with token {job.get('tk')!r}")
        if epoch > failures + losses + back + 1 or failures > int(job.get("ma", 5)):
            wrong.append(f"I3 {job_id}: {epoch} deliveries, {failures} failures, {losses} losses, {back} handed back")
        if state in "wd" and "cr" in job:
            wrong.append(f"R3 {job_id} is {state} although somebody asked to cancel it")
        last, kept, *_ = job.get("lg", "0 0").split()
        lines = snap.get(f"g:{job_id}", [])
        if int(kept) != sum(len(line.encode()) for line in lines) or (lines and lines[-1].partition(" ")[0] != last):
            wrong.append(f"I8 {job_id} of {len(lines)} lines says {job['lg']!r}")
        size, result = len(snap.get(f"b:{job_id}", "").encode()), len(snap.get(f"r:{job_id}", "").encode())
        if "sz" in job and int(job["sz"]) != size:
            wrong.append(f"I8 {job_id} is {size} bytes, its hash says {job['sz']}")
        if state in "cfx":
            stored[f"{queue}/{state}/bytes"] += int(job.get("sz", 0)) + int(job.get("rz", 0))
            if int(job.get("rz", 0)) != result:
                wrong.append(f"I8 {job_id} has a result of {result} bytes, its hash says {job.get('rz')}")
        if (state == "f") != (f"d:{job_id}" in snap):
            wrong.append(f"I5 {job_id} is {state}, dead-letter record: {f'd:{job_id}' in snap}")
        if "kx" in job:
            record, ends = snap.get(f"k:{job['kx']}"), snap.get(f"ttl k:{job['kx']}")
            if record is None or record[:36] != job_id:
                wrong.append(f"I6 {job_id} does not own its key: {record}")
            elif ends is not (state in "cfx"):
                wrong.append(f"I6 the key of {job_id} ({state}) {'ends' if ends else 'never ends'}")
    for prefix in ("b:", "r:", "h:", "g:"):
        wrong += [f"I1 {prefix}{job_id} has no job" for job_id in ids_of(snap, prefix) - jobs.keys()]
    listed = [member for key, value in snap.items() if key.startswith("it:") for member, _ in value]
    wrong += [f"I1 {member} is listed under a type and has no hash" for member in set(listed) - jobs.keys()]
    dead = ids_of(snap, "d:")
    for prefix in ("dlq:", "fp:"):
        rows = Counter(member for key, value in snap.items() if key.startswith(prefix) for member, _ in value)
        if rows != Counter(dead):
            wrong.append(f"I5 {prefix} lists {dict(rows)}, the records are {sorted(dead)}")
    groups: dict[str, float] = {}
    for key, value in snap.items():
        if key.startswith("fp:"):
            groups[key[3:]] = max(score for _, score in value)
            wrong += [f"I5 {member} stands in the group {key}" for member, _ in value if snap.get(f"d:{member}", {}).get("fp") != key[3:]]
    if dict(snap.get("fps", ())) != groups:
        wrong.append(f"I5 groups are {groups}, listed are {dict(snap.get('fps', ()))}")
    wrong += effect_violations(snap, jobs, dead) + operation_violations(snap)
    wrong += limiter_violations(snap, jobs) + index_violations(snap, jobs)
    wrong += schedule_violations(snap)
    wrong += [
        f"I11 {job_id} has ended, and its callback waits"
        for job_id in snap.get("cb", {})
        if jobs.get(job_id, {}).get("st") not in tuple("wda")
    ]
    numbers = {field: int(value) for field, value in snap.get("n", {}).items()}
    present = {field: value for field, value in numbers.items() if field.count("/") == 1 and value}
    if present != dict(counts):
        wrong.append(f"I8 counters {present}, recount {dict(counts)}")
    kept = {field: value for field, value in numbers.items() if field.endswith("/bytes") and value}
    if kept != {field: value for field, value in stored.items() if value}:
        wrong.append(f"I8 bytes {kept}, recount {dict(stored)}")
    for field, value in numbers.items():
        pair, _, what = field.rpartition("/")
        if what == "created" and value != by_type[pair] + numbers.get(f"{pair}/purged", 0):
            wrong.append(f"I8 {field} = {value}, present {by_type[pair]}, purged {numbers.get(f'{pair}/purged', 0)}")
    return wrong
