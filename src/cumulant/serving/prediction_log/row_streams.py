"""Columns of entries that follow a pattern, built for many entries at once.

On disk they equal the result of `entry_rows.row_texts`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from typing import Any, NamedTuple

import msgspec
import numpy as np
import pyarrow as pa

from cumulant.serving.prediction_log.entry import LogEntry, PatternEntry, Tensor
from cumulant.serving.prediction_log.entry_rows import FIXED, LARGE, bounded_text, to_python

_LINES = msgspec.json.Encoder().encode_lines
_NEWLINE = ord("\n")


class PatternStream:
    """Common part of a worker's entries of one pattern.

    Raises:
        ValueError: the pattern has not one tensor and one output.
    """

    def __init__(self, entry: LogEntry, worker: str, region: str) -> None:
        if len(entry.tensors) != 1 or len(entry.outputs) != 1:
            raise ValueError("a pattern is of one tensor and one output")
        self.entry, self.worker, self.region = entry, worker, region
        self._request, self._outputs = _form(entry.tensors[0], entry.columns), _form(entry.outputs[0], ())

    def rows(self, like: PatternEntry) -> int:
        """Number of rows, where both matrices agree; 0 where only `whole` can convert the entry."""
        inputs, outputs = self._request, self._outputs
        if inputs is None or outputs is None:
            return 0
        count, rest = divmod(len(like.request), inputs.size)
        return 0 if rest or len(like.outputs) != count * outputs.size else count

    def whole(self, like: PatternEntry) -> LogEntry:
        """The entry in full, without a pattern.

        Raises:
            ValueError: its bytes are not those of tensors of the pattern.
        """
        given = {name: getattr(like, name) for name in ("sequence", "id", "time_us", "latency_us", "caller_id")}
        tensors, outputs = [_sized(self.entry.tensors[0], like.request)], [_sized(self.entry.outputs[0], like.outputs)]
        return msgspec.structs.replace(self.entry, tensors=tensors, outputs=outputs, **given)

    @cached_property
    def texts(self) -> tuple[Callable[[Iterable[bytes]], pa.Array], Callable[[Iterable[bytes]], pa.Array]]:
        """Functions that convert matrices to the columns of requests and of outputs."""
        if self._request is None or self._outputs is None:
            raise ValueError("its rows are no numbers")
        return _column(self._request), _column(self._outputs)

    def columns(self, likes: Sequence[PatternEntry], schema: pa.Schema) -> list[pa.Array]:
        """Columns of the entries in the order of the schema; each entry has `rows`."""
        request, outputs = (
            make(raws)
            for make, raws in zip(
                self.texts, ([like.request for like in likes], [like.outputs for like in likes]), strict=True
            )
        )
        given = {name: name for name in ("id", "latency_us", "sequence", "caller_id")} | {"time": "time_us"}
        columns: dict[str, pa.Array] = {
            name: pa.array([getattr(like, of) for like in likes], schema.field(name).type) for name, of in given.items()
        }
        places = np.zeros(len(likes), dtype=np.int32)
        if len(request) > len(likes):
            counts = [self.rows(like) for like in likes]
            places = np.concatenate([np.arange(count, dtype=np.int32) for count in counts])
            whole = pa.array(np.repeat(np.arange(len(likes)), counts))
            columns = {name: column.take(whole) for name, column in columns.items()}
        columns |= {"row": pa.array(places), "request": request, "outputs": outputs}
        common = {"worker": self.worker, "region": self.region, "event_time": None, "state_age": None}
        common |= {"invalid": "", "features": "", "incomplete": ""}
        return [
            columns[field.name]
            if field.name in columns
            else pa.repeat(
                pa.scalar(common[field.name] if field.name in common else getattr(self.entry, field.name), field.type),
                len(request),
            )
            for field in schema
        ]


class _Form(NamedTuple):
    """Layout of the rows of a matrix: one name for each value, or one for the list of all."""

    dtype: np.dtype[Any]
    width: int
    names: Sequence[str]

    @property
    def size(self) -> int:
        """Bytes of a row."""
        return self.width * self.dtype.itemsize


def _form(tensor: Tensor, columns: Sequence[str]) -> _Form | None:
    """Layout of a tensor; None where it is no matrix of numbers, or has large rows."""
    name, datatype, shape, _ = tensor
    dtype = FIXED.get(datatype)
    if dtype is None or not 1 <= len(shape) <= 2:
        return None
    form = _Form(dtype, math.prod(shape[1:]), (name,))
    if not 1 <= form.size <= LARGE:
        return None
    return form._replace(names=tuple(columns)) if len(columns) == form.width else form


def _sized(tensor: Tensor, raw: bytes) -> Tensor:
    name, datatype, shape, _ = tensor
    size = math.prod(shape[1:]) * (FIXED[datatype].itemsize if datatype in FIXED else 0)
    if size < 1 or len(raw) % size:
        raise ValueError("bytes that do not fit the shape")
    return name, datatype, [len(raw) // size, *shape[1:]], raw


def _column(form: _Form) -> Callable[[Iterable[bytes]], pa.Array]:
    objects = _objects(form)

    def column(raws: Iterable[bytes]) -> pa.Array:
        array = np.frombuffer(b"".join(raws), dtype=form.dtype).reshape(-1, form.width)
        return _texts(_LINES(objects(to_python(array))))

    return column


def _texts(lines: bytes) -> pa.Array:
    """Lines as a column of texts."""
    data = np.frombuffer(lines, dtype=np.uint8)
    # JSON without spaces has no line break inside: what is left after they are taken out are the texts, end to end.
    breaks = np.flatnonzero(data == _NEWLINE)
    ends = np.zeros(len(breaks) + 1, dtype=np.int32)
    ends[1:] = breaks - np.arange(len(breaks))
    buffers = [None, pa.py_buffer(ends), pa.py_buffer(lines.replace(b"\n", b""))]
    texts = pa.Array.from_buffers(pa.string(), len(breaks), buffers)
    if int(np.diff(ends).max()) <= LARGE:
        return texts
    return pa.array([bounded_text(text.encode()) for text in texts.to_pylist()], pa.string())


def _objects(form: _Form) -> Callable[[list[list[Any]]], list[Any]]:
    """Function from rows to objects; fixed fields are faster than dictionaries."""
    names = form.names
    if len(names) != form.width:
        return lambda rows: [{names[0]: row} for row in rows]
    if len(set(names)) < len(names) or any(_LINES([name]) != b'"%b"\n' % name.encode() for name in names):
        return lambda rows: [dict(zip(names, row, strict=True)) for row in rows]
    fields = [(f"f{place}", Any) for place in range(len(names))]
    renamed = {field: name for (field, _), name in zip(fields, names, strict=True)}
    row_type = msgspec.defstruct("Row", fields, rename=renamed, gc=False)
    return lambda rows: [row_type(*row) for row in rows]
