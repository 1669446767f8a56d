"""Rows of an entry as JSON: one object for the request, one for the outputs."""

from __future__ import annotations

import base64
import hashlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import chain, repeat
from struct import Struct as Layout
from typing import Any

import msgspec
import numpy as np

from cumulant.serving.prediction_log.entry import MAX_FRAME, STRUCT_CODES, LogEntry, Tensor

#: of a row's request or outputs, in bytes of JSON; a longer text is replaced by its shape and hash
LARGE = 64 * 1024
#: rows that are turned to text at a time, so that a request of a million rows needs no more memory than one of these
_SLICE = 1024
FIXED: Mapping[str, np.dtype[Any]] = {name: np.dtype(f"<{code}") for name, code in STRUCT_CODES.items()}
_FLOATS = frozenset({"FP16", "FP32", "FP64"})
_LENGTH = Layout("<I")
_OBJECTS = msgspec.json.Decoder(list[msgspec.Raw]).decode
_FIELDS = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_ENCODE = msgspec.json.Encoder().encode

Hide = Callable[[dict[str, Any]], None]


def row_texts(entry: LogEntry, hide: Hide | None) -> Iterator[tuple[str, str]]:
    """Request and outputs of each row as JSON text; at least one pair, so that no sequence number goes missing.

    Raises:
        ValueError: the entry's bytes are not what it says they are; raised before the first pair.
    """
    requests = _requests(entry, hide)
    answers = _answers(entry)
    count = max(requests[0], answers[0], 1)
    if count == 1:
        return iter([(next(requests[1], "{}"), next(answers[1], "{}"))])
    return zip(_filled(requests, count), _filled(answers, count), strict=True)


_Texts = tuple[int, Iterator[str]]


def _filled(counted: _Texts, count: int) -> Iterator[str]:
    return chain(counted[1], repeat("{}", count - counted[0])) if counted[0] < count else counted[1]


def _requests(entry: LogEntry, hide: Hide | None) -> _Texts:
    if entry.tensors:
        return _tensor_texts(entry.tensors, entry.columns, hide)
    rows = _OBJECTS(entry.rows) if entry.rows else []
    texts = [bytes(row) for row in rows] if hide is None else [_hidden(row, hide) for row in rows]
    return len(texts), iter([bounded_text(text) for text in texts])


def _answers(entry: LogEntry) -> _Texts:
    if entry.outputs:
        return _tensor_texts(entry.outputs, [], None)
    texts = [bounded_text(bytes(answer)) for answer in _OBJECTS(entry.answers)] if entry.answers else []
    return len(texts), iter(texts)


def _hidden(row: msgspec.Raw, hide: Hide) -> bytes:
    fields = _FIELDS(row)
    hide(fields)
    return _ENCODE(fields)


def bounded_text(text: bytes) -> str:
    """Text of a row, replaced by its size and hash where it is long."""
    if len(text) <= LARGE:
        return text.decode()
    return _large(len(text), hashlib.sha256(text).hexdigest(), {})


def _large(size: int, digest: str, shape: dict[str, list[int]]) -> str:
    return _ENCODE({"$large": {"bytes": size, "sha256": digest, "shape": shape}}).decode()


# Tensors --------------------------------------------------------------------------------------------------------


def _tensor_texts(tensors: Sequence[Tensor], columns: Sequence[str], hide: Hide | None) -> _Texts:
    """A row is one element of each tensor's first dimension; tensors without a common one are one row together."""
    if all(datatype in STRUCT_CODES and len(shape) in (1, 2) and shape[0] == 1 for _, datatype, shape, _ in tensors):
        return 1, iter((_one_row(tensors, columns, hide),))
    sizes = {tensor[2][0] if tensor[2] else 0 for tensor in tensors}
    count = sizes.pop() if len(sizes) == 1 else 0
    if count < 1 or any(math.prod(shape) == 0 for _, _, shape, _ in tensors):
        count = 1
        tensors = [(name, datatype, [1, *shape], raw) for name, datatype, shape, raw in tensors]
    arrays = {name: _array(datatype, shape, raw) for name, datatype, shape, raw in tensors}
    bits = sum(array.nbytes // count for array in arrays.values() if array.dtype != object)
    if bits > LARGE:
        return count, _large_rows(arrays, count, bits)
    width = math.prod(next(iter(arrays.values())).shape[1:])
    named = columns if len(arrays) == 1 and len(columns) == width else None
    return count, _row_texts(arrays, count, named, hide)


def _one_row(tensors: Sequence[Tensor], columns: Sequence[str], hide: Hide | None) -> str:
    """Text of one row of numbers: the fast path of the most frequent request."""
    row: dict[str, Any] = {}
    size = sum(len(tensor[3]) for tensor in tensors)
    if size > LARGE:
        arrays = {name: _array(datatype, shape, raw) for name, datatype, shape, raw in tensors}
        return next(_large_rows(arrays, 1, size))
    for name, datatype, shape, raw in tensors:
        values = _numbers(datatype, shape[-1], raw)
        if len(columns) == len(values) and len(tensors) == 1:
            row = dict(zip(columns, values, strict=True))
        else:
            row[name] = values if len(values) != 1 else values[0]
    if hide is not None:
        hide(row)
    return bounded_text(_ENCODE(row))


def _numbers(datatype: str, count: int, raw: bytes) -> Sequence[Any]:
    layout = _layout(datatype, count)
    if layout.size != len(raw):
        raise ValueError("bytes that do not fit the shape")
    values = layout.unpack(raw)
    if datatype in _FLOATS and not math.isfinite(sum(values)):
        return to_python(np.array(values))
    return values


@lru_cache(maxsize=1024)
def _layout(datatype: str, count: int) -> Layout:
    if not 0 <= count <= MAX_FRAME:
        raise ValueError("a size that no tensor has")
    return Layout(f"<{count}{STRUCT_CODES[datatype]}")


def _row_texts(
    arrays: dict[str, np.ndarray[Any, Any]], count: int, columns: Sequence[str] | None, hide: Hide | None
) -> Iterator[str]:
    for start in range(0, count, _SLICE):
        parts = [to_python(array[start : start + _SLICE]) for array in arrays.values()]
        if columns is None:
            rows = (dict(zip(arrays, values, strict=True)) for values in zip(*parts, strict=True))
        elif len(columns) == 1:
            rows = ({columns[0]: value} for value in parts[0])
        else:
            rows = (dict(zip(columns, values, strict=True)) for values in parts[0])
        for row in rows:
            if hide is not None:
                hide(row)
            yield bounded_text(_ENCODE(row))


def _large_rows(arrays: dict[str, np.ndarray[Any, Any]], count: int, size: int) -> Iterator[str]:
    """Texts of large rows: their size, and a hash over the bytes of their tensors in order."""
    shapes = {name: list(array.shape[1:]) for name, array in arrays.items()}
    for row in range(count):
        digest = hashlib.sha256()
        for array in arrays.values():
            part = array[row]
            digest.update(_ENCODE(to_python(part)) if array.dtype == object else part.tobytes())
        yield _large(size, digest.hexdigest(), shapes)


def _array(datatype: str, shape: Sequence[int], raw: bytes) -> np.ndarray[Any, Any]:
    """Tensor by rows; a row of one element becomes that element."""
    wanted = (shape[0],) if len(shape) > 1 and math.prod(shape[1:]) == 1 else tuple(shape)
    if any(size < 0 for size in shape):
        raise ValueError("a negative size")
    if datatype == "BYTES":
        array = np.empty(math.prod(shape), dtype=object) if math.prod(shape) <= len(raw) // 4 else None
        if array is None:
            raise ValueError("fewer elements than the shape says")
        array[:] = _elements(raw, len(array))
        return array.reshape(wanted)
    if datatype not in FIXED:
        raise ValueError(f"no datatype {datatype}")
    return np.frombuffer(raw, dtype=FIXED[datatype]).reshape(wanted)


def _elements(raw: bytes, count: int) -> list[object]:
    elements: list[object] = []
    place = 0
    while place + 4 <= len(raw):
        (size,) = _LENGTH.unpack_from(raw, place)
        place += 4 + size
        elements.append(_text(raw[place - size : place]))
    if place != len(raw) or len(elements) != count:
        raise ValueError("elements that do not fill their bytes")
    return elements


def _text(element: bytes) -> object:
    """Text, or an object with base64 for bytes that are not UTF-8."""
    try:
        return element.decode()
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(element).decode()}


def to_python(array: np.ndarray[Any, Any]) -> list[Any]:
    """Array as Python values. Infinities, which JSON lacks, become text, and NaN becomes null."""
    if array.size == 0:
        return [[] for _ in range(len(array))] if array.ndim else []
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        values = array.astype(object)
        values[np.isposinf(array)], values[np.isneginf(array)] = "Infinity", "-Infinity"
        return values.tolist()  # type: ignore[no-any-return]
    return array.tolist()  # type: ignore[no-any-return]
