"""References of many predictions by their keys: the values are turned into texts column by column."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from cumulant.core.masking import HIDDEN
from cumulant.core.plan import Field
from cumulant.outcomes.labels import BY_KEY, HELD, SEPARATOR, held_text

_ENCODE = msgspec.json.Encoder().encode


def key_refs(
    columns: Sequence[Sequence[object]], fields: Sequence[Field], times: Iterable[int | None]
) -> list[str | None]:
    """The references by the key of many predictions; null where a part of the key or the time is missing.

    Args:
        columns: the values of each of `fields` as the log holds them: personal ones are hashed.
        fields: the key.
        times: microseconds since 1970.
    """
    texts = [_texts(column, field) for column, field in zip(columns, fields, strict=True)]
    if not texts:
        return [None for _ in times]
    return [
        None if when is None or None in row else f"{BY_KEY}{when}{SEPARATOR}{_ENCODE(row).decode()}"
        for row, when in zip(zip(*texts, strict=True), times, strict=True)
    ]


def _texts(column: Sequence[object], field: Field) -> list[str | None]:
    """As `held_text`; null where there is no value or one that is hidden without a hash."""
    kind = str if field.personal else HELD.get(field.dtype)
    if set(map(type, column)) == {kind} and HIDDEN not in column:  # as almost all are
        return list(map(str, column))
    return [None if value is None or value == HIDDEN else held_text(value, field) for value in column]
