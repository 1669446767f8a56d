"""A tar archive of files, hashed while they are written and read back one by one."""

from __future__ import annotations

import hashlib
import io
import os
import tarfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Literal, Self

from cumulant.core.errors import IntegrityError, UsageError
from cumulant.flows.backup.manifest import FILES, NAME, NAMED, StoredFile, check_path, is_plain

_BLOCK = 1024 * 1024
#: a manifest of more than a million files
_MOST_MANIFEST = 512 * 1024 * 1024
#: bytes of a member's long name and further headers
_MOST_HEADER = 1024 * 1024
COMPRESSED = (".tar.gz", ".tgz")


class ArchiveWriter:
    """`stored` lists what was added, each path once."""

    def __init__(self, tar: tarfile.TarFile) -> None:
        self.stored: dict[str, StoredFile] = {}
        self._tar = tar

    def add(self, source: Path, path: str) -> None:
        """Store a file as it is now: of one that grows, what it holds at this moment.

        Raises:
            FileNotFoundError: it is gone.
            UsageError: its name is no text, or would be a path elsewhere.
            OSError: it cannot be read, became shorter meanwhile, or the archive cannot be written.
        """
        if not is_plain(path):
            raise UsageError(f"{path!a} is a name that an archive cannot hold", subject=ascii(path), hint="rename it")
        with source.open("rb") as stream:
            status = os.fstat(stream.fileno())
            hashed = _Hashed(stream)
            self._tar.addfile(_info(FILES + path, status.st_size, status.st_mtime), hashed)  # type: ignore[arg-type]
        self.stored[path] = StoredFile(
            path=path, bytes=status.st_size, sha256=hashed.digest.hexdigest(), modified_ns=status.st_mtime_ns
        )

    def finish(self, manifest: bytes) -> None:
        self._tar.addfile(_info(NAME, len(manifest), 0), io.BytesIO(manifest))


class _Hashed:
    def __init__(self, stream: IO[bytes]) -> None:
        self.digest = hashlib.sha256()
        self._stream = stream

    def read(self, size: int) -> bytes:
        block = self._stream.read(size)
        self.digest.update(block)
        return block


@contextmanager
def open_archive(path: Path, *, compressed: bool) -> Iterator[ArchiveWriter]:
    """A new archive that only its owner can read; durable after the block. Raises OSError."""
    mode: Literal["w|gz", "w|"] = "w|gz" if compressed else "w|"
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "wb") as stream:
        with tarfile.open(fileobj=stream, mode=mode, format=tarfile.PAX_FORMAT) as tar:
            yield ArchiveWriter(tar)
        stream.flush()
        os.fsync(stream.fileno())


def _info(name: str, size: int, modified: float) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.size, info.mtime, info.mode = size, modified, 0o600
    return info


class _Member(tarfile.TarInfo):
    """A member whose long name and further headers are of a size that a backup's may have: tarfile reads them whole."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        member = super().frombuf(buf, encoding, errors)
        if member.type not in tarfile.REGULAR_TYPES and member.size > _MOST_HEADER:
            raise tarfile.ReadError(f"a header of {member.size:,} bytes")
        return member


def read_archive(path: Path, take: Callable[[str, IO[bytes]], None]) -> bytes | None:
    """Give each file's path and content to `take`; the manifest, None where the archive has none.

    A path leads below the project's folder, whatever the archive contains.

    Raises:
        IntegrityError: the archive is damaged, or holds what no backup does.
        OSError: it cannot be read, or as `take`.
    """
    last, manifest = "its beginning", None
    try:
        with path.open("rb") as stream, tarfile.open(fileobj=stream, mode="r|*", tarinfo=_Member) as tar:
            for member in tar:
                # A sparse member claims any size, and holds next to nothing.
                content = tar.extractfile(member) if member.isreg() and not member.issparse() else None
                if content is None:
                    raise damaged_error(path, f"the archive holds {member.name!r}, which is sparse, a link or no file")
                if member.name == NAME:
                    manifest = content.read(_MOST_MANIFEST)
                    continue
                last = check_path(member.name, str(path))
                take(last, content)
    except (tarfile.TarError, EOFError, zlib.error) as error:
        raise damaged_error(path, f"the archive is damaged at {last[:NAMED]}: {error}") from None
    except RecursionError:  # tarfile reads headers of headers by calling itself
        raise damaged_error(path, f"the archive is damaged at {last[:NAMED]}: headers without end") from None
    return manifest


def copy_member(content: IO[bytes], target: Path) -> tuple[int, str]:
    """Write a member to a new file of its owner's; its size and hash. Raises OSError."""
    digest, size = hashlib.sha256(), 0
    handle = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "wb") as stream:
        while block := content.read(_BLOCK):
            digest.update(block)
            size += stream.write(block)
        stream.flush()
        os.fsync(stream.fileno())
    return size, digest.hexdigest()


def damaged_error(path: Path, what: str) -> IntegrityError:
    return IntegrityError(what, subject=str(path), hint="nothing was restored: take another copy or an older backup")
