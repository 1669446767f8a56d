"""Cells of categories: frequent values alone, rare ones together, and those that the reference lacks.

A value has a cell of its own only where its count is surely not chance, or where all values have one. A column whose
rows mostly have other values is an identifier, of which only the rate of new values is compared.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import polars as pl

from cumulant.monitoring.drift.numbers import Blocks, CellCounts
from cumulant.monitoring.drift.profiles import ColumnCells
from cumulant.statistics.rows import Codes

#: values with a cell of their own, and values that are remembered as known
ALONE, KNOWN = 200, 50_000
#: rows, as if independent, from which on chance moves a count by little, and the least share of the rows, of a value
#: with a cell of its own where there are more than ALONE; together such values hold this share, or it is an identifier
_SURE, _SHARE, _MOSTLY = 100, 1 / ALONE, 0.5
#: blocks from which on a value that only one of them has is one that comes and goes
_BLOCKS = 5
_EXAMPLES, _LONGEST = 3, 60
#: a text column with more values than this, and more than half as many as rows, is a key or free text
_MANY = 100
_TIME = r"^\d{4}-\d\d-\d\d([T ]\d\d:\d\d\S*)?$"

Parts = Callable[[], Iterator[tuple[pl.Series, Blocks]]]


def category_counts(parts: Parts, *, blocks: int) -> CellCounts | str:
    """Cells from these values, and their counts; or why the column is not monitored."""
    rows, missing = _tally(parts(), blocks)
    totals = _totals(rows)
    if not totals.height:
        return "the reference holds no value of it"
    if totals["value"].head(_MANY).str.contains(_TIME).all():
        return "times move by themselves"
    if totals.height > _MANY and totals.height > totals["rows"].sum() / 2:
        return "most rows have their own text, as keys and free text have"
    values = totals["value"].to_list()[:KNOWN]
    alone = len(values) if totals.height <= ALONE else _alone(rows, totals)
    new, twice = _new(rows, totals)
    cells = ColumnCells(
        kind="category",
        values=tuple(values[:alone]),
        known=tuple(values[alone:]),
        once=int(new["rows"].sum()),
        twice=twice,
        complete=totals.height <= KNOWN,
    )
    counts = _placed(rows, missing, cells, blocks)
    return _left_out(counts, new, cells) if cells.known and cells.complete else counts


def _totals(rows: pl.DataFrame) -> pl.DataFrame:
    """Of each value its rows and how many blocks have it, the most frequent first."""
    summed = rows.group_by("value").agg(pl.col("rows").sum(), held=pl.len())
    return summed.sort(["rows", "value"], descending=[True, False])


def _alone(rows: pl.DataFrame, totals: pl.DataFrame) -> int:
    """How many of the most frequent values have a cell of their own, by counts beyond chance between blocks."""
    sizes = rows.group_by("block").agg(size=pl.col("rows").sum())
    whole, blocks = int(sizes["size"].sum()), sizes.height
    top = totals.head(ALONE)
    squares = (
        rows.join(top.select("value"), on="value", how="semi")
        .join(sizes, on="block")
        .group_by("value")
        .agg(square=(pl.col("rows") ** 2 / pl.col("size")).sum())
    )
    counts = top.join(squares, on="value", how="left", maintain_order="left")
    n, square = counts["rows"].to_numpy().astype(float), counts["square"].to_numpy()
    spread = (whole / n * square - n) / max(blocks - 1, 1)
    sure = (n / np.maximum(spread, 1.0) >= _SURE) & (n >= _SHARE * whole)
    alone = int(np.argmin(sure)) if not sure.all() else len(sure)
    return alone if n[:alone].sum() >= _MOSTLY * whole else 0


def _new(rows: pl.DataFrame, totals: pl.DataFrame) -> tuple[pl.DataFrame, int]:
    """Rows by block whose value nothing else in the reference has, the share of new ones (Good 1953); and of pairs.

    Where there are blocks, values of one block only. Values met twice bound its error (Robbins 1968).
    """
    met = "held" if rows["block"].n_unique() >= _BLOCKS else "rows"
    own = totals.filter(pl.col(met) == 1).select("value")
    by_block = rows.join(own, on="value", how="semi").group_by("block").agg(pl.col("rows").sum())
    return by_block, int(totals.filter(pl.col(met) == 2)["rows"].sum())


def _left_out(first: CellCounts, new: pl.DataFrame, cells: ColumnCells) -> CellCounts:
    """Rows with values that nothing else in the reference has, counted as later ones are: as unseen."""
    counts = first.counts.copy()
    places, moved = new["block"].to_numpy(), new["rows"].to_numpy()
    counts[places, len(cells.values)] -= moved
    counts[places, -1] += moved
    return first._replace(counts=counts)


def counted(parts: Iterator[tuple[pl.Series, Blocks]], cells: ColumnCells, blocks: int) -> CellCounts:
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
    counts = _placed(tallied, missing - unreadable, cells, blocks)
    return counts._replace(unreadable=unreadable)


def _is_other(dtype: pl.DataType, cells: ColumnCells) -> bool:
    """Whether values of that type cannot be any of the reference's, of which not all are known."""
    if cells.complete or not (dtype.is_numeric() or dtype.is_temporal()):
        return False
    return pl.Series(cells.values[:_MANY]).cast(pl.Float64, strict=False).null_count() == len(cells.values[:_MANY])


def _tally(parts: Iterator[tuple[pl.Series, Blocks]], blocks: int) -> tuple[pl.DataFrame, Codes]:
    """Rows by block and value (block, value, rows), and missing ones by block."""
    tallies, missing = [], np.zeros(blocks, dtype=np.int64)
    for series, block in parts:
        if series.dtype.is_float():
            series = series.fill_nan(None)  # noqa: PLW2901 - NaN marks missing numbers
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
        tallies.append(counts.select("block", text(counts["value"]), pl.col("rows").cast(pl.Int64)))
    tallied = pl.concat(tallies)
    if len(tallies) > 1:
        tallied = tallied.group_by("block", "value").agg(pl.col("rows").sum())
    return tallied, missing


def text(values: pl.Series) -> pl.Series:
    """Values of whatever type as text; whole numbers without a point, so that codes that were read as 1.0 are "1"."""
    if values.dtype.is_float():
        number = values.cast(pl.Int64, strict=False)
        texts = (
            pl.when(number.cast(values.dtype) == values).then(number.cast(pl.String)).otherwise(values.cast(pl.String))
        )
        return pl.select(texts.alias("value")).to_series()
    if values.dtype.is_nested() or values.dtype == pl.Binary:
        return pl.Series(
            "value", [None if value is None else str(value) for value in values.to_list()], dtype=pl.String
        )
    return values.cast(pl.String).alias("value")


def _placed(rows: pl.DataFrame, missing: Codes, cells: ColumnCells, blocks: int) -> CellCounts:
    places = pl.DataFrame(
        {
            "value": [*cells.values, *cells.known],
            "cell": [*range(len(cells.values)), *[len(cells.values)] * len(cells.known)],
        },
        schema={"value": pl.String, "cell": pl.Int64},
    )
    # Where the reference holds more values than are remembered, one that is not may still be known.
    else_ = cells.count - 1 if cells.complete else len(cells.values)
    celled = rows.join(places, on="value", how="left").with_columns(unseen=pl.col("cell").is_null())
    celled = celled.with_columns(pl.col("cell").fill_null(else_))
    flat = (celled["block"] * cells.count + celled["cell"]).to_numpy()
    counts = np.bincount(flat, weights=celled["rows"].to_numpy(), minlength=blocks * cells.count)
    unseen = (
        celled.filter("unseen")
        .group_by("value")
        .agg(pl.col("rows").sum())
        .sort(["rows", "value"], descending=[True, False])
    )
    examples = tuple(value[:_LONGEST] for value in unseen["value"].head(_EXAMPLES)) if cells.complete else ()
    return CellCounts(
        cells, counts.astype(np.int64).reshape(blocks, cells.count), missing, np.zeros(blocks, dtype=np.int64), examples
    )
