"""What a stored table says of itself."""

from __future__ import annotations

import msgspec


class Part(msgspec.Struct, frozen=True):
    """One Parquet file of a table, relative to its folder."""

    path: str
    rows: int
    bytes: int
    #: of the file's bytes; none in tables of earlier versions
    digest: str = ""


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What `_table.json` holds. `positioned`: rows carry their number and are sorted by it when scanned."""

    key: str
    rows: int
    bytes: int
    parts: tuple[Part, ...]
    partition_by: tuple[str, ...] = ()
    positioned: bool = False
    sort: bool = False
