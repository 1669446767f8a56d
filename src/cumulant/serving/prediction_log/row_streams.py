"""Entries that follow a pattern, on a short way to columns: many at once, and none of them as an object of its own.

What they read as on disk is what `rows.texts` makes of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from typing import Any, NamedTuple

import msgspec
import numpy as np
import pyarrow as pa

from cumulant.serving.prediction_log.entry import Entry, Like, Tensor
from cumulant.serving.prediction_log.entry_rows import FIXED, LARGE, bounded, plain

_LINES = msgspec.json.Encoder().encode_lines
_NEWLINE = ord("\n")


class Stream:
    """What a worker's entries of one pattern have in common.

    Raises:
        ValueError: the pattern has not one tensor and one output.
    """

    def __init__(self, entry: Entry, worker: str, region: str) -> None:
        if len(entry.tensors) != 1 or len(entry.outputs) != 1:
            raise ValueError("a pattern is of one tensor and one output")
        self.entry, self.worker, self.region = entry, worker, region
        self._asked, self._answered = _form(entry.tensors[0], entry.columns), _form(entry.outputs[0], ())

    def rows(self, like: Like) -> int:
        """Its rows, where both of its matrices have as many; 0 where only `whole` can be made of it."""
        asked, answered = self._asked, self._answered
        if asked is None or answered is None:
            return 0
        count, rest = divmod(len(like.asked), asked.size)
        return 0 if rest or len(like.answered) != count * answered.size else count

    def whole(self, like: Like) -> Entry:
        """The entry as it would be without a pattern.

        Raises:
            ValueError: its bytes are not those of tensors of the pattern.
        """
        given = {name: getattr(like, name) for name in ("sequence", "id", "time_us", "latency_us", "caller_id")}
        tensors, outputs = [_sized(self.entry.tensors[0], like.asked)], [_sized(self.entry.outputs[0], like.answered)]
        return msgspec.structs.replace(self.entry, tensors=tensors, outputs=outputs, **given)

    @cached_property
    def texts(self) -> tuple[Callable[[Iterable[bytes]], pa.Array], Callable[[Iterable[bytes]], pa.Array]]:
        """What makes the column of requests, and that of outputs, of the matrices' bytes."""
        if self._asked is None or self._answered is None:
            raise ValueError("its rows are no numbers")
        return _column(self._asked), _column(self._answered)

    def columns(self, likes: Sequence[Like], schema: pa.Schema) -> list[pa.Array]:
        """Their rows by the schema's columns. Each of `likes` has `rows`."""
        request, outputs = (
            make(raws)
            for make, raws in zip(
                self.texts, ([like.asked for like in likes], [like.answered for like in likes]), strict=True
            )
        )
        given = {name: name for name in ("id", "latency_us", "sequence", "caller_id")} | {"time": "time_us"}
        found: dict[str, pa.Array] = {
            name: pa.array([getattr(like, of) for like in likes], schema.field(name).type) for name, of in given.items()
        }
        places = np.zeros(len(likes), dtype=np.int32)
        if len(request) > len(likes):
            counts = [self.rows(like) for like in likes]
            places = np.concatenate([np.arange(count, dtype=np.int32) for count in counts])
            whole = pa.array(np.repeat(np.arange(len(likes)), counts))
            found = {name: column.take(whole) for name, column in found.items()}
        found |= {"row": pa.array(places), "request": request, "outputs": outputs}
        common = {"worker": self.worker, "region": self.region, "event_time": None, "state_age": None, "invalid": ""}
        return [
            found[field.name]
            if field.name in found
            else pa.repeat(
                pa.scalar(common[field.name] if field.name in common else getattr(self.entry, field.name), field.type),
                len(request),
            )
            for field in schema
        ]


class _Form(NamedTuple):
    """How the rows of a matrix read: each value under its own of `names`, or all as a list under the only one."""

    dtype: np.dtype[Any]
    width: int
    names: Sequence[str]

    @property
    def size(self) -> int:
        """Bytes of a row."""
        return self.width * self.dtype.itemsize


def _form(tensor: Tensor, columns: Sequence[str]) -> _Form | None:
    """None of what is no matrix of numbers, or has large rows."""
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
        return _texts(_LINES(objects(plain(array))))

    return column


def _texts(lines: bytes) -> pa.Array:
    """Lines as a column of texts."""
    data = np.frombuffer(lines, dtype=np.uint8)
    # JSON without spaces has no line break inside: what is left after they are taken out are the texts, end to end.
    breaks = np.flatnonzero(data == _NEWLINE)
    ends = np.zeros(len(breaks) + 1, dtype=np.int32)
    ends[1:] = breaks - np.arange(len(breaks))
    buffers = [None, pa.py_buffer(ends), pa.py_buffer(lines.replace(b"\n", b""))]
    found = pa.Array.from_buffers(pa.string(), len(breaks), buffers)
    if int(np.diff(ends).max()) <= LARGE:
        return found
    return pa.array([bounded(text.encode()) for text in found.to_pylist()], pa.string())


def _objects(form: _Form) -> Callable[[list[list[Any]]], list[Any]]:
    """Makes objects of rows. Those of fixed fields are quicker to make and to write than dictionaries."""
    names = form.names
    if len(names) != form.width:
        return lambda rows: [{names[0]: row} for row in rows]
    if len(set(names)) < len(names) or any(_LINES([name]) != b'"%b"\n' % name.encode() for name in names):
        return lambda rows: [dict(zip(names, row, strict=True)) for row in rows]
    fields = [(f"f{place}", Any) for place in range(len(names))]
    renamed = {field: name for (field, _), name in zip(fields, names, strict=True)}
    made = msgspec.defstruct("Row", fields, rename=renamed, gc=False)
    return lambda rows: [made(*row) for row in rows]
