"""The table store on files: immutable folders of zstd Parquet files."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from cumulant.core.errors import StorageError, UsageError, not_found
from cumulant.core.ids import file_digest
from cumulant.core.refs import TableRef
from cumulant.core.scope import Scope
from cumulant.drivers.local.folders import FolderStore, link
from cumulant.drivers.local.location import locate
from cumulant.drivers.local.manifest import TableManifest, TablePart
from cumulant.ports.tables import UNPROTECTED, Protection, TableHead

if TYPE_CHECKING:
    import polars as pl

_MANIFEST = "_table.json"


class FileTables:
    """A table store in a folder: `file:///path/to/tables`.

    `a/b` lies in `a/b.parquet/` below the folder of the scope, which DuckDB, Spark and Polars read as it stands. With
    `partition_by` the files lie in `column=value` folders and keep the columns inside.
    """

    def __init__(self, url: str, *, scope: Scope | None = None) -> None:
        self._folders = FolderStore(
            locate(url).path, suffix=".parquet", manifest=_MANIFEST, kind=TableManifest, holds="table", scope=scope
        )

    def write(
        self,
        key: str,
        frames: pl.DataFrame | pl.LazyFrame | Iterable[pl.DataFrame],
        *,
        partition_by: Sequence[str] = (),
        head: TableHead | None = None,
        protect: Protection = UNPROTECTED,
    ) -> TableRef:
        if existing := self.find(key):
            return existing
        if head is not None and partition_by:
            raise UsageError(f"table {key} cannot be in partitions and have a head", subject=key)
        from cumulant.drivers.local import parquet  # imports Polars, which listing and deleting do not need

        with self._folders.writing(key) as folder, parquet.storage_errors(key, folder):
            shared: list[TablePart] = []
            if head is not None:
                rows = self.scan(head.key)
                shared = self._shared(head, folder)
                done = sum(part.rows for part in shared)
                frames = parquet.prepend_head(rows.slice(done, head.rows - done), frames)
            manifest = parquet.write(
                key, folder, frames, partition_by=tuple(partition_by), shared=shared, protect=protect
            )
            (folder / _MANIFEST).write_bytes(msgspec.json.format(msgspec.json.encode(manifest)))
        # Another writer may have been first.
        return self.find(key) or TableRef(key, manifest.rows, manifest.bytes)

    def scan(self, ref: TableRef | str) -> pl.LazyFrame:
        from cumulant.drivers.local import parquet

        manifest, paths = self._files(ref)
        return parquet.scan(paths, manifest)

    def protection(self, ref: TableRef | str) -> Protection:
        return self._files(ref)[0].protect or UNPROTECTED

    def check(self, ref: TableRef | str) -> None:
        manifest, paths = self._files(ref)
        for path, part in zip(paths, manifest.parts, strict=True):
            if file_digest(path) != part.digest:
                raise _damage_error(manifest.key, path, f"{part.path} is not what was written")

    def _files(self, ref: TableRef | str) -> tuple[TableManifest, list[Path]]:
        """A table's manifest and its files, checked to be present."""
        key = ref if isinstance(ref, str) else ref.key
        manifest = self._folders.manifest(key)
        if manifest is None:
            raise not_found("table", key, self.keys())
        folder = self._folders.folder(key)
        paths = [folder / part.path for part in manifest.parts]
        for path, part in zip(paths, manifest.parts, strict=True):
            if not path.is_file() or path.stat().st_size != part.bytes:
                raise _damage_error(key, path, f"{part.path} is missing or has another size")
        return manifest, paths

    def find(self, key: str) -> TableRef | None:
        manifest = self._folders.manifest(key)
        return TableRef(key, manifest.rows, manifest.bytes) if manifest else None

    def keys(self, prefix: str = "") -> list[str]:
        return self._folders.keys(prefix)

    def delete(self, key: str) -> None:
        self._folders.delete(key)

    def _shared(self, head: TableHead, folder: Path) -> list[TablePart]:
        """Link the files of the head that need not be written again into a folder.

        A small last file is written again with the rows after it, so that small files do not accumulate.
        """
        from cumulant.drivers.local import parquet

        manifest = self._folders.manifest(head.key)
        if manifest is None or manifest.positioned:
            return []
        ends = accumulate(part.rows for part in manifest.parts)
        shared = [part for part, end in zip(manifest.parts, ends, strict=True) if end <= head.rows]
        if shared and shared[-1].rows < parquet.FILE_ROWS:
            shared.pop()
        renamed = []
        for number, part in enumerate(shared):
            name = parquet.part_name(number)
            link(self._folders.folder(head.key) / part.path, folder / name)
            renamed.append(msgspec.structs.replace(part, path=name))
        return renamed


def _damage_error(key: str, path: Path, how: str) -> StorageError:
    hint = "delete the table and run again: it is made anew"
    return StorageError(f"table {key} is damaged: {how}", subject=str(path), hint=hint)
