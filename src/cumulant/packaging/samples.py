"""Sample rows for the checks of packaging: read from a file, or random ones that fit the graph."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cumulant.core.errors import DataError, NotFoundError
from cumulant.core.servable import TensorSpec
from cumulant.servable.engine import DTYPES, Array

if TYPE_CHECKING:
    import polars as pl

_ROWS = 256
#: stands for a size that a request chooses
_FREE = 8
#: of values in memory; a sample is some thousand rows
_MOST = 2**31
_FORMATS = "a .csv or .parquet table, an .npy matrix, or an .npz with one array an input"


@dataclass(frozen=True)
class ModelSample:
    """Rows by input name, not yet cast to the graph's types. `given`: the user's own rows.

    An array without a dimension is a single value, which all rows share.
    """

    values: Mapping[str, Array]
    given: bool

    @property
    def rows(self) -> int:
        return row_count(self.values)

    def take(self, rows: Any) -> ModelSample:
        return ModelSample(take_rows(self.values, rows), self.given)

    def feeds(self, inputs: Sequence[TensorSpec]) -> dict[str, Array]:
        """Rows in the graph's types and shapes.

        Raises:
            DataError: an input is missing, has another shape, or holds values of another kind.
        """
        return {spec.name: _cast(self.values, spec) for spec in inputs}


def row_count(feeds: Mapping[str, Array]) -> int:
    """The rows of the inputs that have any; 1 where each is a single value."""
    return next((len(array) for array in feeds.values() if array.ndim), 1)


def take_rows(feeds: Mapping[str, Array], rows: Any) -> dict[str, Array]:
    return {name: array[rows] if array.ndim else array for name, array in feeds.items()}


def _cast(values: Mapping[str, Array], spec: TensorSpec) -> Array:
    if spec.name not in values:
        raise DataError(f'the sample lacks the input "{spec.name}"', subject=spec.name, hint=f"use {_FORMATS}")
    array = values[spec.name]
    fits = array.ndim == len(spec.shape) and all(
        want in (-1, got) for want, got in zip(spec.shape[1:], array.shape[1:], strict=True)
    )
    if not fits:
        raise DataError(
            f'the sample of "{spec.name}" has the shape {list(array.shape)}, the model takes {list(spec.shape)}',
            subject=spec.name,
        )
    try:
        if spec.datatype == "BYTES":
            return np.array([str(value) for value in array.ravel()], dtype=object).reshape(array.shape)
        return np.asarray(array, DTYPES[spec.datatype], order="C")
    except (TypeError, ValueError) as error:
        raise DataError(f'the sample of "{spec.name}" cannot be read as {spec.datatype}: {error}') from None


def _single(array: Array) -> Array:
    flat = array.ravel()
    return flat[:1].reshape(()) if array.ndim == 1 and len(flat) and (flat == flat[0]).all() else array


def read_sample(path: Path, inputs: Sequence[TensorSpec], columns: Sequence[str]) -> ModelSample:
    """The rows in `path`, a .csv, .parquet, .npy or .npz file, for the inputs of a graph.

    Of a table, the columns named `columns` are one matrix [n, k], or each input has the column of its name; other
    columns are left out.

    Raises:
        NotFoundError: there is no such file.
        DataError: it cannot be read, has no rows, or lacks an input.
    """
    if not path.is_file():
        raise NotFoundError(f"there is no sample at {path}", subject=str(path))
    match path.suffix.lower():
        case ".npy":
            values = {inputs[0].name: _array(path)} if len(inputs) == 1 else {}
        case ".npz":
            values = _arrays(path)
        case ".csv" | ".parquet":
            values = arrays_of_frame(_table(path), inputs, columns)
        case _:
            raise DataError(f'"{path.name}" names no format', subject=str(path), hint=f"use {_FORMATS}")
    return check_sample(ModelSample(values, given=True), inputs, str(path))


def check_sample(sample: ModelSample, inputs: Sequence[TensorSpec], subject: str) -> ModelSample:
    """The sample, after a check that it has equally many rows for each input that is no single value.

    Raises:
        DataError: it has not.
    """
    missing = [spec.name for spec in inputs if spec.name not in sample.values]
    if missing:
        raise DataError(f'the sample lacks the input "{missing[0]}"', subject=subject, hint=f"use {_FORMATS}")
    rows = {spec.name for spec in inputs if spec.shape}
    sizes = {array.shape[0] if array.ndim else 0 for name, array in sample.values.items() if name in rows}
    if len(sizes) > 1 or 0 in sizes:
        raise DataError("the sample has no rows, or not equally many for each input", subject=subject)
    values = {name: array if name in rows else _single(array) for name, array in sample.values.items()}
    return ModelSample(values, sample.given)


def arrays_of_frame(frame: pl.DataFrame, inputs: Sequence[TensorSpec], columns: Sequence[str]) -> dict[str, Array]:
    """The arrays by input name that a table holds.

    Raises:
        DataError: a column is missing or is not numeric.
    """
    if len(inputs) != 1 or (inputs[0].name in frame.columns and not columns):
        return {spec.name: _column(frame, spec) for spec in inputs if spec.name in frame.columns}
    width = inputs[0].shape[-1]
    names = list(columns) if set(columns) <= set(frame.columns) and columns else _numeric(frame)
    if width not in (-1, len(names)):
        wanted = f"the columns {', '.join(columns)}" if columns else f"{width} numeric columns"
        raise DataError(f"the model reads {wanted}; the sample has {', '.join(frame.columns)}")
    try:
        return {inputs[0].name: np.column_stack([_values(frame, name) for name in names])}
    except (TypeError, ValueError) as error:
        raise DataError(f"the sample's columns are not all numbers: {error}") from None


def _numeric(frame: pl.DataFrame) -> list[str]:
    return [name for name, kind in frame.schema.items() if kind.is_numeric() or str(kind) == "Boolean"]


def _values(frame: pl.DataFrame, name: str) -> Array:
    numbers: Array = np.array([np.nan if value is None else value for value in frame[name].to_list()], np.float64)
    return numbers


def _column(frame: pl.DataFrame, spec: TensorSpec) -> Array:
    values = np.array(frame[spec.name].to_list(), object if spec.datatype == "BYTES" else None)
    return values.reshape(-1, 1) if len(spec.shape) == 2 else values


def read_table_if_any(path: Path | None) -> pl.DataFrame | None:
    """The table in `path`; None where there is no path, or where the file is no table."""
    is_table = path is not None and path.suffix.lower() in (".csv", ".parquet") and path.is_file()
    return _table(path) if is_table and path is not None else None


def _table(path: Path) -> pl.DataFrame:
    import polars as pl
    import pyarrow as pa

    from cumulant.data.formats.parquet_memory import refuse_large

    try:
        if path.suffix.lower() == ".csv":
            return pl.read_csv(path)
        refuse_large(path, str(path), None)
        return pl.read_parquet(path)
    except (pl.exceptions.PolarsError, pa.ArrowException, OSError) as error:
        raise DataError(f"{path} cannot be read as a table: {error}", subject=str(path)) from None


def _array(path: Path) -> Array:
    with path.open("rb") as stream:
        return _load(stream, path)


def _load(stream: Any, path: Path) -> Array:
    """One array, after a check of the size in its head; objects would have to be unpickled and are refused."""
    try:
        version = np.lib.format.read_magic(stream)
        head = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = head(stream)
        if dtype.hasobject or int(np.prod([float(size) for size in shape])) * dtype.itemsize > _MOST:
            raise DataError(f"{path} holds objects or more than 2 GiB", subject=str(path))
        stream.seek(0)
        array: Array = np.lib.format.read_array(stream, allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise DataError(f"{path} is no array of numpy: {error}", subject=str(path)) from None
    return array


def _arrays(path: Path) -> dict[str, Array]:
    try:
        with zipfile.ZipFile(path) as archive:
            members = [member for member in archive.infolist() if member.filename.endswith(".npy")]
            if sum(member.file_size for member in members) > _MOST:
                raise DataError(f"{path} holds more than 2 GiB", subject=str(path))
            return {
                member.filename.removesuffix(".npy"): _load(io.BytesIO(archive.read(member)), path)
                for member in members
            }
    except (zipfile.BadZipFile, OSError, EOFError) as error:
        raise DataError(f"{path} is no .npz file: {error}", subject=str(path)) from None


def random_sample(inputs: Sequence[TensorSpec], *, seed: int = 0) -> ModelSample:
    """Made-up rows: normal numbers, whole numbers 0 and 1, truth values, short texts."""
    rng = np.random.default_rng(seed)
    return ModelSample({spec.name: _random(spec, rng) for spec in inputs}, given=False)


def _random(spec: TensorSpec, rng: np.random.Generator) -> Array:
    shape = tuple((_FREE if place else _ROWS) if size == -1 else size for place, size in enumerate(spec.shape))
    if int(np.prod([float(size) for size in shape])) > _MOST // 8:
        shape = (min(shape[0], 2), *shape[1:])
    dtype = DTYPES[spec.datatype]
    if spec.datatype == "BYTES":
        return np.array([f"text {number}" for number in rng.integers(0, 9, int(np.prod(shape)))], object).reshape(shape)
    values = rng.normal(size=shape) if dtype.kind == "f" else rng.integers(0, 2, shape)
    return np.asarray(values, dtype)
