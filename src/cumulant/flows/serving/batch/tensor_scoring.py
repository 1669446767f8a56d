"""Scoring of rows by a graph of tensors: a matrix of columns, or each input from the column of its name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from cumulant.core.errors import RequestError
from cumulant.flows.serving.batch.piece_scoring import PreparedPiece, refuse_lacking
from cumulant.servable.engine import DTYPES

if TYPE_CHECKING:
    import polars as pl

    from cumulant.core.servable import GraphServable, TensorSpec
    from cumulant.data.files.streaming import Piece
    from cumulant.servable.engine import Array, Engine
    from cumulant.serving.protocol.request_rules import Fault

_WORDS = {"b": "true or false", "i": "whole numbers", "u": "whole numbers from 0 on", "f": "numbers", "O": "texts"}


class GraphWork:
    """A graph. A plain column gives an input [n] or [n, 1], a column of lists of k values an input [n, k].

    Raises:
        RequestError: an input has no free number of rows, or more than two sizes.
    """

    def __init__(self, engine: Engine, servable: GraphServable, keep: Sequence[str]) -> None:
        for spec in servable.inputs:
            if spec.shape[:1] not in ((-1,), (1,)) or len(spec.shape) > 2:
                raise RequestError(
                    f'input "{spec.name}" has the shape {list(spec.shape)}: no rows of a table fit it',
                    subject=spec.name,
                    hint="serve the model, and send it tensors",
                )
        self._engine, self._servable = engine, servable
        self.passthrough: Sequence[str] = list(dict.fromkeys(keep))
        self._wanted = servable.columns or tuple(spec.name for spec in servable.inputs)

    def columns(self, head: pl.DataFrame) -> list[str]:
        refuse_lacking(
            [*self._wanted, *self.passthrough], head.columns, hint=f"the model reads {', '.join(self._wanted[:12])}"
        )
        return list(dict.fromkeys([*self.passthrough, *self._wanted]))

    def remarks(self, head: pl.DataFrame) -> list[str]:
        others = [name for name in head.columns if name not in (*self._wanted, *self.passthrough)]
        return [f"not read by the model, and so ignored: {', '.join(others)}"] if others else []

    def prepare(self, piece: Piece) -> PreparedPiece:
        rows, specs = piece.rows, self._servable.inputs
        if self._servable.columns:
            feeds = {specs[0].name: self._matrix(rows, specs[0], piece.first)}
        else:
            feeds = {spec.name: _tensor(rows[spec.name], spec, piece.first) for spec in specs}
        return PreparedPiece(rows.select(self.passthrough), feeds, rows.height)

    def warnings(self, faults: Mapping[Fault, int], rows: int) -> tuple[str, ...]:  # noqa: ARG002 - as Work
        return ()

    def _matrix(self, rows: pl.DataFrame, spec: TensorSpec, first: int) -> Array:
        matrix = np.empty((rows.height, len(self._wanted)), dtype=DTYPES[spec.datatype])
        for place, name in enumerate(self._wanted):
            matrix[:, place] = _column(rows[name], matrix.dtype, first)
            if name in self._servable.required:
                _refuse_missing(name, matrix[:, place], first)
        return matrix

    def score(self, prepared: PreparedPiece, rows: slice) -> list[Array]:
        return self._engine.run({name: array[rows] for name, array in prepared.feeds.items()})

    def answers(self, prepared: PreparedPiece, scored: Sequence[Any]) -> pl.DataFrame:
        import polars as pl

        columns = {}
        for place, spec in enumerate(self._servable.outputs):
            whole = np.concatenate([arrays[place] for arrays in scored])
            if whole.shape[:1] != (prepared.rows,):
                message = f'output "{spec.name}" has the shape {list(whole.shape)} for {prepared.rows:,} rows'
                raise RequestError(f"{message}: it has not one answer a row", subject=spec.name, hint="serve the model")
            columns[spec.name] = _series(spec.name, whole)
        return pl.DataFrame(columns)


def _series(name: str, array: Array) -> pl.Series:
    """A row's values as one value where there is one, else as a list."""
    import polars as pl

    flat = array.reshape(len(array), -1) if array.size else array.reshape(len(array), *array.shape[1:2])
    if array.ndim > 1 and flat.shape[1:] != (1,):
        return pl.Series(name, flat.tolist() if flat.dtype == object else flat).cast(pl.List(_inner(array)))
    values = flat.reshape(len(array))
    return pl.Series(name, values.tolist(), dtype=pl.String) if values.dtype == object else pl.Series(name, values)


def _inner(array: Array) -> Any:
    import polars as pl

    return pl.String if array.dtype == object else pl.Series(np.empty(0, array.dtype)).dtype


def _tensor(series: pl.Series, spec: TensorSpec, first: int) -> Array:
    import polars as pl

    dtype = DTYPES[spec.datatype]
    if not isinstance(series.dtype, (pl.List, pl.Array)):
        values = _column(series, dtype, first)
        return values if len(spec.shape) == 1 else values.reshape(-1, 1)
    width = spec.shape[1] if len(spec.shape) == 2 else 0
    lists = series.cast(pl.List(series.dtype.inner)) if isinstance(series.dtype, pl.Array) else series
    lengths = lists.list.len()
    wanted = width if width > 0 else (lengths[0] if len(lengths) else 0)
    wrong = (lengths.ne_missing(wanted)).arg_true() if len(spec.shape) == 2 else lengths.is_null().not_().arg_true()
    if wrong.len():
        message = (
            f'column "{series.name}" must hold lists of {wanted} values' if width else f'"{series.name}" holds lists'
        )
        raise RequestError(f"{message}, and does not in row {first + wrong[0] + 1:,}", subject=series.name)
    return _column(lists.explode(empty_as_null=False), dtype, first, each=max(1, wanted or 1)).reshape(len(series), -1)


def _column(series: pl.Series, dtype: np.dtype[Any], first: int, *, each: int = 1) -> Array:
    """The values as numpy's type, null as NaN. Raises RequestError, which names the row."""
    import polars as pl

    name, kind = series.name, dtype.kind
    if series.null_count() == len(series):
        series = series.cast(pl.Null)  # the type of a column without values means nothing
    if kind == "O":
        fits = series.dtype in (pl.String, pl.Null, pl.Categorical, pl.Enum)
        values = series.cast(pl.String).to_numpy().astype(object) if fits else None
    elif kind == "f":
        fits = series.dtype.is_numeric() or series.dtype in (pl.Boolean, pl.Null)
        values = _floats(series, dtype, first, each) if fits else None
    else:
        wide = pl.Boolean if kind == "b" else (pl.UInt64 if kind == "u" else pl.Int64)
        fits = series.dtype == pl.Boolean or (series.dtype.is_integer() and kind != "b") or series.dtype == pl.Null
        values = _whole(series.cast(wide, strict=False), series, dtype, first, each) if fits else None
    if values is None:
        raise RequestError(
            f'column "{name}" must hold {_WORDS[kind]}, and holds {series.dtype}', subject=name, hint="cast the column"
        )
    if kind != "f" and series.null_count():
        raise _row_error(series.is_null(), name, "may not be missing", first, each)
    return values


def _refuse_missing(name: str, values: Array, first: int) -> None:
    import polars as pl

    missing = np.isnan(values)
    if missing.any():
        raise _row_error(pl.Series(missing), name, "may not be missing", first, 1)


def _floats(series: pl.Series, dtype: np.dtype[Any], first: int, each: int) -> Array:
    import polars as pl

    wide = series if series.dtype in (pl.Float32, pl.Float64) else series.cast(pl.Float64)
    with np.errstate(over="ignore", invalid="ignore"):
        values: Array = wide.to_numpy().astype(dtype, copy=False)
    large = np.isinf(values)
    if large.any():
        raise _row_error(pl.Series(large), series.name, "is too large", first, each)
    return values


def _whole(wide: pl.Series, series: pl.Series, dtype: np.dtype[Any], first: int, each: int) -> Array:
    import polars as pl

    lost = wide.is_null() & series.is_not_null()
    values = wide.fill_null(0 if dtype.kind != "b" else False).to_numpy()
    if dtype.kind != "b":
        limits = np.iinfo(dtype)
        lost = lost | pl.Series((values < limits.min) | (values > limits.max))
    if lost.any():
        raise _row_error(lost, series.name, f"does not fit {dtype}", first, each)
    return values.astype(dtype, copy=False)


def _row_error(wrong: pl.Series, name: str, fault: str, first: int, each: int) -> RequestError:
    row = first + int(wrong.arg_true()[0]) // each + 1
    return RequestError(f'row {row:,}: "{name}" {fault}', subject=name, hint="correct the values")
