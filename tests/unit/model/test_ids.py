"""Ids carry their time and their slot, and nothing else is taken for one."""

from __future__ import annotations

import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskmaster.model.ids import created_ms, digest, digest_slot, is_job_id, new_job_id, partition_of, slot_of

NOW_MS = 1_790_000_000_123
#: Fixed: it is in names of tests, which must be the same in every process.
ONE_ID = "01a0c450-6c7b-7a04-8f24-8c076a2ef385"


@given(st.integers(0, 65_535), st.integers(1, 1_024))
def test_an_id_carries_time_slot_and_partition(slot, partitions):
    """What went into an id comes out of it again."""
    job_id = new_job_id(NOW_MS, slot)

    assert is_job_id(job_id)
    assert uuid.UUID(job_id).version == 7
    assert (created_ms(job_id), slot_of(job_id)) == (NOW_MS, slot)
    assert partition_of(job_id, partitions) == slot % partitions


def test_ids_of_one_millisecond_differ():
    """A thousand ids of the same slot and instant are a thousand ids."""
    assert len({new_job_id(NOW_MS, 5) for _ in range(1_000)}) == 1_000


def test_slots_that_nobody_chose_spread():
    """Unkeyed jobs go to all partitions alike."""
    hits = [0] * 4
    for _ in range(4_000):
        hits[partition_of(new_job_id(NOW_MS), 4)] += 1

    assert min(hits) > 800


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x" * 36,
        "00000000-0000-0000-0000-000000000000",
        "bd4745cf-26d1-41d6-b9df-433be8b8bc2f",  # version 4
        ONE_ID.upper(),
        ONE_ID + "\n",
        ONE_ID[:-1] + "}",
        ONE_ID[:-2] + "é",
        "{" + ONE_ID[1:],
        ONE_ID.replace("-", ""),
        "٠" * 8 + ONE_ID[8:],
    ],
)
def test_a_foreign_string_is_no_id(text):
    """Nothing that could reach outside one job's keys passes for an id."""
    assert not is_job_id(text)


@given(st.lists(st.text() | st.binary(), max_size=4), st.lists(st.text() | st.binary(), max_size=4))
def test_digests_of_different_parts_differ(one, other):
    """The border between two parts counts: no two lists share a digest unless their bytes are the same."""
    raw = [[part.encode() if isinstance(part, str) else part for part in parts] for parts in (one, other)]

    assert (digest(*one) == digest(*other)) == (raw[0] == raw[1])


def test_a_digest_is_short_and_safe_in_a_key():
    """Twenty-two characters of base64url, whatever went in."""
    text = digest("{", b"\x00", "é" * 1_000)

    assert len(text) == 22
    assert text.replace("-", "a").replace("_", "a").isalnum()


@given(st.text())
def test_the_slot_of_a_digest_is_its_first_sixteen_bits(text):
    """A keyed job lands on one slot wherever it is computed."""
    from base64 import urlsafe_b64decode

    found = digest(text)

    assert digest_slot(found) == int.from_bytes(urlsafe_b64decode(found + "==")[:2], "big")
