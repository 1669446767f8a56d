"""The protocol's classification extension: an output's highest values with their places and labels, as texts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from cumulant.core.errors import RequestError
from cumulant.servable.engine import DTYPES, Array
from cumulant.serving.protocol.tensors import OutputTensor

_UNRANKED = frozenset({"BYTES", "BOOL"})
_DTYPES: Mapping[str, np.dtype[Any]] = {str(name): dtype for name, dtype in DTYPES.items()}
_INT64 = 2**63


def check_class_count(name: str, value: object) -> int:
    """Requested number of classes of an output.

    Raises:
        RequestError: that is no whole number above 0.
    """
    if type(value) is not int or not 1 <= value < _INT64:
        raise RequestError(
            f'output "{name[:100]}": classification must be a whole number of at least 1', subject=name[:100]
        )
    return value


def check_ranked(counts: Mapping[str, int], known: Mapping[str, tuple[str, list[int]]]) -> None:
    """Raises RequestError for classification of an output without ordered values."""
    for name in counts:
        datatype = known[name][0]
        if datatype in _UNRANKED:
            raise RequestError(f'output "{name}" is {datatype}, which has no scores to rank', subject=name)


def classify(output: OutputTensor, count: int, shape: Sequence[int], labels: Sequence[str]) -> OutputTensor:
    """The `count` highest values, or all where there are fewer, as `VALUE:INDEX` or, with labels, `VALUE:INDEX:LABEL`.

    `shape`: the output's declared one. Where its first size is free, each row is ranked on its own and the answer is
    [n, k]; else the whole tensor is, and the answer is [k]. Of equal values the one of lower index comes first; NaN
    comes last. Labels are written where there is one for each value that is ranked.
    """
    values: Array = np.asarray(output.values, dtype=_DTYPES[output.datatype]).reshape(output.shape)
    of_rows = list(shape[:1]) == [-1]
    rows = values.reshape(len(values), -1) if of_rows and values.size else values.reshape(1, -1)
    if of_rows and not values.size:
        return OutputTensor(output.name, "BYTES", [len(values), 0], np.empty((len(values), 0), np.object_))
    names = labels if len(labels) == rows.shape[1] else ()
    ranked = [_ranked(row, count, names) for row in rows]
    width = min(count, rows.shape[1])
    texts = np.empty((len(rows), width), np.object_)
    texts[:] = ranked
    return OutputTensor(output.name, "BYTES", list(texts.shape) if of_rows else [width], texts)


def _ranked(row: Array, count: int, labels: Sequence[str]) -> list[str]:
    order = _descending(row)[:count].tolist()
    shown = [str(row[place]) for place in order]
    if not labels:
        return [f"{value}:{place}" for value, place in zip(shown, order, strict=True)]
    return [f"{value}:{place}:{labels[place]}" for value, place in zip(shown, order, strict=True)]


def _descending(row: Array) -> Array:
    """Indices in descending order, by a stable sort of the reversed row, as unsigned numbers have no negative."""
    turned = np.argsort(row[::-1], kind="stable")[::-1]
    order = len(row) - 1 - turned
    if row.dtype.kind != "f":
        return order
    lost = np.isnan(row[order])
    return np.concatenate((order[~lost], np.sort(order[lost])))
