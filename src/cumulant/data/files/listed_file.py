"""One file of a listing: where it is, what errors call it, and its rows with the columns that its folders name."""

from __future__ import annotations

import zipfile
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from cumulant.core.progress import Progress, silent
from cumulant.data.files.file_pieces import Pieces
from cumulant.data.files.hive_columns import Partition, partition_of, with_partition
from cumulant.data.files.large_files import PACKED, pieces_of
from cumulant.data.files.listing import TEXTS, TYPED, FileListing, display_path, file_kind, suffix
from cumulant.data.files.reading import read_any, read_table, with_absent
from cumulant.data.formats.excel import unpacked_bytes
from cumulant.data.spec import SourceSpec
from cumulant.data.text.csv_text import FileTable
from cumulant.ports.files import FileInfo, Files


@dataclass(frozen=True)
class ListedFile:
    """A file of a source. `url` is relative to the root where the file lies below it."""

    info: FileInfo
    url: str
    partition: Partition
    files: Files

    def fetch(self) -> Path:
        """A local copy of the file. Raises DataError where it cannot be read, or changed since it was listed."""
        return self.files.fetch(self.info)

    def read(self, spec: SourceSpec, *, texts: Collection[str] = ()) -> FileTable:
        """Its rows as declared, with nulls for absent declared paths; CSV columns in `texts` are not numbers.

        Raises:
            DataError: as `read_table`.
        """
        table = read_table(self.fetch(), self.url, spec, texts=texts)
        return with_absent(with_partition(table, self.partition, spec, texts=texts, url=self.url), spec)

    def pieces(self, spec: SourceSpec, *, texts: Collection[str] = (), progress: Progress = silent) -> Pieces | None:
        """The rows of a large file in pieces; None where it is read whole. Raises DataError as `pieces_of`."""
        pieces = pieces_of(self.fetch(), self.url, spec, texts, progress)
        return None if pieces is None else pieces.with_partition(self.partition, spec, texts=texts, url=self.url)

    def text_bytes(self, spec: SourceSpec) -> int:
        """About the bytes of text that are read of it: of a workbook those of its XML."""
        kind, name = file_kind(self.url, spec), suffix(self.url)
        if kind == "excel":
            try:
                return unpacked_bytes(self.fetch())
            except (zipfile.BadZipFile, OSError):
                return 0  # reading it reports the fault
        return self.info.bytes * (PACKED if kind not in TYPED and name not in TEXTS else 1)

    def read_any(self, spec: SourceSpec) -> tuple[FileTable, SourceSpec]:
        """Its rows, and `spec` with the separator and encoding of the file. Raises DataError as `read_any`."""
        table, spec = read_any(self.fetch(), self.url, spec)
        return with_partition(table, self.partition, spec, texts=(), url=self.url), spec


def listed_files(listing: FileListing, spec: SourceSpec, *, root: Path, files: Files) -> list[ListedFile]:
    return [
        ListedFile(info, display_path(info.url, root), partition_of(info.url, spec, root=root), files)
        for info in listing.files
    ]
