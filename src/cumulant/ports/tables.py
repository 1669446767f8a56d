"""Port `tables`: immutable tables, written whole and scanned lazily.

Packages pass references and never paths, so that encryption, lifecycle tiers and residency have one place.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

import msgspec

from cumulant.core.refs import TableRef

if TYPE_CHECKING:
    import polars as pl


class TableHead(NamedTuple):
    """The first `rows` rows of the table `key`."""

    key: str
    rows: int


class Protection(msgspec.Struct, frozen=True):
    """What of a table is personal: the column of its subject, and its personal columns. It is stored with the table, so
    that a store can encrypt by subject; none does yet.
    """

    subject: str | None = None
    columns: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return self.subject is not None or bool(self.columns)


#: the metadata of a Parquet file that hold its `Protection`, as JSON
PROTECT = "cumulant.protect"
#: nothing personal is declared
UNPROTECTED = Protection()


class TableStore(Protocol):
    def write(
        self,
        key: str,
        frames: pl.DataFrame | pl.LazyFrame | Iterable[pl.DataFrame],
        *,
        partition_by: Sequence[str] = (),
        head: TableHead | None = None,
        protect: Protection = UNPROTECTED,
    ) -> TableRef:
        """Store a table under `key` (slashes allowed). It becomes visible whole or not at all.

        A table that already stands under `key` is kept and its reference returned: keys are content names. With `head`
        its rows begin with those, which a store need not write again; a table in partitions has none. `protect`
        declares what is personal of it.

        Raises:
            DataError: frames have other columns or types than the first one, or the head.
            NotFoundError: the table of the head, or a column of `partition_by`, is not there.
            StorageError: no space, or the place cannot be written.
        """
        ...

    def scan(self, ref: TableRef | str) -> pl.LazyFrame:
        """The table's rows in the order written. Raises NotFoundError."""
        ...

    def protection(self, ref: TableRef | str) -> Protection:
        """What was declared personal when the table was written. Raises NotFoundError."""
        ...

    def check(self, ref: TableRef | str) -> None:
        """Read all of a table again, before rows of it become rows of another.

        Raises:
            NotFoundError: there is no such table.
            StorageError: it differs from what was written, or nothing shows that it does not.
        """
        ...

    def find(self, key: str) -> TableRef | None: ...

    def keys(self, prefix: str = "") -> list[str]: ...

    def delete(self, key: str) -> None: ...
