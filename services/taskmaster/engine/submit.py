"""Submitting jobs: what a caller may ask for, the checks that nobody can get around, and the record that the store keeps."""

from __future__ import annotations

import datetime as dt
import difflib
import hashlib
import math
from binascii import b2a_base64
from collections.abc import Iterable, Sequence
from functools import lru_cache
from hashlib import blake2b
from typing import Annotated, Any, NamedTuple, Protocol

import msgspec

from taskmaster.engine import options
from taskmaster.engine.options import FAR_MAX_MS, out_of_range
from taskmaster.errors import InvalidPayload, InvalidRequest, KeyMissing, UnknownJobType
from taskmaster.model import webhooks
from taskmaster.model.egress import URL_MAX, target_of
from taskmaster.model.ids import digest_slot, new_job_id, partition_of
from taskmaster.model.job import Envelope, seal
from taskmaster.model.patterns import whole
from taskmaster.model.retry import DEFAULT, Backoff
from taskmaster.model.states import PRIORITIES, Priority
from taskmaster.plugins.catalogue import CatalogueEntry
from taskmaster.plugins.marks import MASK, holds_mask
from taskmaster.plugins.validation import Validator
from taskmaster.store.calls import NewJob, Unique
from taskmaster_sdk.jobs import NAME

__all__ = [
    "Bounds",
    "Prepared",
    "Submission",
    "holds_nan",
    "key_digest",
    "payload_json",
    "prepare",
    "renew",
    "unknown_type",
]

#: Caps that no submission can exceed.
ATTEMPTS_MAX, TIMEOUT_MAX_MS, DELAY_MAX_MS, KEY_MAX = 100, 86_400_000, FAR_MAX_MS, 255

_URL_SAFE = bytes.maketrans(b"+/", b"-_")
_RANK: dict[str, int] = {name: rank for rank, name in enumerate(PRIORITIES)}
_encode = msgspec.json.Encoder().encode
_canonical = msgspec.json.Encoder(order="deterministic").encode


class Submission(msgspec.Struct, rename="camel", forbid_unknown_fields=True, frozen=True, omit_defaults=True):
    """A request for one job, as it comes over the wire. None means: as the job type or the engine has it.

    Attributes:
        type: job type, one of the catalogue's.
        idempotency_key: 1..255 characters; equal keys of one type name one job.
        payload: JSON that fits the type's schema.
        queue: where it waits.
        priority: critical, high, normal or low.
        delay_ms: not before that many milliseconds from now, at most 10 years; not together with run_at.
        run_at: not before this instant, with its offset from UTC.
        attempts: executions at most, 1..100.
        backoff: the waits between them.
        timeout_ms: for one attempt, 1 ms .. 24 h.
        expires_at: not begun later than this instant, which is in the future, with its offset from UTC, and after run_at.
        lifo: before what waits in its lane, the last one first.
        fairness_key: jobs with equal keys take turns with those of other keys inside a priority; 1..256 characters.
        tags: at most 10, to find the job by; 1..64 of A-Z a-z 0-9 . _ : @ -
        limits: at most 4 names of limiters that it needs, beside those of its queue and type.
        unique: no other job of this type for the same work.
        callback_url: http or https; told when the job has ended, whatever way (webhooks in the README).
    """

    type: str
    idempotency_key: Annotated[str, msgspec.Meta(min_length=1, max_length=KEY_MAX)] | None = None
    payload: Any = msgspec.field(default_factory=dict)
    queue: Annotated[str, msgspec.Meta(pattern=whole(NAME.pattern), max_length=64)] | None = None
    priority: Priority | None = None
    delay_ms: Annotated[int, msgspec.Meta(ge=0, le=DELAY_MAX_MS)] | None = None
    run_at: Annotated[dt.datetime, msgspec.Meta(tz=True)] | None = None
    attempts: Annotated[int, msgspec.Meta(ge=1, le=ATTEMPTS_MAX)] | None = None
    backoff: Backoff | None = None
    timeout_ms: Annotated[int, msgspec.Meta(ge=1, le=TIMEOUT_MAX_MS)] | None = None
    expires_at: options.Instant | None = None
    lifo: bool | None = None
    fairness_key: options.Key | None = None
    tags: options.Tags | None = None
    limits: options.LimitNames | None = None
    unique: options.UniqueWork | None = None
    callback_url: Annotated[str, msgspec.Meta(min_length=1, max_length=URL_MAX)] | None = None


class Bounds(Protocol):
    """What submission needs of the settings."""

    @property
    def partitions(self) -> int:
        """How many partitions the store has."""

    @property
    def idempotency(self) -> str:
        """`required` or `optional`: whether a key must be given where the job type does not say."""

    @property
    def max_body_bytes(self) -> int:
        """The largest payload, as compact JSON."""

    @property
    def idempotency_window_ms(self) -> int:
        """How long a key is remembered after its job has ended."""


#: A checked submission: its partition, and what the store is given.
Prepared = tuple[int, NewJob]


def prepare(
    submission: Submission,
    entry: CatalogueEntry,
    validator: Validator,
    settings: Bounds,
    now_ms: int,
    origin: str,
    tenant: str = "",
    traceparent: str = "",
) -> Prepared:
    """Check *submission* against its type and the caps, and make the record. Pure; about 7 us.

    Precedence: what the caller says, then the job type, then the engine. The request digest covers what the caller sent, so a later
    change of a type's defaults does not make a repeat look like another request.

    Args:
        submission: the request.
        entry: its type's entry of the catalogue.
        validator: of that entry's schema.
        settings: the server's.
        now_ms: by the store's clock, for the id.
        origin: api, cli or client.
        tenant: whose key it is; part of the key's scope.
        traceparent: W3C trace context of the request, or empty.

    Raises:
        InvalidPayload: it does not fit the schema, is no JSON, or is too large.
        KeyMissing: a key is required here.
        InvalidRequest: a field is out of its limits.
    """
    job_type, payload, key = submission.type, submission.payload, submission.idempotency_key
    if job_type == webhooks.DELIVERY:
        raise InvalidRequest(
            f"jobs of type {job_type} are made by the engine alone, for the end of a job that somebody wants to hear of: see callbackUrl",
            type=job_type,
        )
    if key is None and (settings.idempotency == "required" if entry.key_required is None else entry.key_required):
        raise KeyMissing(
            f"an idempotency key is required for {job_type!r}: give idempotencyKey in the body or the Idempotency-Key header, "
            "and the same one when you repeat the request",
            type=job_type,
        )
    raw = payload_json(payload, validator, settings.max_body_bytes)
    # What the options are is decided apart: most submissions have none, and then this is all that is done.
    o = _decide(submission, entry, settings, now_ms, tenant) if _has_options(submission) else None
    kx = ""
    if key is not None:
        if not 0 < len(key) <= KEY_MAX:
            raise out_of_range("idempotencyKey", f"1 to {KEY_MAX} characters")
        kx = key_digest(tenant, job_type, key)
    # A job stands beside what it must be unique by: its work if it names one, else its key.
    home = o.unique.digest if o is not None and o.unique is not None else kx
    slot = digest_slot(home) if home else None
    job_id = new_job_id(now_ms, slot)
    partition = partition_of(job_id, settings.partitions) if slot is None else slot % settings.partitions
    request = b2a_base64(blake2b(_canonical(submission), digest_size=8).digest(), newline=False)[:11].decode()  # for requests of one key
    if o is None:
        backoff = DEFAULT if entry.backoff == DEFAULT else entry.backoff  # the encoder leaves out what is identical, not what is equal
        blob = seal(Envelope(job_type, msgspec.Raw(raw), key or "", origin, entry.attempts, entry.timeout_ms, backoff, traceparent))
        return partition, NewJob(job_id, entry.queue, job_type, 2, 0, 0, entry.attempts, kx, request, blob)
    backoff = DEFAULT if o.backoff == DEFAULT else o.backoff
    envelope = Envelope(job_type, msgspec.Raw(raw), key or "", origin, o.attempts, o.timeout_ms, backoff, traceparent)
    if o.is_told:
        unique_key = submission.unique.key if submission.unique else ""
        told = {"fairness_key": submission.fairness_key or "", "tags": o.tags, "limits": submission.limits or (), "unique_key": unique_key}
        told["callback_url"] = o.callback
        envelope = msgspec.structs.replace(envelope, **told)
    job = NewJob(job_id, o.queue, job_type, o.rank, o.due_ms, o.delay_ms, o.attempts, kx, request, seal(envelope))
    place = {
        "lane": o.lane,
        "lifo": o.lifo,
        "expires_ms": o.expires_ms,
        "tags": o.tags,
        "unique": o.unique,
        "callback": f"{o.callback} {traceparent}".rstrip(),
    }
    return partition, msgspec.structs.replace(job, **place)


class _Decided(NamedTuple):
    """What holds for one submission: the caller's word where given and allowed, else the type's."""

    queue: str
    rank: int
    due_ms: int
    delay_ms: int
    attempts: int
    backoff: Backoff
    timeout_ms: int
    lane: str
    lifo: int
    expires_ms: int
    tags: tuple[str, ...]
    unique: Unique | None
    callback: str

    @property
    def is_told(self) -> bool:
        """Whether the envelope has to say more than it does for most."""
        return bool(self.lane or self.tags or self.unique or self.callback)


def _has_options(submission: Submission) -> bool:
    """Whether the caller asked for anything beyond type, key and payload."""
    return not (
        submission.queue is None
        and submission.priority is None
        and submission.delay_ms is None
        and submission.run_at is None
        and submission.attempts is None
        and submission.backoff is None
        and submission.timeout_ms is None
        and submission.expires_at is None
        and submission.lifo is None
        and submission.fairness_key is None
        and submission.tags is None
        and submission.limits is None
        and submission.unique is None
        and submission.callback_url is None
    )


def _decide(submission: Submission, entry: CatalogueEntry, settings: Bounds, now_ms: int, tenant: str) -> _Decided:
    if submission.callback_url is not None:
        try:
            target_of(submission.callback_url)
        except ValueError as error:
            raise InvalidRequest(f"callbackUrl: {error}", errors=[{"pointer": "/callbackUrl", "message": str(error)}]) from error
    due_ms, delay_ms, attempts, timeout_ms = 0, submission.delay_ms or 0, submission.attempts, submission.timeout_ms
    if not (0 <= delay_ms <= DELAY_MAX_MS):
        raise out_of_range("delayMs", f"0 to {DELAY_MAX_MS} (10 years)")
    if submission.run_at is not None:
        if submission.delay_ms is not None:
            raise InvalidRequest("give delayMs or runAt, not both", errors=[{"pointer": "/runAt", "message": "delayMs is given as well"}])
        due_ms = options.instant_ms("runAt", submission.run_at, now_ms)
    if attempts is None:
        attempts = entry.attempts
    elif not 1 <= attempts <= ATTEMPTS_MAX:
        raise out_of_range("attempts", f"1 to {ATTEMPTS_MAX}")
    if timeout_ms is None:
        timeout_ms = entry.timeout_ms
    elif not 1 <= timeout_ms <= TIMEOUT_MAX_MS:
        raise out_of_range("timeoutMs", f"1 to {TIMEOUT_MAX_MS} (24 h)")
    queue = submission.queue
    if queue is None:
        queue = entry.queue
    elif not NAME.fullmatch(queue):
        raise out_of_range("queue", "a name of 1 to 64 of a-z 0-9 . _ - that begins with a letter or digit")
    rank = 2 if submission.priority is None else _RANK.get(submission.priority, -1)
    if rank < 0:
        raise out_of_range("priority", ", ".join(PRIORITIES))
    backoff = submission.backoff
    if backoff is None:
        backoff = entry.backoff
    elif (backoff.kind == "list") != bool(backoff.delays_ms):
        raise out_of_range("backoff/delaysMs", "1 to 100 delays for the kind 'list', none for the others")
    expires_ms = 0
    if submission.expires_at is not None:
        expires_ms = options.instant_ms("expiresAt", submission.expires_at, now_ms)  # the script says whether that is too early
    unique = None
    if submission.unique is not None:
        is_delayed, window_ms = bool(delay_ms) or due_ms > now_ms, settings.idempotency_window_ms
        unique = options.unique_of(submission.unique, tenant, submission.type, is_delayed=is_delayed, window_ms=window_ms)
    return _Decided(
        queue,
        rank,
        due_ms,
        delay_ms,
        attempts,
        backoff,
        timeout_ms,
        lane=options.lane_of(submission.fairness_key, submission.limits or ()),
        lifo=int(bool(submission.lifo)),
        expires_ms=expires_ms,
        tags=options.tags_of(submission.tags or ()),
        unique=unique,
        callback=submission.callback_url or "",
    )


def renew(job: NewJob, now_ms: int) -> NewJob:
    """The same submission under a fresh id with the same slot, for when the first one came too late."""
    return msgspec.structs.replace(job, id=new_job_id(now_ms, int(job.id[-4:], 16)))


@lru_cache(maxsize=4_096)
def _scope(tenant: str, job_type: str) -> bytes:
    """What `digest(tenant, job_type, …)` hashes first."""
    return b"".join(b"%d:%b" % (len(part), part) for part in (tenant.encode(), job_type.encode()))


def key_digest(tenant: str, job_type: str, key: str) -> str:
    """`digest(tenant, job_type, key)`: the name of the idempotency record.

    Raises:
        InvalidRequest: the key is not text that UTF-8 can write.
    """
    try:
        raw = key.encode()
    except UnicodeEncodeError as error:
        raise out_of_range("idempotencyKey", "text without lone surrogates") from error
    hashed = hashlib.sha256(b"%b%d:%b" % (_scope(tenant, job_type), len(raw), raw)).digest()
    return b2a_base64(hashed[:16], newline=False).translate(_URL_SAFE)[:22].decode()


def unknown_type(job_type: str, known: Iterable[str]) -> UnknownJobType:
    """The error for a type that no plugin has published, with the names that are nearest to it."""
    shown = job_type if len(job_type) <= 64 else job_type[:63] + "…"
    near = difflib.get_close_matches(shown, list(known), n=3, cutoff=0.6)
    hint = f"; did you mean {' or '.join(near)}?" if near else "; GET /job-types lists those there are"
    return UnknownJobType(f"there is no job type {shown!r}{hint}", type=shown, near=near)


def payload_json(payload: Any, validator: Validator, limit: int) -> bytes:
    """The payload as compact JSON.

    Raises:
        InvalidPayload: it does not fit its type's schema, is no JSON, has more than *limit* bytes, or was copied from where it is masked.
    """
    try:
        fits = validator.is_valid(payload)
    except (ValueError, RecursionError):
        fits = False
    if not fits:
        raise InvalidPayload("the payload does not fit the job type's schema", errors=_under_payload(validator.validate(payload)))
    if validator.is_marked and holds_mask(payload, validator.schema):
        message = f"a field that is marked secret or pii is {MASK!r}, as it is shown: give its value"
        raise InvalidPayload(message, errors=[{"pointer": "/payload", "message": message}])
    try:
        raw = _encode(payload)
    except (TypeError, ValueError, RecursionError, UnicodeError) as error:
        raise InvalidPayload(f"the payload is not JSON: {error}", errors=[{"pointer": "/payload", "message": str(error)}]) from error
    if len(raw) > limit:
        message = f"the payload has {len(raw)} bytes, at most {limit} are taken"
        raise InvalidPayload(message, errors=[{"pointer": "/payload", "message": message}])
    if b"null" in raw and holds_nan(payload):  # what the encoder makes of them
        message = "NaN and Infinity are not JSON"
        raise InvalidPayload(message, errors=[{"pointer": "/payload", "message": message}])
    return raw


def _under_payload(errors: Sequence[Any]) -> list[dict[str, str]]:
    return [{"pointer": f"/payload{error['pointer']}", "message": error["message"]} for error in errors]


def holds_nan(value: Any) -> bool:
    """Whether a number in *value* is NaN or infinite."""
    todo = [value]
    while todo:
        one = todo.pop()
        if isinstance(one, float):
            if not math.isfinite(one):
                return True
        elif isinstance(one, dict):
            todo.extend(one.values())
        elif isinstance(one, list | tuple):
            todo.extend(one)
    return False
