"""Every setting, read once when a process starts and passed down from there. Nothing else reads the environment.

A value comes from the last of these that has it: default, a name that others gave it (`REDIS_URL`, `OTEL_EXPORTER_OTLP_ENDPOINT`), the TOML
file, the `.env` file, the environment, the command line. The raw values are merged first and converted together, so that a wrong value is
reported with the place it came from, and one that is overridden does no harm.

In the environment and in `.env` a setting is called `TASKMASTER_` + its upper-case name; an empty value counts as none. In TOML it has its
own name, at the top level. An unknown name is an error everywhere, except `TASKMASTER_PLUGIN_…`, which belongs to plugins.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Final, Literal, NamedTuple, get_args, get_type_hints

import msgspec
from msgspec import Meta

from taskmaster.errors import ConfigurationError
from taskmaster.model import retention, spelling
from taskmaster.model.addresses import is_store, is_web, masked_url
from taskmaster.model.egress import parse_allowed
from taskmaster.model.scopes import ORDINARY, Scope
from taskmaster.model.webhooks import key_of

__all__ = [
    "CONFIG_FILE",
    "ENV_FILE",
    "GROUPED",
    "NAMES",
    "PLUGIN_PREFIX",
    "PREFIX",
    "Settings",
    "Shown",
    "describe",
    "help_text",
    "load",
    "slots_of",
    "to_environ",
]

PREFIX: Final = "TASKMASTER_"
PLUGIN_PREFIX: Final = "TASKMASTER_PLUGIN_"
CONFIG_FILE: Final = "taskmaster.toml"
ENV_FILE: Final = ".env"
#: Names with our prefix that are no settings: which TOML file to read, and where `ops/dev` keeps its virtual environment.
_OTHER_NAMES: Final = frozenset({"TASKMASTER_CONFIG", "TASKMASTER_VENV"})

Count = Annotated[int, Meta(ge=0, le=100_000_000)]
Slots = Annotated[int, Meta(ge=1, le=10_000)]
Name = Annotated[str, Meta(min_length=1, max_length=200)]
#: Between the queues of a group.
GROUPED: Final = "+"
Grouped = Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9._-]*(\+[a-z0-9][a-z0-9._-]*)+$", max_length=2_000)]


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The settings of one process. Names end in their unit; sizes are bytes."""

    host: Annotated[str, Meta(min_length=1, description="address that the API listens on")] = "127.0.0.1"
    port: Annotated[int, Meta(ge=0, le=65_535, description="port of the API; 0 takes any free one")] = 8000
    data_dir: Annotated[Path, Meta(description="folder of the embedded store, the outbox and artifacts")] = Path(".taskmaster")
    redis_url: Annotated[str | None, Meta(description="Redis or Valkey to use; without it an embedded one is started")] = None
    worker_processes: Annotated[int, Meta(ge=1, le=256, description="worker processes")] = 2
    concurrency: Annotated[Slots, Meta(description="jobs of one queue that one worker process runs at once")] = 8
    queue_concurrency: Annotated[dict[Name, Slots], Meta(description="the same for single queues: email-queue=3,report-queue=2")] = {}
    queue_groups: Annotated[
        dict[Grouped, Slots],
        Meta(description="queues that share jobs at once by their weights, and how many: reports+exports=4,mail+sms=8; others stand alone"),
    ] = {}
    queues: Annotated[tuple[Name, ...], Meta(description="queues that the workers serve, comma-separated; empty: all")] = ()
    metrics_host: Annotated[str, Meta(min_length=1, description="address of the metrics of workers and schedulers")] = "127.0.0.1"
    worker_metrics_port: Annotated[int, Meta(ge=0, le=65_535, description="port of the metrics of all processes of a worker; 0: none")] = (
        3001
    )
    scheduler_metrics_port: Annotated[int, Meta(ge=0, le=65_535, description="port of a scheduler's metrics; 0: none")] = 3002
    lease_ms: Annotated[int, Meta(ge=1_000, le=3_600_000, description="how long a job stays with a worker that went silent")] = 30_000
    drain_ms: Annotated[int, Meta(ge=0, le=3_600_000, description="how long running jobs may take to end at shutdown")] = 30_000
    timeout_grace_ms: Annotated[
        int, Meta(ge=100, le=600_000, description="how long a handler that was told to stop may take before its attempt is ended by force")
    ] = 5_000
    cancel_grace_ms: Annotated[
        int,
        Meta(ge=0, le=3_600_000, description="how long a handler may take to heed a cancellation before it is told to stop"),
    ] = 10_000
    silent_ms: Annotated[
        int, Meta(ge=0, le=3_600_000, description="a worker process whose heartbeat or consuming stops for so long is killed; 0: never")
    ] = 20_000
    recycle_jobs: Annotated[int, Meta(ge=0, le=1_000_000_000, description="jobs after which a worker process is replaced; 0: never")] = 0
    recycle_mb: Annotated[
        int, Meta(ge=0, le=10_000_000, description="resident megabytes at which a worker process is replaced; 0: never")
    ] = 0
    partitions: Annotated[int, Meta(ge=1, le=1_024, description="partitions of the store; the same for all processes, for ever")] = 1
    idempotency: Annotated[Literal["required", "optional"], Meta(description="whether a submission needs an idempotency key")] = "required"
    scopes: Annotated[
        tuple[Scope, ...], Meta(description=f"what callers of the API may do, comma-separated: {', '.join(get_args(Scope))}")
    ] = ORDINARY
    plugins: Annotated[tuple[Name, ...], Meta(description="plugins to load, by entry-point name, comma-separated; empty: all")] = ()
    log_level: Annotated[Literal["debug", "info", "warning", "error"], Meta(description="least level that is logged")] = "info"
    job_log_level: Annotated[
        Literal["debug", "info", "warning", "error", "off"], Meta(description="least level of a handler's lines that are kept with its job")
    ] = "info"
    log_format: Annotated[Literal["auto", "json", "console"], Meta(description="auto: console on a terminal, else JSON lines")] = "auto"
    store_timeout_ms: Annotated[int, Meta(ge=100, le=60_000, description="how long one store call of the API may take")] = 5_000
    artifact_max_bytes: Annotated[int, Meta(ge=1_024, le=1_099_511_627_776, description="largest artifact that a handler may store")] = (
        268_435_456
    )
    streams_max: Annotated[
        int, Meta(ge=0, le=100_000, description="streams of events, of one job or of all, that are open at once through one API process")
    ] = 200
    max_body_bytes: Annotated[int, Meta(ge=1_024, le=67_108_864, description="largest request body")] = 262_144
    idempotency_window_ms: Annotated[
        int, Meta(ge=0, le=31_622_400_000, description="how long a key is remembered after its job has ended")
    ] = 86_400_000
    keep_completed: Annotated[Count, Meta(description="completed jobs kept per queue")] = 10_000
    keep_failed: Annotated[Count, Meta(description="failed jobs kept per queue")] = 50_000
    keep_cancelled: Annotated[Count, Meta(description="cancelled jobs kept per queue")] = 10_000
    keep_age_ms: Annotated[int, Meta(ge=1_000, le=316_224_000_000, description="age at which ended jobs go, whatever their number")] = (
        604_800_000
    )
    retention: Annotated[
        retention.Rules, Meta(description="the same for single queues and states, and by bytes: email-queue.completed.count=1000")
    ] = {}

    shed_memory_percent: Annotated[
        int,
        Meta(ge=0, le=99, description="share of the store's memory limit from which on low priority is refused, others later; 0: never"),
    ] = 80
    shed_waiting: Annotated[
        Count,
        Meta(description="waiting jobs of a queue from which on low priority is refused, normal at twice, high at four times; 0: never"),
    ] = 1_000_000
    shed_age_ms: Annotated[
        int, Meta(ge=0, le=604_800_000, description="the same by the age of the oldest job that waits in the queue; 0: never")
    ] = 0
    sweep_every_ms: Annotated[
        int, Meta(ge=1_000, le=604_800_000, description="from one sweep over the store's records and indexes to the next")
    ] = 600_000
    otlp_endpoint: Annotated[
        str | None, Meta(description="OpenTelemetry collector that traces go to, such as http://collector:4317; without it there are none")
    ] = None
    otlp_protocol: Annotated[Literal["grpc", "http/protobuf"], Meta(description="how the collector is spoken to")] = "grpc"
    trace_ratio: Annotated[
        float, Meta(ge=0, le=1, description="share of traces that are recorded, of those that begin here; what comes with one keeps to it")
    ] = 1.0
    webhook_allow: Annotated[
        tuple[Name, ...],
        Meta(description="hosts, addresses and networks that webhooks may call although they are not public, comma-separated: 10.1.0.0/16"),
    ] = ()
    webhook_secrets: Annotated[
        tuple[Name, ...],
        Meta(description="secrets that sign what a job's callbackUrl is sent, comma-separated, several while rotating; empty: unsigned"),
    ] = ()
    trace_url: Annotated[str | None, Meta(description="where people look at a trace: http://jaeger:16686/trace/{trace_id}")] = None
    durability: Annotated[
        Literal["default", "strict"], Meta(description="strict: run only on a store that writes every job to disk before its answer")
    ] = "default"

    #: Where each value comes from, by name; not a setting.
    sources: dict[str, str] = {}
    #: `TASKMASTER_PLUGIN_…` from `.env` and the environment, for the plugins; not a setting.
    plugin_environ: dict[str, str] = {}

    def __repr__(self) -> str:
        return "Settings(" + ", ".join(f"{shown.name}={shown.value}" for shown in describe(self)) + ")"


#: Every setting, in the order in which they are shown.
NAMES: Final[tuple[str, ...]] = tuple(name for name in Settings.__struct_fields__ if name not in ("sources", "plugin_environ"))
_LISTS: Final = frozenset({"queues", "plugins", "scopes", "webhook_allow", "webhook_secrets"})
_CHOICES: Final = frozenset({"idempotency", "log_level", "job_log_level", "log_format", "otlp_protocol", "durability"})
#: Names that others have given to settings of ours. Ours beat them, wherever they stand.
_FOREIGN: Final = {
    "REDIS_URL": "redis_url",
    "OTEL_EXPORTER_OTLP_ENDPOINT": "otlp_endpoint",
    "OTEL_EXPORTER_OTLP_PROTOCOL": "otlp_protocol",
}


class Shown(NamedTuple):
    """One setting for people: secrets masked."""

    name: str
    value: str
    source: str


class _Raw(NamedTuple):
    """A value before conversion: what it is called where it stands, and where that is."""

    value: Any
    spelled: str
    source: str


def load(cli: Mapping[str, str | None], environ: Mapping[str, str], cwd: Path) -> Settings:
    """The settings from all sources. Reads the TOML file and `.env` in *cwd*, and writes nothing.

    Args:
        cli: by setting name, and `config` for the TOML file; None counts as not given.
        environ: the process environment.
        cwd: absolute; a relative `data_dir` or `TASKMASTER_CONFIG` starts here, wherever it was written.

    Raises:
        ConfigurationError: an unknown name, a value that cannot be, or a file that cannot be read. Says where it stands and what would do.
    """
    dotenv = _read_env_file(cwd / ENV_FILE)
    layers = [
        _from_foreign(dotenv, ENV_FILE),
        _from_foreign(environ, "environment"),
        _from_toml(cli.get("config") or environ.get("TASKMASTER_CONFIG") or dotenv.get("TASKMASTER_CONFIG"), cwd),
        _from_names(dotenv, ENV_FILE),
        _from_names(environ, "environment"),
        _from_cli(cli),
    ]
    merged: dict[str, _Raw] = {}
    for layer in layers:
        merged.update(layer)
    settings = _convert(merged)
    return msgspec.structs.replace(
        settings,
        data_dir=cwd / settings.data_dir.expanduser(),
        sources={name: merged[name].source if name in merged else "default" for name in NAMES},
        plugin_environ={name: value for layer in (dotenv, environ) for name, value in layer.items() if name.startswith(PLUGIN_PREFIX)},
    )


def describe(settings: Settings) -> list[Shown]:
    """Every setting with its value as text and its source. No secret is in it."""
    return [Shown(name, spelling.shown(name, getattr(settings, name)), settings.sources.get(name, "default")) for name in NAMES]


def to_environ(settings: Settings) -> dict[str, str]:
    """The environment variables from which `load` makes the same settings again, for a child process. The store's secret is in it."""
    texts = {PREFIX + name.upper(): spelling.text(name, getattr(settings, name)) for name in NAMES}
    return settings.plugin_environ | {name: text for name, text in texts.items() if text}


def slots_of(settings: Settings, queue: str) -> int:
    """How many jobs of *queue* one worker process runs at once: of a group, together with the others of it."""
    shared = [most for names, most in settings.queue_groups.items() if queue in names.split(GROUPED)]
    return shared[0] if shared else settings.queue_concurrency.get(queue, settings.concurrency)


def help_text(name: str) -> str:
    """What a setting is for, one line; the text of its command-line option.

    Raises:
        KeyError: no such setting.
    """
    hint = _hints()[name]
    return next((meta.description for meta in reversed(hint.__metadata__) if meta.description), "")


@cache
def _hints() -> dict[str, Any]:
    """Types of the settings: reading them all takes 3 ms."""
    return get_type_hints(Settings, include_extras=True)


def _from_foreign(names: Mapping[str, str], source: str) -> dict[str, _Raw]:
    given = ((foreign, name, names.get(foreign, "").strip()) for foreign, name in _FOREIGN.items())
    return {name: _Raw(value, foreign, f"{source} ({foreign})") for foreign, name, value in given if value}


def _from_names(names: Mapping[str, str], source: str) -> dict[str, _Raw]:
    """Settings among environment variables."""
    known = {PREFIX + name.upper(): name for name in NAMES}
    found = {}
    for spelled, value in names.items():
        if not spelled.startswith(PREFIX) or spelled.startswith(PLUGIN_PREFIX) or spelled in _OTHER_NAMES:
            continue
        if spelled not in known:
            raise _unknown(spelled, source, [*known, *_OTHER_NAMES], f"names of plugins begin with {PLUGIN_PREFIX}")
        if value.strip():
            found[known[spelled]] = _Raw(value.strip(), spelled, source)
    return found


def _from_cli(cli: Mapping[str, str | None]) -> dict[str, _Raw]:
    for name in cli:
        if name not in NAMES and name != "config":
            raise _unknown(name, "command line", NAMES)
    given = ((name, value) for name, value in cli.items() if name != "config" and value)
    return {name: _Raw(value, "--" + name.replace("_", "-"), "command line") for name, value in given}


def _from_toml(named: str | None, cwd: Path) -> dict[str, _Raw]:
    """Settings in the TOML file: the named one, which must be there, or the one in *cwd*, if it is."""
    path = cwd / (named or CONFIG_FILE)
    try:
        table = tomllib.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        if named is None:
            return {}
        raise ConfigurationError(f"TASKMASTER_CONFIG names {path}, which does not exist", path=str(path)) from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigurationError(f"{path} cannot be read as TOML: {error}", path=str(path)) from error
    source = named or CONFIG_FILE
    for key in table:
        if key not in NAMES:
            raise _unknown(key, source, NAMES)
    return {key: _Raw(value, key, source) for key, value in table.items()}


def _read_env_file(path: Path) -> dict[str, str]:
    """The variables of a `.env` file: NAME=value lines, `export` allowed, # comments, quotes taken off, nothing expanded."""
    try:
        text = path.read_text("utf-8")
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path} cannot be read: {error}", path=str(path)) from error
    return dict(_env_lines(text, path))


def _env_lines(text: str, path: Path) -> Iterator[tuple[str, str]]:
    for number, line in enumerate(text.splitlines(), start=1):
        stripped = line.strip()
        if not stripped or stripped.startswith("#"):
            continue
        found = re.fullmatch(r"(?:export\s+)?([A-Za-z_]\w*)\s*=\s*(?:'([^']*)'|\"([^\"]*)\"|(.*?))(?:\s+#.*)?", stripped)
        if found is None:
            raise ConfigurationError(f"{path}, line {number}: NAME=value is meant", path=str(path), line=number)
        name, *values = found.groups()
        value = next((value for value in values if value is not None), "")
        yield name, "" if value.startswith("#") else value


def _unknown(spelled: str, source: str, known: Any, more: str = "") -> ConfigurationError:
    near = difflib.get_close_matches(spelled, list(known), n=1, cutoff=0.6)
    message = f"unknown setting {spelled} ({source})"
    if near:
        message += f"; did you mean {near[0]}?"
    else:
        message += "; `taskmaster config` lists all of them"
    return ConfigurationError(message + (f" ({more})" if more and not near else ""), name=spelled, near=near)


def _convert(merged: Mapping[str, _Raw]) -> Settings:
    prepared = {}
    for name, raw in merged.items():
        prepared[name] = _parsed(name, raw)
    try:
        made = msgspec.convert(prepared, Settings, strict=False, dec_hook=_decode)
    except msgspec.ValidationError as error:
        found = re.search(r"`(?:key in )?\$\.(\w+)", str(error))
        name = found[1] if found else next(iter(merged))
        raise _wrong(name, merged[name]) from error
    grouped = [queue for names in made.queue_groups for queue in names.split(GROUPED)]
    if len(grouped) != len(set(grouped)):
        raise _wrong("queue_groups", merged["queue_groups"])
    return made


def _parsed(name: str, raw: _Raw) -> Any:
    """Text in the forms that only settings have: lists with commas, name=number pairs, choices in any case."""
    value = raw.value
    if name == "redis_url":
        _check_url(raw)
    if name in ("otlp_endpoint", "trace_url") and not is_web(value):
        raise _wrong(name, raw)
    if name == "trace_url" and "{trace_id}" not in value:
        raise _wrong(name, raw)
    if not isinstance(value, str):
        if isinstance(value, list):
            _check_parts(name, [str(part) for part in value], raw)
        return value
    if name in _LISTS:
        parts = [part.strip() for part in value.split(",") if part.strip()]
        _check_parts(name, parts, raw)
        return parts
    if name == "retention":
        try:
            return retention.parse(value)
        except ValueError as error:
            raise _wrong(name, raw) from error
    if name in ("queue_concurrency", "queue_groups"):
        pairs = [part.partition("=") for part in value.split(",") if part.strip()]
        if not all(equals for _, equals, _ in pairs):
            raise _wrong(name, raw)
        return {queue.strip(): number.strip() for queue, _, number in pairs}
    return value.lower() if name in _CHOICES else value


def _check_parts(name: str, parts: list[str], raw: _Raw) -> None:
    """Entries of lists that have a form of their own."""
    try:
        if name == "webhook_allow":
            parse_allowed(parts)
        if name == "webhook_secrets":
            for part in parts:
                key_of(part)
    except ValueError as error:
        raise _wrong(name, raw) from error


def _check_url(raw: _Raw) -> None:
    if not is_store(raw.value):
        message = f"{raw.spelled} ({raw.source}) is not the address of a Redis: redis://host:port/0, rediss:// with TLS, or unix:///path"
        raise ConfigurationError(message, name="redis_url", source=raw.source)


def _wrong(name: str, raw: _Raw) -> ConfigurationError:
    value = masked_url(raw.value) if name == "otlp_endpoint" and isinstance(raw.value, str) else raw.value
    value = "***" if name == "webhook_secrets" else value
    message = f"{raw.spelled} is {value!r} ({raw.source}): expected {_expected(name)}"
    return ConfigurationError(message, name=name, source=raw.source)


def _expected(name: str) -> str:
    if name == "queue_groups":
        return "queues=number pairs from 1 to 10000, such as reports+exports=4,mail+sms=8, each queue in one of them"
    if name == "queue_concurrency":
        return "queue=number pairs from 1 to 10000, such as email-queue=3,report-queue=2"
    if name == "retention":
        return f"{retention.ENTRY}; states are {', '.join(retention.ENDED)}"
    if name == "scopes":
        return f"some of {', '.join(get_args(Scope))}, separated by commas"
    if name == "webhook_allow":
        return "hosts, addresses and networks separated by commas, such as hooks.internal,10.1.0.0/16"
    if name == "webhook_secrets":
        return "secrets separated by commas: whsec_ and 24 to 64 bytes in base64 each"
    if name in _LISTS:
        return "names separated by commas"
    if name in ("otlp_endpoint", "trace_url"):
        return "an address, http:// or https://" + (", with {trace_id} in it" if name == "trace_url" else "")
    hint = _hints()[name]
    if name in _CHOICES:
        return " or ".join(get_args(hint.__origin__))
    limits = [meta for meta in hint.__metadata__ if meta.ge is not None]
    kind = "a number" if name == "trace_ratio" else "a whole number"
    return f"{kind} from {limits[0].ge} to {limits[0].le}" if limits else "a text that is not empty"


def _decode(kind: type, value: Any) -> Any:
    if kind is Path and isinstance(value, str):
        return Path(value)
    raise TypeError(f"expected {kind.__name__}")
