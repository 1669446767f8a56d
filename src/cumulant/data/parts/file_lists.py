"""The files of a snapshot as stored lists, cut by content: two snapshots that differ in one file share all but one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec

from cumulant.core.ids import digest
from cumulant.data.parts.cuts import cut
from cumulant.data.snapshot import Snapshot, SourceFile

if TYPE_CHECKING:
    from cumulant.core.refs import TableRef
    from cumulant.ports.tables import TableStore

#: a snapshot of at most so many files holds them itself
_FEW = 100
#: a list has at least so many files (but for the last), one in so many more ends it, and at most so many
_LEAST, _ONE_IN, _MOST = 128, 256, 2048


def store_file_lists(snapshot: Snapshot, tables: TableStore) -> Snapshot:
    """The snapshot as it is recorded: with references to its files where they are many.

    Raises:
        StorageError: the lists cannot be written.
    """
    if len(snapshot.files) <= _FEW:
        return msgspec.structs.replace(snapshot, file_lists=())
    lists = cut(snapshot.files, lambda file: file.sha256, least=_LEAST, one_in=_ONE_IN, most=_MOST)
    stored = tuple(_write_list(files, snapshot.source, tables) for files in lists)
    return msgspec.structs.replace(snapshot, files=(), file_lists=stored)


def load_file_lists(snapshot: Snapshot, tables: TableStore) -> Snapshot:
    """The snapshot with its files; with none, so that all are read again, where a list was deleted."""
    if not snapshot.file_lists or any(tables.find(ref.key) is None for ref in snapshot.file_lists):
        return snapshot
    files: list[SourceFile] = []
    for ref in snapshot.file_lists:
        texts = tables.scan(ref).collect().to_series()
        files += [msgspec.json.decode(text, type=SourceFile) for text in texts]
    return msgspec.structs.replace(snapshot, files=tuple(files))


def _write_list(files: Sequence[SourceFile], source: str, tables: TableStore) -> TableRef:
    import polars as pl

    texts = [msgspec.json.encode(file).decode() for file in files]
    return tables.write(f"data/{source}/files/{digest(texts)}", pl.DataFrame({"json": texts}))
