"""Tables of a user's program (Polars, pandas, PyArrow) as Polars frames; what cannot be read is named by its column."""

from __future__ import annotations

from typing import Any

import polars as pl

from cumulant.core.errors import DataError, missing_part


def to_polars(frame: object, *, source: str) -> pl.DataFrame:
    """A user's frame (Polars, pandas, PyArrow, or any that Narwhals supports) as a Polars frame.

    Raises:
        DataError: it is no frame, or a column mixes types that no table can hold.
    """
    if isinstance(frame, pl.DataFrame):
        return frame
    if isinstance(frame, pl.LazyFrame):
        try:
            return frame.collect()
        except pl.exceptions.PolarsError as error:
            raise DataError(
                f"source {source}: the lazy frame cannot be computed ({type(error).__name__})",
                subject=source,
                hint="call .collect() on it to see why",
            ) from error
    try:
        import narwhals as nw
    except ImportError as error:
        raise missing_part("narwhals", "train") from error
    try:
        native: Any = frame
        if nw.dependencies.is_pandas_dataframe(native):
            return _of_pandas(native)
        table: pl.DataFrame = nw.from_native(native, eager_only=True).to_polars()
    except (TypeError, ValueError, OverflowError, NotImplementedError, pl.exceptions.PolarsError) as error:
        faults = unreadable_columns(frame) if hasattr(frame, "dtypes") and hasattr(frame, "columns") else {}
        which = "; ".join(f'column "{name}" holds {reason}' for name, reason in list(faults.items())[:3])
        raise DataError(
            f"source {source}: a {type(frame).__name__} cannot be read as a table ({which or type(error).__name__})",
            subject=next(iter(faults), source),
            hint="give a Polars, pandas or PyArrow table whose columns each hold one type",
        ) from error
    return table


def frame_of_rows(rows: list[dict[str, Any]]) -> pl.DataFrame:
    """Rows, each with its values by column, as a frame.

    Raises:
        DataError: a column mixes types that no table can hold.
    """
    try:
        return pl.DataFrame(rows, infer_schema_length=None)
    except (TypeError, ValueError, OverflowError, pl.exceptions.PolarsError) as error:
        raise DataError(
            f"the rows are no table: {str(error).strip().partition(chr(10))[0][:200]}",
            subject="rows",
            hint="give the values of each column one type",
        ) from None


def unreadable_columns(frame: Any) -> dict[str, str]:
    """The columns of a pandas frame that no table can hold, each with what it holds: mixed types, for one."""
    import pyarrow as pa

    reasons: dict[str, str] = {}
    names = [str(name) for name in frame.columns]
    for place, name in enumerate(names):
        if names.count(name) > 1:
            reasons[name] = "a name that several columns have"
            continue
        values = frame.iloc[:, place]
        try:
            pa.array(values, from_pandas=True)
        except (TypeError, ValueError, OverflowError, NotImplementedError):
            kinds = sorted({type(value).__name__ for value in values if value is not None})
            reasons[name] = (
                " and ".join(kinds)
                if len(kinds) > 1
                else f"{kinds[0] if kinds else 'values'} that no column type holds"
            )
    return reasons


def _of_pandas(frame: Any) -> pl.DataFrame:
    """A pandas frame by way of Arrow, without its index; NaN becomes null, other names than text become text."""
    import pyarrow as pa

    named = frame.set_axis([str(name) for name in frame.columns], axis="columns")
    # pandas warns when Arrow reads its zoned times, so they cross as UTC without a zone
    zoned = [name for name, dtype in named.dtypes.items() if getattr(dtype, "tz", None) is not None]
    named = named.assign(**{name: named[name].dt.tz_convert(None) for name in zoned})
    table = pl.from_arrow(pa.Table.from_pandas(named, preserve_index=False))
    whole = table if isinstance(table, pl.DataFrame) else table.to_frame()
    return whole.with_columns(pl.col(zoned).dt.replace_time_zone("UTC")) if zoned else whole
