"""How much memory the rows of a training take, by measured bytes a row."""

from __future__ import annotations

from collections.abc import Sequence

from cumulant.core.plan import DType

#: bytes of a value in a column of a frame
_VALUE, _TEXT = 9, 24
#: of a row beside its columns: target, moments, position
_ROW = 40
#: a training's rows are held twice: as they were read, and as those of the training and of the test
_COPIES = 2
#: of a value of the encoded matrix, with the part of it that is fitted on
_ENCODED = 8


def training_need(rows: int, features: Sequence[DType], columns: int) -> int:
    """Bytes that `rows` rows take with features of these types and `columns` further columns of their source, once
    they are encoded. What a trainer makes of them comes on top.
    """
    held = sum(_TEXT if kind == "str" else _VALUE for kind in features)
    row = _COPIES * (held + _ROW) + columns * _VALUE + _ENCODED * len(features)
    return rows * row
