"""What people see of stored rows: personal columns only as keyed hashes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cumulant.data.masking import mask_frame
from cumulant.data.snapshot import ROW, Snapshot, scan

if TYPE_CHECKING:
    import polars as pl

    from cumulant.ports.tables import TableStore


def personal_columns(snapshot: Snapshot) -> frozenset[str]:
    return frozenset(field.name for field in snapshot.fields if field.personal)


def quarantined(snapshot: Snapshot, tables: TableStore, salt: bytes, *, limit: int | None = None) -> pl.DataFrame:
    """The refused rows, at most `limit`: `__rule` that refused each, `__file` and `__row` (its position among the
    prepared rows of that file; for a rule across files, among its accepted rows), then the columns as they came.
    """
    import polars as pl

    if snapshot.quarantine is None:
        names = [field.name for field in snapshot.fields]
        return pl.DataFrame(
            schema={"__rule": pl.String, "__file": pl.String, ROW: pl.Int64} | dict.fromkeys(names, pl.String)
        )
    rows = tables.scan(snapshot.quarantine)
    found = (rows if limit is None else rows.head(limit)).collect()
    return mask_frame(found, personal_columns(snapshot), salt)


def preview(snapshot: Snapshot, tables: TableStore, salt: bytes, *, rows: int = 10) -> pl.DataFrame:
    """The first accepted rows."""
    found = scan(snapshot, tables).drop(ROW).head(rows).collect()
    return mask_frame(found, personal_columns(snapshot), salt)
