"""Artifacts: files that jobs leave, in a folder that workers and API share.

    <folder>/<job id>/<32 hexadecimal digits>         the content
    <folder>/<job id>/<32 hexadecimal digits>.json    what it is: written last, so that what has one is whole
    <folder>/store                                    generation of the store that knows these jobs

No name that a handler gives is part of a path.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from taskmaster.errors import NotFound
from taskmaster.model.ids import is_job_id
from taskmaster.settings import Settings
from taskmaster_sdk import ArtifactLost, Fatal

__all__ = ["ArtifactStore", "Reference", "artifacts_of", "reference_of"]

_CHUNK = 1_048_576
_ID = re.compile(r"([0-9a-f-]{36})\.([0-9a-f]{32})")
_TYPE = re.compile(r"[A-Za-z0-9][\w.+-]{0,80}/[A-Za-z0-9][\w.+-]{0,80}(; ?charset=[\w-]{1,40})?", re.ASCII)
_NAME_MAX = 120


class Reference(msgspec.Struct, frozen=True, rename="camel"):
    """What stands for an artifact in results and payloads. *artifact*: job id and number; *size* in bytes."""

    artifact: str
    name: str
    size: int
    sha256: str
    content_type: str


def reference_of(fields: Mapping[str, Any]) -> Reference:
    """A reference as a handler or payload has it.

    Raises:
        ValueError: it is none.
    """
    try:
        found = msgspec.convert(fields, Reference)
    except msgspec.ValidationError as error:
        raise ValueError(f"not a reference to an artifact: {error}") from error
    if not _ID.fullmatch(found.artifact):
        raise ValueError("not a reference to an artifact: its id is none")
    return found


class ArtifactStore:
    """Reads and writes artifacts. Thread-safe, over processes too.

    Args:
        folder: made when the first artifact is written, for this user alone.
        max_bytes: of one artifact.
    """

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self._folder = folder
        self._max_bytes = max_bytes

    def write(
        self, job_id: str, name: str, content: bytes | Path, content_type: str, permit: Callable[[], None] = lambda: None
    ) -> dict[str, Any]:
        """Store it, whole or not at all, and answer its reference.

        Args:
            job_id: that it goes with.
            name: for people; what no file name should have is replaced.
            content: or the path of a regular file.
            content_type: such as application/pdf.
            permit: asked when all is written but not yet there; raises if it must not be.

        Raises:
            ValueError: a content type or job id that cannot be.
            Fatal: it is too large: repeating the attempt cannot mend that.
            OSError: it cannot be read or written.
        """
        if not _TYPE.fullmatch(content_type) or not is_job_id(job_id):
            raise ValueError(f"{content_type!a} is no content type" if is_job_id(job_id) else f"{job_id!a} is no job id")
        folder, number = self._folder / job_id, secrets.token_hex(16)
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        fresh, notes = folder / f"{number}.part", folder / f"{number}.json.part"
        try:
            size, digest = self._copy(content, fresh)
            reference = Reference(f"{job_id}.{number}", _safe(name), size, digest, content_type)
            _write(notes, msgspec.json.encode(reference))
            permit()
            fresh.replace(folder / number)
            notes.replace(folder / f"{number}.json")
        except BaseException:
            for path in (fresh, notes, folder / number):
                path.unlink(missing_ok=True)
            raise
        _sync(folder)
        found: dict[str, Any] = msgspec.to_builtins(reference)
        return found

    def _copy(self, content: bytes | Path, to: Path) -> tuple[int, str]:
        size, digest = 0, hashlib.sha256()
        with contextlib.ExitStack() as stack:
            if isinstance(content, Path):
                if not content.is_file():
                    raise FileNotFoundError(f"{content} is no regular file")
                source = stack.enter_context(content.open("rb"))
                chunks: Iterator[bytes] = iter(lambda: source.read(_CHUNK), b"")
            else:
                chunks = iter((content,))
            target = stack.enter_context(_created(to))
            for chunk in chunks:
                size += len(chunk)
                if size > self._max_bytes:
                    raise Fatal(f"an artifact has at most {self._max_bytes} bytes (TASKMASTER_ARTIFACT_MAX_BYTES); this one has more")
                digest.update(chunk)
                target.write(chunk)
            target.flush()
            os.fsync(target.fileno())
        return size, digest.hexdigest()

    def find(self, artifact: str) -> tuple[Reference, Path]:
        """What is known of the artifact with this id, and where its content is.

        Raises:
            NotFound: there is none, or no longer.
        """
        parts = _ID.fullmatch(artifact)
        if parts and is_job_id(parts[1]):
            path = self._folder / parts[1] / parts[2]
            with contextlib.suppress(OSError, msgspec.MsgspecError):
                return msgspec.json.decode(path.with_name(f"{parts[2]}.json").read_bytes(), type=Reference), path
        raise NotFound("there is no such artifact, or no longer: it goes with the job that made it")

    def open(self, reference: Mapping[str, Any]) -> BinaryIO:
        """The content that *reference* means, from its begin on; read once to check its digest.

        Raises:
            ValueError: not a reference.
            ArtifactLost: it is gone, or is not what the reference says.
        """
        wanted = reference_of(reference)
        try:
            _, path = self.find(wanted.artifact)
            file = path.open("rb")
        except (NotFound, OSError) as error:
            raise ArtifactLost(f"artifact {wanted.artifact} ({wanted.name}) is gone: {error}") from error
        digest = hashlib.sha256()
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
        if digest.hexdigest() != wanted.sha256:
            file.close()
            raise ArtifactLost(f"artifact {wanted.artifact} ({wanted.name}) is not what its reference says: its digest differs")
        file.seek(0)
        return file

    def jobs(self, older_than_s: float, now: float) -> Iterator[str]:
        """Ids of jobs with artifacts, but for those whose folder has changed in the last *older_than_s* seconds (*now*: Unix seconds)."""
        with contextlib.suppress(FileNotFoundError), os.scandir(self._folder) as entries:
            for entry in entries:
                with contextlib.suppress(FileNotFoundError):
                    if is_job_id(entry.name) and now - entry.stat(follow_symlinks=False).st_mtime >= older_than_s:
                        yield entry.name

    def owner(self) -> str:
        """Generation of the store whose jobs these are; empty: nobody has said so."""
        try:
            return (self._folder / "store").read_text("ascii").strip()
        except FileNotFoundError:
            return ""

    def own(self, gen: str) -> None:
        """Say whose they are, if there are any."""
        if self._folder.is_dir():
            fresh = self._folder / f"store.{secrets.token_hex(4)}"
            _write(fresh, gen.encode())
            fresh.replace(self._folder / "store")

    def remove(self, job_id: str) -> None:
        """All artifacts of one job go."""
        if is_job_id(job_id):
            shutil.rmtree(self._folder / job_id, ignore_errors=True)


def artifacts_of(settings: Settings) -> ArtifactStore:
    """Where this service keeps them."""
    return ArtifactStore(settings.data_dir.absolute() / "artifacts", settings.artifact_max_bytes)


def _safe(name: str) -> str:
    """A name that is one, on every system: no folders, nothing that is not shown."""
    last = re.split(r"[/\\]", name)[-1]
    kept = re.sub(r"[^\w. ()+-]", "_", last).strip(" .")[:_NAME_MAX].strip(" .")
    return kept or "artifact"


def _created(path: Path) -> BinaryIO:
    """A file that was not there before, for this user alone."""
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb")


def _write(path: Path, raw: bytes) -> None:
    with _created(path) as file:
        file.write(raw)
        file.flush()
        os.fsync(file.fileno())


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
