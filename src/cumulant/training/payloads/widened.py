"""A payload that reads a matrix widened by means of the target."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Self

import msgspec
import numpy as np

from cumulant.training.payloads.encoding import MOST_CATEGORIES, Matrix
from cumulant.training.payloads.payload import Floats, Kind, Payload, Prior

_FILE = "widening.json"


class MeansTable(msgspec.Struct, frozen=True):
    """The means of the values of one column of the matrix, [values + 1, numbers]; the last row is for all others."""

    column: int
    means: tuple[tuple[float, ...], ...]


class Widening(msgspec.Struct, frozen=True):
    """How the matrix of a servable's inputs becomes that of the model: codes from `most` on are missing, and the means
    of `tables` follow after the columns, in float32.
    """

    tables: tuple[MeansTable, ...]
    most: int = MOST_CATEGORIES

    def apply(self, matrix: Matrix) -> Matrix:
        places = [
            np.where(np.isnan(codes := matrix[:, table.column]), len(table.means) - 1, codes) for table in self.tables
        ]
        mean_columns = [
            np.array(table.means, dtype=np.float32)[at.astype(np.int64)]
            for table, at in zip(self.tables, places, strict=True)
        ]
        return np.hstack([self.narrow(matrix), *mean_columns])

    def narrow(self, matrix: Matrix) -> Matrix:
        """The columns of the matrix without the codes of rare values."""
        narrow = matrix.copy()
        for table in self.tables:
            codes = narrow[:, table.column]
            codes[codes >= self.most] = np.nan
        return narrow


class _Stored(msgspec.Struct, frozen=True):
    widening: Widening
    inner: Kind


class Widened(msgspec.Struct, frozen=True):
    """`inner` answers for the matrix that `widening` makes."""

    widening: Widening
    inner: Payload

    @property
    def kind(self) -> Kind:
        return "widened"

    def predict(self, matrix: Matrix, /) -> Floats:
        return self.inner.predict(self.widening.apply(matrix))

    def files(self) -> dict[str, bytes]:
        return {_FILE: msgspec.json.encode(_Stored(self.widening, self.inner.kind))} | self.inner.files()

    @classmethod
    def of_files(cls, files: Mapping[str, bytes], read: Callable[[Kind, Mapping[str, bytes]], Payload]) -> Self:
        """The payload that `files` wrote; `read` makes the inner one of its kind and files."""
        stored = msgspec.json.decode(files[_FILE], type=_Stored)
        return cls(stored.widening, read(stored.inner, files))


def widened(payload: Payload, widening: Widening) -> Payload:
    """`payload` for a matrix that is not widened yet."""
    return Widened(widening, payload) if widening.tables and not isinstance(payload, Prior) else payload
