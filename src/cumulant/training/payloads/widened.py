"""A payload that reads a matrix widened by means of the target."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from cumulant.training.payloads.encoding import Matrix
from cumulant.training.payloads.payload import Floats, Kind, Payload, Prior, payload_of
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


def widened(payload: Payload, widening: Widening) -> Payload:
    """`payload` for a matrix that is not widened yet."""
    return Widened(widening, payload) if widening.tables and not isinstance(payload, Prior) else payload


def read_widened(files: Mapping[str, bytes]) -> Widened:
    """The payload that `Widened.files` wrote."""
    stored = msgspec.json.decode(files[_FILE], type=_Stored)
    return Widened(stored.widening, payload_of(stored.inner, files))
