"""A payload that reads a matrix widened by means of the target."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Self

import msgspec

from cumulant.training.payloads.encoding import Matrix
from cumulant.training.payloads.payload import Floats, Kind, Payload, Prior
from cumulant.training.trainers.target_means import Widening

_FILE = "widening.json"


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
