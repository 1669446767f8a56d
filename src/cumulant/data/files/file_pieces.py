"""A large file as its pieces: tables of rows, all under the types that the file has as a whole."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from typing import NamedTuple

import polars as pl

from cumulant.data.files.hive_columns import Partition, with_partition
from cumulant.data.files.reading import with_absent
from cumulant.data.spec import SourceSpec
from cumulant.data.text.csv_text import FileTable


class PieceError(Exception):
    """A piece cannot be read under the types of its file; reading the whole raises the error."""


class Pieces(NamedTuple):
    """The types of a file's columns, and its rows under them in pieces.

    `guessed`: columns with types inferred from text. Where they `may_fail`, the tables may raise PieceError.
    """

    schema: pl.Schema
    tables: Callable[[], Iterator[FileTable]]
    guessed: frozenset[str] = frozenset()
    may_fail: bool = False

    def with_partition(self, partition: Partition, spec: SourceSpec, *, texts: Collection[str], url: str) -> Pieces:
        """The pieces with the columns of a partition, and nulls for declared paths that the file lacks.

        Raises:
            DataError: as `with_partition`.
        """

        def table(piece: FileTable) -> FileTable:
            return with_absent(with_partition(piece, partition, spec, texts=texts, url=url), spec)

        head = table(FileTable(pl.DataFrame(schema=self.schema)))
        tables, guessed = self.tables, self.guessed | head.partitions
        return self._replace(schema=head.rows.schema, tables=lambda: map(table, tables()), guessed=guessed)
