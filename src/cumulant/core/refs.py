"""References to stored things: packages pass these, never paths."""

from __future__ import annotations

import msgspec


class TableRef(msgspec.Struct, frozen=True):
    """A stored table: a folder of Parquet files under one key of a table store."""

    key: str
    rows: int
    bytes: int


class ObjectRef(msgspec.Struct, frozen=True):
    """A stored file or folder under one key of an object store, with its content hash."""

    key: str
    sha256: str
    bytes: int
