"""References by which labels name predictions: id, key and moment, or all fields of the request.

Of many predictions the values of keys are turned into texts column by column.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

import msgspec

from cumulant.core.masking import HIDDEN, mask
from cumulant.core.plan import Field
from cumulant.core.units import EPOCH, micros
from cumulant.serving.prediction_log.personal_values import convert_value

_ENCODE = msgspec.json.Encoder().encode
#: between the parts of a reference
SEPARATOR = "\x1f"
#: how a reference begins that names a prediction by its key and moment
BY_KEY = f"k{SEPARATOR}"
#: the same, by its id
BY_ID = f"i{SEPARATOR}"
#: values that a frame of the source holds as they are, by the type of their column
SOURCE_TYPES: Mapping[str, type] = {"str": str, "int": int, "float": float, "bool": bool}


def id_ref(request: str, row: int) -> str:
    """The reference of a prediction by its id."""
    return f"{BY_ID}{row}{SEPARATOR}{request}"


def key_ref(key: str, event_time: datetime) -> str:
    """As `id_ref`, for a prediction that is named by its key and moment."""
    return f"{BY_KEY}{micros(event_time - EPOCH)}{SEPARATOR}{key}"


def request_ref(row: Mapping[str, object], fields: Sequence[Field], event_time: datetime, salt: bytes) -> str | None:
    """As `key_ref`, by all `fields` of the request, for requests that do not hold the key; one may have no value.

    None where a value is hidden without a hash. It names the fields, in the order of their names; their values stand
    in it as a keyed hash.
    """
    ordered = sorted(fields, key=lambda field: field.name)
    if (texts := _row_texts(row, ordered)) is None:
        return None
    named = _ENCODE([field.name for field in ordered]).decode()
    return f"r{SEPARATOR}{micros(event_time - EPOCH)}{SEPARATOR}{named}{SEPARATOR}{mask(_ENCODE(texts).decode(), salt)}"


def _row_texts(row: Mapping[str, object], fields: Sequence[Field]) -> list[str | None] | None:
    """The values of a logged request, None where there is none; None in all where a value could be anyone's, as it is
    hidden without a hash, or where there are no fields.
    """
    values = [row.get(field.name) for field in fields]
    if not fields or HIDDEN in values:
        return None
    return [None if value is None else source_text(value, field) for value, field in zip(values, fields, strict=True)]


def source_text(value: object, field: Field) -> str:
    """The text of a value as a frame of the source holds it; personal ones are texts already."""
    if field.personal or type(value) is SOURCE_TYPES.get(field.dtype):  # as almost all are
        return str(value)
    return str(convert_value(value, field))


def request_ref_fields(ref: str) -> tuple[str, ...] | None:
    """The fields that a reference of `request_ref` names; None for one by a key."""
    parts = ref.split(SEPARATOR)
    return tuple(msgspec.json.decode(parts[2])) if parts[0] == "r" else None


def key_refs(
    columns: Sequence[Sequence[object]], fields: Sequence[Field], times: Iterable[int | None]
) -> list[str | None]:
    """The references by the key of many predictions; null where a part of the key or the time is missing.

    Args:
        columns: the values of each of `fields` as the log holds them: personal ones are hashed.
        fields: the key.
        times: microseconds since 1970.
    """
    texts = [_column_texts(column, field) for column, field in zip(columns, fields, strict=True)]
    if not texts:
        return [None for _ in times]
    return [
        None if when is None or None in row else f"{BY_KEY}{when}{SEPARATOR}{_ENCODE(row).decode()}"
        for row, when in zip(zip(*texts, strict=True), times, strict=True)
    ]


def _column_texts(column: Sequence[object], field: Field) -> list[str | None]:
    """As `source_text`; null where there is no value or one that is hidden without a hash."""
    kind = str if field.personal else SOURCE_TYPES.get(field.dtype)
    if set(map(type, column)) == {kind} and HIDDEN not in column:  # as almost all are
        return list(map(str, column))
    return [None if value is None or value == HIDDEN else source_text(value, field) for value in column]
