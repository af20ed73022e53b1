"""Rules about who works, and about the API in front: workers, plugins that they have, their size, their ways to be looked at."""

from __future__ import annotations

import ipaddress
from collections import defaultdict
from collections.abc import Sequence

from taskmaster.engine.checklist.facts import Facts
from taskmaster.engine.checklist.findings import Finding, Rule, named
from taskmaster.plugins.registry import PluginReport

__all__ = ["RULES", "loading"]

#: Jobs at once for each processor from which on they keep each other from their deadlines, however much of their time is waiting. Two for
#: each is right for handlers that compute.
SLOTS_PER_CORE = 64

_WORKERS = Rule("workers", "accepted jobs wait until a worker takes them", "start one: taskmaster up, or taskmaster worker")
_TYPES = Rule(
    "worker-types",
    "jobs of a type that no live worker has are accepted, and wait",
    "install the type's plugin where workers run and restart them; TASKMASTER_PLUGINS must not leave it out",
)
_SCALING = Rule(
    "scaling",
    "with one process or one machine, its end is the end of all work until it is back",
    "docker compose up -d --scale worker=3, TASKMASTER_WORKER_PROCESSES, or workers on a second machine; GET /scaling says how many",
)
_ENDPOINT = Rule("scaling-endpoint", "an autoscaler asks /scaling how many workers a queue needs", "see what the API says in its log")
_CONCURRENCY = Rule(
    "concurrency",
    "about two jobs at once for each processor is right for handlers that compute; those that wait for others bear many more, until they "
    "keep each other from their deadlines",
    "TASKMASTER_CONCURRENCY, TASKMASTER_QUEUE_CONCURRENCY or TASKMASTER_QUEUE_GROUPS, which lets queues share what they may run at once",
)
_SHUTDOWN = Rule(
    "shutdown",
    "a job that is still running when the drain ends is handed back and begins anew, so on SIGTERM its work so far is lost",
    "TASKMASTER_DRAIN_MS of at least the longest time-out, and as much for whoever sends SIGKILL next (stop_grace_period, "
    "terminationGracePeriodSeconds); or jobs in smaller steps",
)
_METRICS = Rule(
    "metrics",
    "alerts on attempts, crashes and plugins of workers need their metrics",
    "TASKMASTER_WORKER_METRICS_PORT other than 0, and the rules of ops/prometheus",
)
_LOADING = Rule(
    "plugins", "the job types of a plugin that is not loaded do not run", "mend what the error says, and restart; see the log for more"
)
_LOADED = Rule(
    "plugin-loading",
    "the types of a plugin that a worker could not load wait, or are run by fewer workers",
    "mend what the error says on that machine and restart its workers; its log has the whole traceback",
)
_SETS = Rule(
    "plugin-sets",
    "while workers differ, it is chance which version runs a job, and some types have fewer workers",
    "finish the deployment: the same packages and TASKMASTER_PLUGINS for all workers, unless that is meant",
)
_EXPOSURE = Rule(
    "api-exposure",
    "the API has no authentication of its own: whoever reaches it holds its scopes and sees payloads but for what is marked",
    "TASKMASTER_HOST=127.0.0.1, or a gateway in front that lets through only who may; TASKMASTER_SCOPES grants less",
)


def plugins(facts: Facts) -> list[Finding]:
    """How loading went in this process; nothing where it loads none."""
    return [] if facts.plugins is None else loading(facts.plugins)


def loading(reports: Sequence[PluginReport]) -> list[Finding]:
    """How plugins were loaded in this process, a finding each."""
    found = []
    for report in reports:
        told = {"plugin": report.name, "distribution": report.distribution, "version": report.version, "types": list(report.types)}
        if report.state == "failed":
            found.append(_LOADING.error(f"{report.name} is not loaded: {report.error}", told | {"error": report.error}))
        else:
            notes = f"; {'; '.join(report.notes)}" if report.notes else ""
            text = f"{report.name} ({report.distribution} {report.version}): {named(report.types)}{notes}"
            found.append(_LOADING.ok(text, told | {"notes": list(report.notes)}))
    if not found:
        found.append(_LOADING.warning("none is installed, so there is no job type", fix="pip install taskmaster-email, or your own"))
    return found


def workers(facts: Facts) -> list[Finding]:
    """One is alive."""
    told = {"processes": len(facts.live)}
    return [_WORKERS.ok(f"{len(facts.live)} processes alive", told) if facts.live else _WORKERS.warning("no process is alive", told)]


def worker_types(facts: Facts) -> list[Finding]:
    """Every type that waits, and that is in the catalogue, is one that a live worker has."""
    waiting = sorted({name for view in facts.store.queues for name in view.orphan_types})
    served = {name for worker in facts.live for name in worker.types}
    idle = sorted({entry.type for entry in facts.store.types} - served - set(waiting)) if facts.live else []
    parts = [f"waiting, and no live worker has it: {named(waiting)}"] if waiting else []
    parts += [f"in the catalogue, and no live worker has it: {named(idle)}"] if idle else []
    if parts:
        return [_TYPES.warning("; ".join(parts), {"waiting": waiting, "idle": idle})]
    if not facts.live:
        return [_TYPES.skipped("no worker is alive, and nothing waits")]
    return [_TYPES.ok(f"{len(served)} types have a live worker")]


def scaling(facts: Facts) -> list[Finding]:
    """More than one process, on more than one host."""
    if not facts.live:
        return [_SCALING.skipped("no worker is alive")]
    hosts = sorted({worker.host for worker in facts.live})
    told = {"processes": len(facts.live), "hosts": hosts}
    if len(facts.live) == 1:
        return [_SCALING.warning(f"one worker process, on {hosts[0]}", told)]
    if len(hosts) == 1:
        return [_SCALING.warning(f"{len(facts.live)} worker processes, all on {hosts[0]}", told)]
    return [_SCALING.ok(f"{len(facts.live)} worker processes on {len(hosts)} hosts", told)]


def scaling_endpoint(facts: Facts) -> list[Finding]:
    """`/scaling` answers, as far as it can be tried from here."""
    seen = facts.scaling
    if seen.is_reached is None:
        return [_ENDPOINT.skipped(seen.observed)]
    return [_ENDPOINT.ok(seen.observed) if seen.is_reached else _ENDPOINT.warning(seen.observed)]


def concurrency(facts: Facts) -> list[Finding]:
    """Jobs at once of all processes of a host, against its processors."""
    hosts: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    for worker in facts.live:
        if worker.slots is not None and worker.cores:
            hosts[worker.host][0] += worker.slots
            hosts[worker.host][1] = max(hosts[worker.host][1], worker.cores)
    if not hosts:
        return [_CONCURRENCY.skipped("no live worker tells its jobs at once and processors")]
    told = {"hosts": {host: {"slots": slots, "cores": cores} for host, (slots, cores) in sorted(hosts.items())}}
    many = [f"{host}: {slots} at once on {cores}" for host, (slots, cores) in hosts.items() if slots > SLOTS_PER_CORE * cores]
    if many:
        return [_CONCURRENCY.warning(f"more than {SLOTS_PER_CORE} jobs at once for each processor: {named(many)}", told)]
    slots, cores = (sum(column) for column in zip(*hosts.values(), strict=True))
    return [_CONCURRENCY.ok(f"{slots} jobs at once on {cores} processors; hosts: {len(hosts)}", told)]


def shutdown(facts: Facts) -> list[Finding]:
    """Running jobs have their whole time-out to end after SIGTERM."""
    timeouts = {entry.type: entry.timeout_ms for entry in facts.store.types}
    short: dict[str, int] = {}
    drains = []
    for worker in facts.live:
        if worker.drain_ms is not None:
            drains.append(worker.drain_ms)
            short |= {name: timeouts[name] for name in worker.types if timeouts.get(name, 0) > worker.drain_ms}
    if not drains:
        return [_SHUTDOWN.skipped("no live worker tells how long it drains")]
    told = {"drainMs": min(drains), "timeoutsMs": dict(sorted(short.items()))}
    if short:
        text = f"{min(drains) / 1_000:g} s to drain, the longest time-out is {max(short.values()) / 1_000:g} s: {named(short)}"
        return [_SHUTDOWN.warning(text, told)]
    return [_SHUTDOWN.ok(f"{min(drains) / 1_000:g} s to drain, no time-out is longer", told)]


def metrics(facts: Facts) -> list[Finding]:
    """Workers can be scraped."""
    ports = {worker.id: worker.metrics_port for worker in facts.live if worker.metrics_port is not None}
    if not ports:
        return [_METRICS.skipped("no live worker tells its port")]
    off = sorted(name for name, port in ports.items() if port == 0)
    if off:
        return [_METRICS.warning(f"no metrics: {named(off)}", {"workers": off})]
    return [_METRICS.ok(f"{len(ports)} processes, all with a port of their service")]


def plugin_loading(facts: Facts) -> list[Finding]:
    """No live worker has a plugin that it could not load."""
    if not facts.store.workers:
        return [_LOADED.skipped("no worker is alive")]
    failed: dict[str, dict[str, str]] = defaultdict(dict)
    for worker in facts.store.workers:
        for name, why in worker.failed.items():
            failed[name][worker.id] = why
    if failed:
        told = [f"{name} in {named(where)}: {next(iter(where.values()))}" for name, where in sorted(failed.items())]
        return [_LOADED.error("; ".join(told), {"plugins": dict(failed)})]
    return [_LOADED.ok("every live worker has loaded what it was to load")]


def plugin_sets(facts: Facts) -> list[Finding]:
    """All workers have the same plugins, in the same versions."""
    sets: dict[str, list[str]] = defaultdict(list)
    for worker in facts.live:
        spelled = ", ".join(f"{name} {version}".strip() for name, version in sorted(worker.plugins.items()))
        sets[spelled or "none"].append(worker.id)
    if not sets:
        return [_SETS.skipped("no worker is alive")]
    if len(sets) == 1:
        return [_SETS.ok(next(iter(sets)))]
    told = [{"plugins": spelled, "workers": sorted(ids)} for spelled, ids in sorted(sets.items())]
    return [_SETS.warning("; ".join(f"{named(ids)}: {spelled}" for spelled, ids in sorted(sets.items())), {"sets": told})]


def api_exposure(facts: Facts) -> list[Finding]:
    """The API listens on this machine alone."""
    own = facts.own
    told = {"host": own.host, "scopes": list(own.scopes)}
    if own.host is None:
        return [_EXPOSURE.skipped("where the API listens is not set here", told, fix="ask GET /doctor, or give --host as the API has it")]
    if _is_loopback(own.host):
        return [_EXPOSURE.ok(f"listens on {own.host}", told)]
    return [_EXPOSURE.warning(f"listens on {own.host}, without authentication; callers may {named(own.scopes) or 'only look'}", told)]


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


RULES = (
    plugins,
    workers,
    worker_types,
    plugin_loading,
    plugin_sets,
    scaling,
    scaling_endpoint,
    concurrency,
    shutdown,
    metrics,
    api_exposure,
)
