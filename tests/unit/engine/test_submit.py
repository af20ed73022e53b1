"""Checking submissions and making their records."""

from __future__ import annotations

import datetime as dt
import math
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskmaster.engine.options import UniqueWork
from taskmaster.engine.submit import ATTEMPTS_MAX, DELAY_MAX_MS, TIMEOUT_MAX_MS, Submission, key_digest, prepare, renew
from taskmaster.errors import InvalidPayload, InvalidRequest, KeyMissing
from taskmaster.model.ids import created_ms, digest, digest_slot, is_job_id, slot_of
from taskmaster.model.job import Envelope
from taskmaster.model.lanes import lane_name
from taskmaster.model.retry import Backoff
from taskmaster.model.webhooks import DELIVERY
from taskmaster.plugins.catalogue import CatalogueEntry
from taskmaster.plugins.validation import Validator

NOW = 1_790_000_000_000
NAIVE = dt.datetime.fromisoformat("2030-01-01T00:00:00")
SCHEMA: dict[str, Any] = {"type": "object", "properties": {"n": {"type": "integer"}}}
ENTRY = CatalogueEntry("mail", "mails", 7, Backoff(kind="fixed"), 9_000, None, SCHEMA, None, "", "p", "1")
VALIDATOR = Validator(SCHEMA)


def make(
    submission: Submission, *, partitions: int = 4, idempotency: str = "required", entry: CatalogueEntry = ENTRY, now_ms: int = NOW
) -> Any:
    settings = SimpleNamespace(partitions=partitions, idempotency=idempotency, max_body_bytes=1_000, idempotency_window_ms=60_000)
    return prepare(submission, entry, VALIDATOR, settings, now_ms, "api")


def one(**fields: Any) -> Submission:
    return Submission(**({"type": "mail", "idempotency_key": "k", "payload": {"n": 1}} | fields))


def test_defaults_are_the_types() -> None:
    partition, job = make(one())
    envelope = msgspec.json.decode(job.blob, type=Envelope)

    assert (job.queue, job.priority, job.max_attempts, job.due_ms, job.delay_ms) == ("mails", 2, 7, 0, 0)
    assert (envelope.type, envelope.attempts, envelope.timeout_ms, envelope.backoff) == ("mail", 7, 9_000, Backoff(kind="fixed"))
    assert (envelope.key, envelope.origin, bytes(envelope.payload)) == ("k", "api", b'{"n":1}')
    assert is_job_id(job.id)
    assert created_ms(job.id) == NOW
    assert slot_of(job.id) % 4 == partition


def test_a_callback_is_kept_with_the_submission_and_with_the_job() -> None:
    url = "https://example.com/hook?a=b"

    _, job = make(one(callback_url=url))

    assert (job.callback, msgspec.json.decode(job.blob, type=Envelope).callback_url) == (url, url)
    assert make(one())[1].callback == ""


def test_nobody_submits_a_delivery() -> None:
    """It would be signed, and say whatever its submitter wants."""
    with pytest.raises(InvalidRequest, match="made by the engine alone"):
        make(one(type=DELIVERY, payload={"event": {}}))


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=255), st.integers(1, 64))
def test_keyed_job_lands_beside_its_key(key: str, partitions: int) -> None:
    """Equal keys go to one partition, whatever else is sent."""
    partition, job = make(one(idempotency_key=key), partitions=partitions)
    other, _ = make(one(idempotency_key=key, payload={"n": 2}), partitions=partitions)

    assert job.key == key_digest("", "mail", key) == digest("", "mail", key)
    assert slot_of(job.id) == digest_slot(job.key)
    assert partition == other == slot_of(job.id) % partitions


def test_request_digest_is_over_what_was_sent() -> None:
    """Not over the key, the order of names, or the type's defaults."""
    base = make(one())[1].request
    changed = msgspec.structs.replace(ENTRY, attempts=3, queue="elsewhere")

    assert make(one(), entry=changed)[1].request == base
    assert make(one(payload={"n": 1, "a": 2}))[1].request == make(one(payload={"a": 2, "n": 1}))[1].request
    different = [
        {"payload": {"n": 2}}, {"attempts": 7}, {"queue": "mails"}, {"priority": "normal"}, {"delay_ms": 5}, {"timeout_ms": 9_000},
        {"backoff": Backoff(kind="fixed")}, {"run_at": dt.datetime(2030, 1, 1, tzinfo=dt.UTC)}, {"fairness_key": "c"}, {"lifo": True},
        {"tags": ("a",)}, {"tags": ("b",)}, {"limits": ("a",)}, {"expires_at": dt.datetime(2030, 1, 1, tzinfo=dt.UTC)},
        {"unique": UniqueWork(key="u")}, {"unique": UniqueWork(key="v")}, {"unique": UniqueWork(key="u", until="started")},
        {"callback_url": "https://example.com/"}, {"callback_url": "https://example.com/a"},
    ]  # fmt: skip
    digests = {make(one(**fields))[1].request for fields in different}
    assert len(digests | {base}) == len(different) + 1


@pytest.mark.parametrize(
    "fields",
    [
        {"attempts": 0}, {"attempts": ATTEMPTS_MAX + 1}, {"timeout_ms": 0}, {"timeout_ms": TIMEOUT_MAX_MS + 1}, {"delay_ms": -1},
        {"delay_ms": DELAY_MAX_MS + 1}, {"queue": "A"}, {"queue": "q{1}"}, {"queue": "x" * 65}, {"queue": "q\n"}, {"priority": "urgent"},
        {"idempotency_key": ""}, {"idempotency_key": "k" * 256}, {"idempotency_key": "\ud800"}, {"backoff": Backoff(kind="list")},
        {"backoff": Backoff(delays_ms=(1,))}, {"run_at": NAIVE}, {"run_at": dt.datetime(2100, 1, 1, tzinfo=dt.UTC)},
        {"delay_ms": 1, "run_at": dt.datetime(2030, 1, 1, tzinfo=dt.UTC)}, {"tags": ("a b",)}, {"fairness_key": ""},
        {"limits": ("A",)}, {"unique": UniqueWork(key="u", ttl_ms=5)}, {"expires_at": NAIVE}, {"callback_url": "https://a:b@example.com"},
    ],
)  # fmt: skip
def test_caps_hold_for_python_callers_too(fields: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest) as caught:
        make(one(**fields))

    assert caught.value.code == "invalid-request"
    assert caught.value.facts["errors"]


@pytest.mark.parametrize(
    "fields", [{"attempts": 1}, {"attempts": 100}, {"timeout_ms": 1}, {"timeout_ms": 86_400_000}, {"delay_ms": DELAY_MAX_MS}]
)
def test_limits_themselves_are_allowed(fields: dict[str, Any]) -> None:
    make(one(**fields))


@pytest.mark.parametrize("fields", [{"tags": ()}, {"lifo": False}, {"unique": None}, {"limits": ()}])
def test_absent_options_may_be_spelt_out(fields: dict[str, Any]) -> None:
    """Null, false and empty ask for nothing."""
    make(one(**fields))


@pytest.mark.parametrize(
    "payload",
    [{"n": "x"}, {"x": math.nan}, {"x": [{"y": math.inf}]}, {"x": "\ud800"}, {"x": object()}, {"x": "y" * 1_000}, [], None],
    ids=["schema", "nan", "inf", "surrogate", "object", "large", "array", "none"],
)
def test_payload_must_fit_and_be_json(payload: Any) -> None:
    with pytest.raises(InvalidPayload) as caught:
        make(one(payload=payload))

    assert all(error["pointer"].startswith("/payload") for error in caught.value.facts["errors"])


@pytest.mark.parametrize(
    ("of_type", "setting", "is_needed"),
    [(None, "required", True), (None, "optional", False), (True, "optional", True), (False, "required", False)],
)
def test_type_says_before_the_setting_whether_a_key_is_needed(of_type: bool | None, setting: str, is_needed: bool) -> None:
    entry = msgspec.structs.replace(ENTRY, key_required=of_type)
    bare = one(idempotency_key=None)

    if is_needed:
        with pytest.raises(KeyMissing):
            make(bare, idempotency=setting, entry=entry)
    else:
        assert make(bare, idempotency=setting, entry=entry)[1].key == ""


def test_place_among_others_is_in_the_record_and_told_again() -> None:
    """What the store turns into names is kept as it was given, for people."""
    at = dt.datetime(2030, 1, 1, tzinfo=dt.UTC)
    wanted = one(fairness_key="Kund é", tags=("b", "a"), limits=("z", "api"), lifo=True, expires_at=at, unique=UniqueWork(key="work"))
    _, job = make(wanted)
    envelope = msgspec.json.decode(job.blob, type=Envelope)

    assert job.lane == lane_name("Kund é", ("api", "z"))
    assert (job.tags, job.lifo, job.expires_ms) == (("b", "a"), 1, int(at.timestamp() * 1_000))
    assert job.unique is not None
    assert (envelope.fairness_key, envelope.tags, envelope.limits, envelope.unique_key) == ("Kund é", ("b", "a"), ("z", "api"), "work")


def test_a_job_without_place_is_as_short_as_ever() -> None:
    """The envelope of a plain submission says nothing of keys and tags."""
    assert make(one())[1].blob == '["mail",{"n":1},"k","api",7,9000,{"kind":"fixed"}]'


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=255), st.integers(1, 64))
def test_unique_work_decides_where_a_job_stands(work: str, partitions: int) -> None:
    """Jobs of one work meet in one partition, whatever their idempotency keys."""
    homes = {make(one(unique=UniqueWork(key=work), idempotency_key=key), partitions=partitions)[0] for key in ("a", "b", "c")}

    assert len(homes) == 1


def test_renewed_job_keeps_all_but_its_id() -> None:
    _, job = make(one())
    fresh = renew(job, NOW + 60_000)

    assert msgspec.structs.replace(fresh, id=job.id) == job
    assert (slot_of(fresh.id), created_ms(fresh.id)) == (slot_of(job.id), NOW + 60_000)
