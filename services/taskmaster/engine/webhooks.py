"""Endpoints that are told of the ends of jobs: what they want to hear, their secrets, and who changes them.

Each partition has a copy of all, so that whoever ends a job there knows whether anybody listens. Secrets leave this module only towards a
signature, and once to whoever made them.
"""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass, field, replace
from typing import Annotated

import msgspec

from taskmaster.engine import queries
from taskmaster.engine.deliveries import CALLBACK, Receiver, delivery_of, is_delivery, tag_of, test_event
from taskmaster.engine.dlq import Request, replay_of_dead, replay_of_job
from taskmaster.engine.options import out_of_range
from taskmaster.engine.rules import Word, give
from taskmaster.engine.submit import Prepared
from taskmaster.errors import Conflict, InvalidRequest, NotFound
from taskmaster.model.egress import URL_MAX, target_of
from taskmaster.model.ids import is_job_id, partition_of
from taskmaster.model.patterns import whole
from taskmaster.model.webhooks import JOB_EVENTS, UNWELL, Event, key_of, new_secret
from taskmaster.store import reads, webhooks
from taskmaster.store.call import Talk
from taskmaster.store.flow import Changed, Order
from taskmaster.store.reads import Shown
from taskmaster.store.status import Status
from taskmaster.store.webhooks import End, EndpointRow
from taskmaster_sdk.jobs import NAME

__all__ = [
    "Endpoint",
    "EndpointView",
    "align_endpoints",
    "change_endpoint",
    "delete_endpoint",
    "disable_endpoint",
    "endpoint_of",
    "find_endpoint",
    "has_deliveries",
    "list_endpoints",
    "make_endpoint",
    "new_endpoint_secret",
    "redelivery",
    "test_delivery",
]

ENDPOINTS_MAX, FILTERS_MAX, SECRETS_MAX = 100, 50, 5
#: How long a secret that was replaced goes on signing: receivers have a day to take over the new one.
OVERLAP_MS = 86_400_000
#: Fields of an endpoint that are alike in all partitions.
_ORDERED = ("url", "ev", "ty", "qu", "de", "off", "sec", "by")
_ID = re.compile(r"we_[0-9a-f]{16}")
Names = Annotated[
    tuple[Annotated[str, msgspec.Meta(pattern=whole(NAME.pattern), max_length=64)], ...], msgspec.Meta(max_length=FILTERS_MAX)
]


class Endpoint(msgspec.Struct, rename="camel", forbid_unknown_fields=True, frozen=True, omit_defaults=True):
    """Who is told of what.

    Attributes:
        url: http or https; a POST goes there for each event.
        events: which; empty: all of jobs. `health.degraded` must be named: once an hour for each rule of health while it is broken.
        types: of these job types only; empty: of all.
        queues: in these queues only; empty: in all.
        description: for people.
        disabled: it is told of nothing.
        secret: signs what it is sent: `whsec_` and 24 to 64 bytes in base64. Left out, one is made, or the one that is there stays. Never
            shown again.
    """

    url: Annotated[str, msgspec.Meta(min_length=1, max_length=URL_MAX)]
    events: Annotated[tuple[Event, ...], msgspec.Meta(max_length=len(JOB_EVENTS) + 1)] = ()
    types: Names = ()
    queues: Names = ()
    description: Annotated[str, msgspec.Meta(max_length=200)] = ""
    disabled: bool = False
    secret: str | None = None

    def __repr__(self) -> str:
        return f"Endpoint(url={self.url!r})"


@dataclass(frozen=True, slots=True)
class EndpointView:
    """An endpoint as it stands. *endpoint* is without its secret.

    Attributes:
        made_ms: by the store's clock.
        hears_ms: since when it hears of ends without a break, by the store's clock, which each end is judged by.
        disabled_why: who disabled it; empty: it is not.
        secrets: those that sign, the newest first, each with the Unix ms at which it ceases to, 0: never.
    """

    id: str
    endpoint: Endpoint
    revision: int
    made_ms: int
    hears_ms: int
    by: str
    disabled_why: str
    secrets: tuple[tuple[str, int], ...] = field(repr=False)

    def signing(self, now_ms: int) -> tuple[str, ...]:
        """The secrets that sign at this time."""
        return tuple(secret for secret, until_ms in self.secrets if not until_ms or until_ms > now_ms)

    def wants(self, end: End, event_type: str) -> bool:
        """Whether it is to be told of *end*, whose event is of that type."""
        wanted = self.endpoint
        return (
            not wanted.disabled
            and self.hears_ms <= end.ended_ms
            and event_type in (wanted.events or JOB_EVENTS)
            and (not wanted.types or end.type in wanted.types)
            and (not wanted.queues or end.queue in wanted.queues)
        )

    def wants_alarm(self, queue: str | None) -> bool:
        """Whether it is to be told of a broken rule about *queue*, or None: about no single one."""
        wanted = self.endpoint
        return not wanted.disabled and UNWELL in wanted.events and (queue is None or not wanted.queues or queue in wanted.queues)

    @property
    def receiver(self) -> Receiver:
        """Who a delivery to it is for."""
        return Receiver(self.id, self.id, {"endpoint": self.id})


_secrets = msgspec.json.Decoder(tuple[tuple[str, int], ...]).decode


def endpoint_of(row: EndpointRow) -> EndpointView:
    """An endpoint that is there, as the store keeps it."""
    f = row.fields
    wanted = Endpoint(
        url=f["url"],
        events=_split(f.get("ev", "")),  # type: ignore[arg-type]
        types=_split(f.get("ty", "")),
        queues=_split(f.get("qu", "")),
        description=f.get("de", ""),
        disabled=bool(f.get("off")),
    )
    made_ms = int(f.get("at", 0))
    secrets_ = _secrets(f.get("sec") or "[]")
    return EndpointView(row.id, wanted, row.revision, made_ms, int(f.get("on", made_ms)), f.get("by", ""), f.get("off", ""), secrets_)


def _split(text: str) -> tuple[str, ...]:
    return tuple(text.split(",")) if text else ()


def list_endpoints() -> Talk[list[EndpointView]]:
    """All endpoints, by id."""
    rows: list[EndpointRow] = yield webhooks.webhooks(0)
    return [endpoint_of(row) for row in rows if row.is_there]


def find_endpoint(endpoint_id: str) -> Talk[EndpointView]:
    """One endpoint.

    Raises:
        NotFound: there is none, or no longer.
    """
    rows: list[EndpointRow] = (yield webhooks.webhooks(0, endpoint_id)) if _ID.fullmatch(endpoint_id) else []
    if not rows or not rows[0].is_there:
        shown = endpoint_id[:64].encode("utf-8", "backslashreplace").decode()
        raise NotFound(f"there is no webhook {shown!r}; GET /webhooks lists those there are", webhook=shown)
    return endpoint_of(rows[0])


def make_endpoint(wanted: Endpoint, word: Word, *, partitions: int) -> Talk[tuple[EndpointView, str]]:
    """A new endpoint, and its secret, which is not to be had again.

    Raises:
        InvalidRequest: it cannot be as it is wanted.
        Conflict: there are as many as may be.
    """
    secret = _checked(wanted) or new_secret()
    there: list[EndpointView] = yield from list_endpoints()
    if len(there) >= ENDPOINTS_MAX:
        raise Conflict(f"there are {len(there)} webhooks, and at most {ENDPOINTS_MAX} may be: delete one that nobody needs")
    endpoint_id = f"we_{secrets.token_hex(8)}"
    view = EndpointView(endpoint_id, wanted, 0, 0, 0, word.by, _off(wanted, word), ((secret, 0),))
    yield from _write(endpoint_id, view, word, partitions, 0, "new")
    return (yield from find_endpoint(endpoint_id)), secret


def change_endpoint(
    endpoint_id: str, wanted: Endpoint, word: Word, *, partitions: int, now_ms: int, known: int | None = None
) -> Talk[EndpointView]:
    """The endpoint as it is wanted. A secret that is given signs from now on; those before it go on for a day.

    Raises:
        NotFound: there is none.
        RevisionMismatch: it was changed since *known*, or at this very moment.
        InvalidRequest: it cannot be as it is wanted.
    """
    secret = _checked(wanted)
    there: EndpointView = yield from find_endpoint(endpoint_id)
    why = there.disabled_why if wanted.disabled and there.disabled_why else _off(wanted, word)
    kept = _rotated(there, secret, now_ms) if secret else there.secrets
    view = replace(there, endpoint=wanted, disabled_why=why, secrets=kept)
    yield from _write(endpoint_id, view, word, partitions, known, "new" if secret else "kept")
    return (yield from find_endpoint(endpoint_id))


def new_endpoint_secret(
    endpoint_id: str, word: Word, *, partitions: int, now_ms: int, known: int | None = None
) -> Talk[tuple[EndpointView, str]]:
    """A fresh secret beside those that it has, which go on signing for a day; and that secret, which is not to be had again.

    Raises:
        NotFound: there is no such endpoint.
        RevisionMismatch: it was changed since *known*, or at this very moment.
    """
    secret = new_secret()
    there: EndpointView = yield from find_endpoint(endpoint_id)
    yield from _write(endpoint_id, replace(there, secrets=_rotated(there, secret, now_ms)), word, partitions, known, "new")
    return (yield from find_endpoint(endpoint_id)), secret


def disable_endpoint(endpoint_id: str, word: Word, *, partitions: int, known: int) -> Talk[None]:
    """It is told of nothing more, until somebody enables it. What was to be delivered to it is discarded when it is due.

    Raises:
        NotFound: there is none.
        RevisionMismatch: it was changed since *known*: it may be elsewhere now.
    """
    there: EndpointView = yield from find_endpoint(endpoint_id)
    if not there.endpoint.disabled:
        yield from _write(endpoint_id, replace(there, disabled_why=word.reason or word.by), word, partitions, known, "kept")


def delete_endpoint(endpoint_id: str, word: Word, *, partitions: int, known: int | None = None) -> Talk[None]:
    """Take an endpoint away, with its secrets. Its deliveries stay as jobs; those that are not made are discarded when they are due.

    A deletion that stopped on its way through the partitions is finished by its repeat.

    Raises:
        NotFound: there is none.
        RevisionMismatch: it was changed since *known*, or at this very moment.
    """
    try:
        there: EndpointView = yield from find_endpoint(endpoint_id)
        known = there.revision if known is None else known
    except NotFound:
        if not _ID.fullmatch(endpoint_id) or not (yield from _is_left(endpoint_id, partitions)):
            raise
        known = None  # the first partition has done it
    yield from _write(endpoint_id, None, word, partitions, known, "")


def _is_left(endpoint_id: str, partitions: int) -> Talk[bool]:
    for partition in range(1, partitions):
        rows: list[EndpointRow] = yield webhooks.webhooks(partition, endpoint_id)
        if rows and rows[0].is_there:
            return True
    return False


def align_endpoints(partitions: int) -> Talk[int]:
    """Make all copies of endpoints like those of the first partition: an order may have stopped on its way. How many were not.

    An order comes to the first partition first, and what is written is bound to what was read before that was: nothing newer is undone.
    """
    aligned = 0
    for partition in range(1, partitions):
        copies: list[EndpointRow] = yield webhooks.webhooks(partition)
        rows: list[EndpointRow] = yield webhooks.webhooks(0)
        theirs, ours = ({row.id: _ordered(row) for row in some if row.is_there} for some in (copies, rows))
        for endpoint_id in sorted(one for one in theirs.keys() | ours.keys() if theirs.get(one) != ours.get(one)):
            [copy] = (yield webhooks.webhooks(partition, endpoint_id)) or [EndpointRow(endpoint_id, {})]
            [first] = (yield webhooks.webhooks(0, endpoint_id)) or [EndpointRow(endpoint_id, {})]
            if _ordered(copy) != _ordered(first):
                order = Order(secrets.token_hex(8), copy.revision, "taskmaster", "as in the first partition")
                changed: Changed = yield webhooks.put_webhook(partition, endpoint_id, _ordered(first), order, "{}")
                aligned += changed.status is Status.OK
    return aligned


def _ordered(row: EndpointRow) -> dict[str, str]:
    """What people have ordered of it; empty: it is gone."""
    return {name: row.fields[name] for name in _ORDERED if name in row.fields} if row.is_there else {}


def test_delivery(endpoint_id: str, *, partitions: int, now_ms: int) -> Talk[Prepared]:
    """The delivery of a test event.

    Raises:
        NotFound: there is no such endpoint.
        Conflict: it is disabled.
    """
    there: EndpointView = yield from find_endpoint(endpoint_id)
    if there.endpoint.disabled:
        raise Conflict(f"webhook {endpoint_id} is disabled ({there.disabled_why}): enable it first", webhook=endpoint_id)
    return delivery_of(test_event(endpoint_id, now_ms), there.receiver, partitions=partitions, now_ms=now_ms)


def has_deliveries(receiver: str) -> Talk[None]:
    """Pass, if deliveries can be asked for by that name: an endpoint's, or `callback` for those of jobs' callbacks.

    Raises:
        NotFound: they cannot.
    """
    if receiver != CALLBACK:
        yield from find_endpoint(receiver)


def redelivery(receiver: str, job_id: str, wanted: Request, *, partitions: int, now_ms: int) -> Talk[Prepared]:
    """The replay of a delivery that has ended, from its job or from the dead letter that outlived it.

    Raises:
        NotFound: the receiver has no such delivery, or no longer.
        Conflict: it goes on.
    """
    yield from has_deliveries(receiver)
    tag = tag_of(receiver)
    if is_job_id(job_id):
        where = partition_of(job_id, partitions)
        shown: Shown | None = yield reads.show(where, job_id, "b")
        record = queries.job_of(job_id, shown) if shown is not None else None
        if record is not None and is_delivery(record.type, record.tags, tag):
            return replay_of_job(record, wanted, partitions=partitions, now_ms=now_ms)
        fields: dict[str, bytes] | None = (yield reads.dead(where, job_id)) if record is None else None
        if fields is not None:
            letter, _ = queries.dead_letter(fields)
            if is_delivery(letter.type, letter.envelope.tags, tag):
                return replay_of_dead(letter, None, wanted, partitions=partitions, now_ms=now_ms)
    name = job_id[:64].encode("utf-8", "backslashreplace").decode()
    raise NotFound(f"webhook {receiver} has no delivery {name!r}, or no longer", jobId=name)


def _checked(wanted: Endpoint) -> str | None:
    """The secret that is given, if one is."""
    try:
        target_of(wanted.url)
    except ValueError as error:
        raise InvalidRequest(f"url: {error}", errors=[{"pointer": "/url", "message": str(error)}]) from error
    if wanted.secret is None:
        return None
    try:
        key_of(wanted.secret)
    except ValueError as error:
        raise out_of_range("secret", str(error)) from None
    return wanted.secret


def _off(wanted: Endpoint, word: Word) -> str:
    return (word.reason or f"by {word.by}") if wanted.disabled else ""


def _rotated(is_there: EndpointView, secret: str, now_ms: int) -> tuple[tuple[str, int], ...]:
    """*secret* first; those before it for a day at most."""
    until_ms = now_ms + OVERLAP_MS
    before = [(old, min(at or until_ms, until_ms)) for old, at in is_there.secrets if old != secret and (not at or at > now_ms)]
    return ((secret, 0), *before[: SECRETS_MAX - 1])


def _write(endpoint_id: str, view: EndpointView | None, word: Word, partitions: int, known: int | None, secret: str) -> Talk[int]:
    """Write an endpoint into every partition, if the first one still has revision *known*, or that of *view*; None: nothing stays of it.

    *secret*: for the audit, whether it is new.
    """
    fields: dict[str, str | int] = {}
    facts: dict[str, object] = {}
    if view is not None:
        wanted = view.endpoint
        fields = {
            "url": wanted.url,
            "ev": ",".join(wanted.events),
            "ty": ",".join(wanted.types),
            "qu": ",".join(wanted.queues),
            "de": wanted.description,
            "off": view.disabled_why,
            "sec": msgspec.json.encode(view.secrets).decode(),
            "by": view.by,
        }
        host = target_of(wanted.url).host
        facts = {"host": host, "events": wanted.events, "disabled": bool(view.disabled_why), "secret": secret}
    detail = msgspec.json.encode(facts).decode()
    return (
        yield from give(
            partitions,
            lambda partition, order: webhooks.put_webhook(partition, endpoint_id, fields, order, detail),
            word,
            read=lambda partition: webhooks.webhooks(partition, endpoint_id),
            revision=lambda rows: rows[0].revision if rows else 0,
            known=view.revision if known is None and view is not None else known,
        )
    )
