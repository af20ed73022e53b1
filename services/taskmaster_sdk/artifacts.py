"""Files that a job leaves: what is too large for results and payloads, which carry references to them."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO, Protocol

__all__ = ["ArtifactLost", "Artifacts", "Shelf"]


class ArtifactLost(Exception):
    """The artifact is gone (it goes with the job that made it), or is not what its reference says."""


class Artifacts(Protocol):
    """The host's side. Blocking; usable from any thread."""

    def write(self, job_id: str, name: str, content: bytes | Path, content_type: str, permit: Callable[[], None] = ...) -> dict[str, Any]:
        """Store it, whole or not at all, and answer its reference. *permit* is asked last, and raises if it must not be."""

    def open(self, reference: Mapping[str, Any]) -> BinaryIO:
        """What *reference* means, checked against its digest."""


class Shelf:
    """Artifacts in memory, for tests of a handler. Hand the same one to several runs to pass artifacts from job to job.

    Attributes:
        files: artifact id -> content.
    """

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}

    def write(
        self, job_id: str, name: str, content: bytes | Path, content_type: str, permit: Callable[[], None] = lambda: None
    ) -> dict[str, Any]:
        """As `Artifacts.write`."""
        raw = content.read_bytes() if isinstance(content, Path) else bytes(content)
        permit()
        artifact = f"{job_id}.{len(self.files):032x}"
        self.files[artifact] = raw
        digest = hashlib.sha256(raw).hexdigest()
        return {"artifact": artifact, "name": name, "size": len(raw), "sha256": digest, "contentType": content_type}

    def open(self, reference: Mapping[str, Any]) -> BinaryIO:
        """As `Artifacts.open`."""
        raw = self.files.get(str(reference.get("artifact")))
        if raw is None or hashlib.sha256(raw).hexdigest() != reference.get("sha256"):
            raise ArtifactLost(f"there is no artifact {reference.get('artifact')!r}, or it is another")
        return io.BytesIO(raw)
