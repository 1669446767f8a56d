"""Masking of personal values: only keyed hashes of them are written to disk."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, date, datetime
from zoneinfo import ZoneInfo

import msgspec

from cumulant.core.masking import mask
from cumulant.core.plan import Field
from cumulant.core.servable import GraphServable, Servable
from cumulant.core.units import from_micros

_ENCODE = msgspec.json.Encoder(enc_hook=str).encode


def personal_fields(servable: Servable | GraphServable) -> list[Field]:
    """Personal fields of a servable's requests, including optional ones such as the key of a row.

    Graphs declare none.
    """
    if not isinstance(servable, Servable):
        return []
    plan = servable.plan
    source = plan.sources.get(plan.entity)
    fields = {field.name: field for field in (*(() if source is None else source.fields), *plan.request)}
    return [field for field in fields.values() if field.personal]


class PersonalValueMask:
    """Replaces personal values by the keyed hashes that joins use: `mask` of the value as a frame holds it."""

    def __init__(self, key: bytes, models: Mapping[str, Iterable[Field]] | None = None) -> None:
        self._key = key
        self._models: dict[str, dict[str, Field]] = {}
        for model, fields in (models or {}).items():
            self.describe(model, fields)

    def describe(self, model: str, fields: Iterable[Field]) -> None:
        """Add personal fields of a model; those of its other versions stay masked."""
        self._models.setdefault(model, {}).update({field.name: field for field in fields})

    def of(self, model: str) -> Callable[[dict[str, object]], None] | None:
        """Function that masks a row's personal values in place; None where the model has none."""
        fields = self._models.get(model)
        if fields is None:
            return self._hide_all
        return (lambda row: self._hide(row, fields)) if fields else None

    def _hide(self, row: dict[str, object], fields: Mapping[str, Field]) -> None:
        for name in fields.keys() & row.keys():
            row[name] = self._hidden(row[name], fields[name])

    def _hide_all(self, row: dict[str, object]) -> None:
        """Mask every value of a row, for models whose fields are unknown."""
        for name, value in row.items():
            row[name] = self._hidden(value, None)

    def _hidden(self, value: object, field: Field | None) -> str | None:
        if isinstance(value, msgspec.Raw):
            value = msgspec.json.decode(value)
        if value is None:
            return None
        if isinstance(value, dict | list):
            return mask(_ENCODE(value).decode(), self._key)
        return mask(value if field is None else convert_value(value, field), self._key)


def typed_text(value: object, field: Field) -> object:
    """A CSV file's text as the number or truth value that the field holds."""
    if not isinstance(value, str):
        return value
    if field.dtype in ("int", "float"):
        try:
            return int(value) if field.dtype == "int" else float(value)
        except ValueError:
            return value
    return {"true": True, "false": False}.get(value.lower(), value) if field.dtype == "bool" else value


def convert_value(value: object, field: Field) -> object:
    """A value in the type of its source, so that equal values have equal hashes; unchanged where it cannot be."""
    convert = _CONVERT.get(field.dtype)
    try:
        return value if convert is None else convert(value, field)
    except (TypeError, ValueError, OverflowError):
        return value


def _int(value: object, _: Field) -> int:
    if not isinstance(value, int | float) or value != int(value):
        raise TypeError
    return int(value)


def _float(value: object, _: Field) -> float:
    if not isinstance(value, int | float):
        raise TypeError
    return float(value)


def _bool(value: object, _: Field) -> bool:
    if value not in (0, 1):
        raise ValueError
    return bool(value)


def _date(value: object, _: Field) -> date:
    return date.fromisoformat(str(value))


def _time(value: object, field: Field) -> datetime:
    if isinstance(value, int | float):
        return from_micros(round(value * 1_000_000))
    moment = datetime.fromisoformat(str(value))
    local = moment if moment.tzinfo is not None else moment.replace(tzinfo=ZoneInfo(field.zone or "UTC"))
    return local.astimezone(UTC)


_CONVERT: dict[str, Callable[[object, Field], object]] = {
    "bool": _bool,
    "int": _int,
    "float": _float,
    "date": _date,
    "time": _time,
}
