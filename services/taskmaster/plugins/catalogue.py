"""The catalogue: what the world may know of the job types, without their code. Workers publish it in the store; API and CLI read it."""

from __future__ import annotations

import dataclasses
from typing import Any

import msgspec

from taskmaster.model.retry import DEFAULT, Backoff
from taskmaster.plugins.registry import Handler, Registry
from taskmaster.plugins.schema import describe
from taskmaster_sdk import Job

__all__ = ["CatalogueEntry", "decode", "encode", "entries"]


class CatalogueEntry(msgspec.Struct, frozen=True, rename="camel"):
    """One job type, as the API shows it. Readers ignore fields they do not know.

    Attributes:
        type: its name.
        queue: where its jobs go unless the submitter says otherwise.
        attempts: executions at most.
        backoff: between attempts.
        timeout_ms: for one attempt.
        key_required: whether an idempotency key must be given; None leaves it to the server's setting.
        schema: JSON Schema 2020-12 of the payload; `$ref` only into its own `$defs`.
        example: a payload that fits, or None.
        description: one paragraph for people.
        plugin: name of the plugin's entry point.
        version: of the plugin's distribution, or empty.
        isolation: where its handler runs.
        memory_mb: what it may take there, or None.
        dependency: what it calls, or empty.
        limits: names of limiters that its jobs need.
        is_timed: its author has said how long an attempt may take; None: published by a version that does not tell.
    """

    type: str
    queue: str
    attempts: int
    backoff: Backoff
    timeout_ms: int
    key_required: bool | None
    schema: dict[str, Any]
    example: Any
    description: str
    plugin: str
    version: str
    isolation: str = "thread"
    memory_mb: int | None = None
    dependency: str = ""
    limits: tuple[str, ...] = ()
    is_timed: bool | None = None


_encoder = msgspec.json.Encoder(order="sorted")
_decoder = msgspec.json.Decoder(CatalogueEntry)


def entries(registry: Registry) -> list[CatalogueEntry]:
    """One entry for each type that can run here, sorted by type."""
    return [_entry(registry.handlers[name]) for name in registry.types]


def encode(entry: CatalogueEntry) -> bytes:
    """JSON bytes; equal entries give equal bytes."""
    return _encoder.encode(entry)


def decode(raw: bytes) -> CatalogueEntry:
    """What `encode` made.

    Raises:
        msgspec.DecodeError: it is not an entry.
    """
    return _decoder.decode(raw)


def _entry(handler: Handler) -> CatalogueEntry:
    job = handler.job
    about = describe(job)
    return CatalogueEntry(
        type=job.name,
        queue=job.queue,
        attempts=job.attempts,
        backoff=_backoff(job),
        timeout_ms=round(job.timeout_s * 1_000),
        key_required=job.key_required,
        schema=about.schema,
        example=about.example,
        description=job.description,
        plugin=handler.plugin,
        version=handler.version,
        isolation=job.isolation,
        memory_mb=job.memory_mb,
        dependency=job.dependency,
        limits=job.limits,
        is_timed=job.is_timed,
    )


def _backoff(job: Job) -> Backoff:
    """The wire form. Only what differs from the default is set: msgspec knows a default, to leave it out, by identity."""
    given = dataclasses.asdict(job.backoff)
    return Backoff(**{name: value for name, value in given.items() if value != getattr(DEFAULT, name)})
