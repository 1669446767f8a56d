"""Views of stored rows, with personal columns as keyed hashes only."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from cumulant.data.masking import mask_frame
from cumulant.data.row_columns import FILE, ROW, RULE
from cumulant.data.snapshot import Snapshot, scan

if TYPE_CHECKING:
    import polars as pl

    from cumulant.ports.tables import TableStore


def personal_columns(snapshot: Snapshot) -> frozenset[str]:
    return frozenset(field.name for field in snapshot.fields if field.personal)


def read_quarantine(
    snapshot: Snapshot,
    tables: TableStore,
    salt: bytes,
    *,
    limit: int | None = None,
    files: Collection[str] | None = None,
) -> pl.DataFrame:
    """The refused rows, of these files or of all, at most `limit`.

    Columns: `__rule`, `__file`, `__row`, then the original ones. `__row` is the position among the prepared rows of the
    file; for rules across files, among its accepted rows; for malformed rows and `COLUMN:path`, among all its rows,
    with `__line` and `__text` (the first 1,000 characters). Where a source has personal columns, all values are hashed.
    """
    import polars as pl

    from cumulant.data.formats.json_faults import NOT_JSON
    from cumulant.data.formats.json_limits import DEPTH
    from cumulant.data.parts.part import MALFORMED
    from cumulant.data.text.csv_records import TEXT

    if snapshot.quarantine is None:
        names = [field.name for field in snapshot.fields]
        return pl.DataFrame(schema={RULE: pl.String, FILE: pl.String, ROW: pl.Int64} | dict.fromkeys(names, pl.String))
    rows = tables.scan(snapshot.quarantine)
    if files is not None:
        rows = rows.filter(pl.col(FILE).is_in(list(files)))
    refused = (rows if limit is None else rows.head(limit)).collect()
    personal = personal_columns(snapshot)
    broken = refused[RULE].is_in([MALFORMED, DEPTH, NOT_JSON]) | refused[RULE].str.ends_with(":path")
    if not personal or not broken.any():
        return mask_frame(refused, personal, salt)
    # a value of such a row may be in any column, and a whole object in the column of one field
    values = [name for name in refused.columns if not name.startswith("__") or name == TEXT]
    masked = [mask_frame(refused.filter(~broken), personal, salt), mask_frame(refused.filter(broken), values, salt)]
    return pl.concat(masked, how="vertical_relaxed")


def preview_rows(snapshot: Snapshot, tables: TableStore, salt: bytes, *, rows: int = 10) -> pl.DataFrame:
    first_rows = scan(snapshot, tables).drop(ROW).head(rows).collect()
    return mask_frame(first_rows, personal_columns(snapshot), salt)
