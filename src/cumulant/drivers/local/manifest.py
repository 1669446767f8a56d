"""The manifest of a stored table."""

from __future__ import annotations

import msgspec

from cumulant.ports.tables import Protection


class TablePart(msgspec.Struct, frozen=True):
    """One Parquet file of a table, relative to its folder."""

    path: str
    rows: int
    bytes: int
    #: SHA-256 of the file's bytes; empty in tables of earlier versions
    digest: str = ""


class TableManifest(msgspec.Struct, frozen=True, kw_only=True):
    """The content of `_table.json`. `positioned`: rows carry their number and are sorted by it when scanned."""

    key: str
    rows: int
    bytes: int
    parts: tuple[TablePart, ...]
    partition_by: tuple[str, ...] = ()
    positioned: bool = False
    sort: bool = False
    protect: Protection | None = None
