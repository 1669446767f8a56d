"""Views of stored rows, with personal columns as keyed hashes only."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, NamedTuple

from cumulant.data.masking import mask_frame
from cumulant.data.row_columns import FILE, ROW, RULE
from cumulant.data.snapshot import Snapshot, scan

if TYPE_CHECKING:
    import polars as pl

    from cumulant.core.refs import TableRef
    from cumulant.ports.tables import TableStore

#: of a `QuarantineIndex`
DAY, PLACE = "\0day", "\0place"
_DATE = r"^(\d{4}-\d\d-\d\d)"
#: refused rows between two that are read, from which on those between are not
_APART = 20_000


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

    if snapshot.quarantine is None:
        names = [field.name for field in snapshot.fields]
        return pl.DataFrame(schema={RULE: pl.String, FILE: pl.String, ROW: pl.Int64} | dict.fromkeys(names, pl.String))
    rows = tables.scan(snapshot.quarantine)
    if files is not None:
        rows = rows.filter(pl.col(FILE).is_in(list(files)))
    refused = (rows if limit is None else rows.head(limit)).collect()
    broken = _broken(refused[RULE])
    return _masked(refused, broken, personal_columns(snapshot), salt, divided=bool(broken.any()))


def count_refused(snapshot: Snapshot, tables: TableStore, *, files: Collection[str] | None = None) -> dict[str, int]:
    """How many rows each rule refused, of these files or of all, most first; a row counts under the first rule."""
    import polars as pl

    if snapshot.quarantine is None:
        return {}
    rows = tables.scan(snapshot.quarantine)
    if files is not None:
        rows = rows.filter(pl.col(FILE).is_in(list(files)))
    counts = rows.group_by(RULE).agg(pl.len().alias("rows")).sort(["rows", RULE], descending=[True, False]).collect()
    return {str(rule): int(count) for rule, count in counts.iter_rows()}


class QuarantineIndex(NamedTuple):
    """Refused rows in the order of `read_quarantine`: a row of `rows` has the `__rule` of one, its `DAY` and its
    `PLACE` in the table.

    `columns`: of the table. `divided`: rows with values in the wrong columns come last, with all of them hashed.
    """

    rows: pl.DataFrame
    columns: tuple[str, ...]
    divided: bool


def index_quarantine(snapshot: Snapshot, table: TableRef, tables: TableStore) -> QuarantineIndex:
    """Where refused rows lie, by two of their columns. Days are those of shown values: a hash has none."""
    import polars as pl

    scanned, personal, time = tables.scan(table), personal_columns(snapshot), snapshot.event_time
    columns = tuple(scanned.collect_schema().names())
    dated = time is not None and time in columns and time not in personal
    rows = scanned.select(RULE, *([time] if dated else [])).with_row_index(PLACE).collect()
    broken = _broken(rows[RULE])
    divided = bool(personal) and bool(broken.any())
    days = pl.Series([""] * rows.height, dtype=pl.String)
    if dated:
        column = rows[str(time)]
        temporal = column.dtype.is_temporal() and not divided
        days = column.dt.to_string("%Y-%m-%d") if temporal else column.cast(pl.String).str.extract(_DATE)
    rows = rows.select(RULE, PLACE, days.fill_null("").alias(DAY))
    if divided:
        hashed = rows.filter(broken).with_columns(pl.lit("").alias(DAY))
        rows = pl.concat([rows.filter(~broken), hashed])
    return QuarantineIndex(rows, columns, divided)


def read_refused(
    snapshot: Snapshot, table: TableRef, tables: TableStore, salt: bytes, places: Sequence[int], *, divided: bool
) -> pl.DataFrame:
    """The refused rows at these places, in their order, as `read_quarantine` shows them; other parts of the table are
    not read where they lie apart.
    """
    import polars as pl

    scanned, ordered = tables.scan(table), sorted(places)
    spans: list[list[int]] = []
    for place in ordered:
        if spans and place - spans[-1][-1] < _APART:
            spans[-1].append(place)
        else:
            spans.append([place])
    parts = [
        scanned.slice(span[0], span[-1] - span[0] + 1).collect()[[place - span[0] for place in span]] for span in spans
    ]
    rows = pl.concat(parts) if parts else scanned.head(0).collect()
    order = {place: number for number, place in enumerate(ordered)}
    rows = rows[[order[place] for place in places]]
    return _masked(rows, _broken(rows[RULE]), personal_columns(snapshot), salt, divided=divided)


def _broken(rules: pl.Series) -> pl.Series:
    """Whether values of a row may lie in any column, and a whole object in that of one field."""
    from cumulant.data.formats.json_faults import NOT_JSON
    from cumulant.data.formats.json_limits import DEPTH
    from cumulant.data.parts.part import MALFORMED

    return rules.is_in([MALFORMED, DEPTH, NOT_JSON]) | rules.str.ends_with(":path")


def _masked(
    refused: pl.DataFrame, broken: pl.Series, personal: frozenset[str], salt: bytes, *, divided: bool
) -> pl.DataFrame:
    """The rows with hashes; `divided`: the broken ones last, and all of their values are hashed."""
    import polars as pl

    from cumulant.data.text.csv_records import TEXT

    if not personal or not divided:
        return mask_frame(refused, personal, salt)
    values = [name for name in refused.columns if not name.startswith("__") or name == TEXT]
    masked = [mask_frame(refused.filter(~broken), personal, salt), mask_frame(refused.filter(broken), values, salt)]
    return pl.concat(masked, how="vertical_relaxed")


def preview_rows(snapshot: Snapshot, tables: TableStore, salt: bytes, *, rows: int = 10) -> pl.DataFrame:
    first_rows = scan(snapshot, tables).drop(ROW).head(rows).collect()
    return mask_frame(first_rows, personal_columns(snapshot), salt)
