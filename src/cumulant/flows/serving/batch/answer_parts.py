"""Finished parts of an answer beside the file that they become: `OUTPUT.parts/`."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from types import MappingProxyType
from typing import IO, TYPE_CHECKING, Any, Self

import msgspec

from cumulant.core.errors import LeaseHeldError, UsageError
from cumulant.core.ids import digest
from cumulant.core.system.atomic_files import storage_errors, sync
from cumulant.core.system.locks import try_lock
from cumulant.ports.files import FileInfo

if TYPE_CHECKING:
    import polars as pl

    from cumulant.serving.protocol.request_rules import Fault

MANIFEST, LOCK, DRAFT = "manifest.json", "lock", "draft"
_PART = "part-*.parquet"
#: key of a part's metadata: rows that failed checks
_FAULTS = b"cumulant.faults"
NO_FAULTS: Mapping[Fault, int] = MappingProxyType({})


class AnswerManifest(msgspec.Struct, frozen=True, kw_only=True):
    """What the parts were made of. Where any of it is another, they are of no use."""

    inputs: tuple[FileInfo, ...]
    #: what the answers depend on beside the input: digest of the servable, snapshots, settings
    model: dict[str, Any]
    #: rows of a part, and rows that one thread scores at once
    part_rows: int
    slice_rows: int

    def change(self, inputs: tuple[FileInfo, ...], model: Mapping[str, Any], part_rows: int | None) -> str | None:
        """What differs now, in words."""
        if self.inputs != inputs:
            return "the input"
        if digest(self.model) != digest(model):
            return "the model or the data that it looks back at"
        return "the size of parts" if part_rows not in (None, self.part_rows) else None


class AnswerParts:
    """The folder of one output. Every part is written aside and renamed, so that one that is there is whole.

    Raises:
        UsageError: the folder holds something else.
        StorageError: it cannot be made.
        LeaseHeldError: another process writes the same output.
    """

    def __init__(self, output: Path) -> None:
        self.output = output
        self.folder = output.with_name(f"{output.name}.parts")
        with writing(self.folder):
            self.folder.mkdir(exist_ok=True)
        names = (MANIFEST, LOCK, f"{DRAFT}.tmp")
        strange = [path.name for path in self.folder.iterdir() if not path.match(_PART) and path.name not in names]
        if strange:
            message = f"{self.folder} holds {strange[0]}, which is no part of an answer"
            raise UsageError(message, subject=str(self.folder), hint="move the folder away, or choose another output")
        self._lock = self._locked()

    def _locked(self) -> int:
        with writing(self.folder):
            handle = os.open(self.folder / LOCK, os.O_CREAT | os.O_RDWR)
            free = try_lock(handle)
        if not free:
            os.close(handle)
            hint = "wait until it has ended"
            raise LeaseHeldError(f"another process writes {self.output}", subject=str(self.output), hint=hint)
        return handle

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._lock)
        if not (self.folder / MANIFEST).exists():
            self._remove()

    def _remove(self) -> None:
        with suppress(OSError):
            # Without the manifest the parts mean nothing, so it goes first.
            for path in [self.folder / MANIFEST, *self.paths(), self.folder / LOCK]:
                path.unlink(missing_ok=True)
            self.folder.rmdir()

    def manifest(self) -> AnswerManifest | None:
        """What the parts that are there were made of; None where that is unknown."""
        try:
            return msgspec.json.decode((self.folder / MANIFEST).read_bytes(), type=AnswerManifest)
        except (FileNotFoundError, msgspec.DecodeError):
            return None

    def begin(self, manifest: AnswerManifest) -> None:
        """Forget every part and begin again. Raises StorageError."""
        with writing(self.folder):
            (self.folder / MANIFEST).unlink(missing_ok=True)
            for path in self.folder.glob(_PART):
                path.unlink()
            self._put(MANIFEST, lambda stream: stream.write(msgspec.json.format(msgspec.json.encode(manifest))))

    def done(self, file: int) -> list[int]:
        """The numbers of rows of the parts of an input file that are finished, from the first one on."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        counts: list[int] = []
        while (path := self.folder / _name(file, len(counts))).exists():
            try:
                counts.append(pq.read_metadata(path).num_rows)
            except (pa.ArrowException, OSError):
                break
        return counts

    def write(self, file: int, number: int, rows: pl.DataFrame, faults: Mapping[Fault, int] = NO_FAULTS) -> None:
        """Write one part, with the rows of it that failed checks.

        Raises:
            StorageError: the disk is full or cannot be written; the parts so far stay.
        """
        import polars as pl
        import pyarrow.parquet as pq

        table = rows.to_arrow(compat_level=pl.CompatLevel.oldest())
        if faults:
            table = table.replace_schema_metadata({_FAULTS: msgspec.json.encode(list(faults.items()))})
        with writing(self.folder):
            self._put(_name(file, number), lambda stream: pq.write_table(table, stream, compression="zstd"))

    def faults(self) -> Counter[Fault]:
        """Rows by the check that they fail, of all parts, also of those that an earlier process wrote."""
        import pyarrow.parquet as pq

        counts: Counter[Fault] = Counter()
        for path in self.paths():
            written = (pq.read_schema(path).metadata or {}).get(_FAULTS)
            if written is not None:
                counts.update(dict(msgspec.json.decode(written, type=list[tuple[tuple[str, str], int]])))
        return counts

    def paths(self) -> list[Path]:
        """All parts, in the order of the rows."""
        return sorted(self.folder.glob(_PART))

    def finish(self, write: Callable[[list[Path], IO[bytes]], object]) -> None:
        """Let `write` make one file of the parts, put it in the output's place, and remove the parts.

        Raises:
            StorageError: as `write`.
        """
        with writing(self.output):
            self._put(DRAFT, lambda stream: write(self.paths(), stream), self.output)
        self._remove()

    def _put(self, name: str, write: Callable[[IO[bytes]], object], place: Path | None = None) -> None:
        draft = self.folder / f"{DRAFT}.tmp"
        try:
            with draft.open("wb") as stream:
                write(stream)
            sync(draft)
            draft.replace(place or self.folder / name)
        finally:
            draft.unlink(missing_ok=True)


def _name(file: int, number: int) -> str:
    return f"part-{file:06d}-{number:08d}.parquet"


def writing(place: Path) -> AbstractContextManager[None]:
    """Raise a system error of writing `place` as a StorageError."""
    return storage_errors(place, hint="finished parts are kept: free some space and run the same command again")
