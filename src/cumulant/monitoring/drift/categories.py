"""Categories into cells: the frequent alone, the rare together, and those that the reference does not know."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import polars as pl

from cumulant.monitoring.drift.numbers import Blocks, Counted
from cumulant.monitoring.drift.profiles import Cells
from cumulant.statistics.rows import Codes

#: values with a cell of their own, and values that are remembered as known
ALONE, KNOWN = 200, 10_000
_EXAMPLES, _LONGEST = 3, 60
#: a text column with more values than this, and more than half as many as rows, is a key or free text
_MANY = 100
_TIME = r"^\d{4}-\d\d-\d\d([T ]\d\d:\d\d\S*)?$"

Parts = Callable[[], Iterator[tuple[pl.Series, Blocks]]]


def made(parts: Parts, *, blocks: int) -> Counted | str:
    """Cells from these values, and their counts; or why the column is not watched."""
    rows, missing = _tally(parts(), blocks)
    totals = rows.group_by("value").agg(pl.col("rows").sum()).sort(["rows", "value"], descending=[True, False])
    if not totals.height:
        return "the reference holds no value of it"
    if totals["value"].head(_MANY).str.contains(_TIME).all():
        return "times move by themselves"
    if totals.height > _MANY and totals.height > totals["rows"].sum() / 2:
        return "most rows have their own text, as keys and free text have"
    values = totals["value"].to_list()[:KNOWN]
    cells = Cells(
        kind="category",
        values=tuple(values[:ALONE]),
        known=tuple(values[ALONE:]),
        once=int((totals["rows"] == 1).sum()),
        complete=totals.height <= KNOWN,
    )
    return _placed(rows, missing, cells, blocks)


def counted(parts: Iterator[tuple[pl.Series, Blocks]], cells: Cells, blocks: int) -> Counted:
    """Counts of values in the cells of a reference. Numbers and times are unreadable where it holds other texts."""
    unreadable = np.zeros(blocks, dtype=np.int64)

    def readable() -> Iterator[tuple[pl.Series, Blocks]]:
        nonlocal unreadable
        for series, block in parts:
            if not _is_other(series.dtype, cells):
                yield series, block
                continue
            codes = np.zeros(len(series), dtype=np.int64) if block is None else block
            unreadable += np.bincount(codes[series.is_not_null().to_numpy()], minlength=blocks)
            yield pl.Series(series.name, [None] * len(series), dtype=pl.String), block

    tallied, missing = _tally(readable(), blocks)
    made = _placed(tallied, missing - unreadable, cells, blocks)
    return made._replace(unreadable=unreadable)


def _is_other(dtype: pl.DataType, cells: Cells) -> bool:
    """Whether values of that type cannot be any of the reference's, of which not all are known to tell by."""
    if cells.complete or not (dtype.is_numeric() or dtype.is_temporal()):
        return False
    return pl.Series(cells.values[:_MANY]).cast(pl.Float64, strict=False).null_count() == len(cells.values[:_MANY])


def _tally(parts: Iterator[tuple[pl.Series, Blocks]], blocks: int) -> tuple[pl.DataFrame, Codes]:
    """Rows by block and value (block, value, rows), and missing ones by block."""
    found, missing = [], np.zeros(blocks, dtype=np.int64)
    for series, block in parts:
        if series.dtype.is_float():
            series = series.fill_nan(None)  # noqa: PLW2901 - NaN is how a column of numbers says that nothing is there
        codes = pl.Series(np.zeros(len(series), dtype=np.int64) if block is None else block)
        if series.null_count():
            lacking = series.is_null().to_numpy()
            missing += np.bincount(codes.to_numpy()[lacking], minlength=blocks)
        if block is None:
            counts = series.drop_nulls().value_counts(name="rows").rename({series.name: "value"})
            counts = counts.with_columns(block=pl.lit(0, dtype=pl.Int64))
        else:
            frame = pl.DataFrame({"block": codes, "value": series}).filter(pl.col("value").is_not_null())
            counts = frame.group_by("block", "value").agg(rows=pl.len())
        found.append(counts.select("block", text(counts["value"]), pl.col("rows").cast(pl.Int64)))
    tallied = pl.concat(found)
    if len(found) > 1:
        tallied = tallied.group_by("block", "value").agg(pl.col("rows").sum())
    return tallied, missing


def text(values: pl.Series) -> pl.Series:
    """Values of whatever type as text; whole numbers without a point, so that codes that were read as 1.0 are "1"."""
    if values.dtype.is_float():
        number = values.cast(pl.Int64, strict=False)
        told = (
            pl.when(number.cast(values.dtype) == values).then(number.cast(pl.String)).otherwise(values.cast(pl.String))
        )
        return pl.select(told.alias("value")).to_series()
    if values.dtype.is_nested() or values.dtype == pl.Binary:
        return pl.Series("value", [None if one is None else str(one) for one in values.to_list()], dtype=pl.String)
    return values.cast(pl.String).alias("value")


def _placed(rows: pl.DataFrame, missing: Codes, cells: Cells, blocks: int) -> Counted:
    places = pl.DataFrame(
        {
            "value": [*cells.values, *cells.known],
            "cell": [*range(len(cells.values)), *[len(cells.values)] * len(cells.known)],
        },
        schema={"value": pl.String, "cell": pl.Int64},
    )
    # Where the reference holds more values than are remembered, one that is not may still be known.
    else_ = cells.count - 1 if cells.complete else len(cells.values)
    told = rows.join(places, on="value", how="left").with_columns(unseen=pl.col("cell").is_null())
    told = told.with_columns(pl.col("cell").fill_null(else_))
    flat = (told["block"] * cells.count + told["cell"]).to_numpy()
    counts = np.bincount(flat, weights=told["rows"].to_numpy(), minlength=blocks * cells.count)
    unseen = (
        told.filter("unseen")
        .group_by("value")
        .agg(pl.col("rows").sum())
        .sort(["rows", "value"], descending=[True, False])
    )
    examples = tuple(value[:_LONGEST] for value in unseen["value"].head(_EXAMPLES)) if cells.complete else ()
    return Counted(
        cells, counts.astype(np.int64).reshape(blocks, cells.count), missing, np.zeros(blocks, dtype=np.int64), examples
    )
