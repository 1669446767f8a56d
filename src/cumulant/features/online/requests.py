"""Raw request fields to inside values: what JSON and Python callers send, by the type that the plan gives a field."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from types import NoneType
from typing import Any
from zoneinfo import ZoneInfo

from cumulant.core.errors import RequestError
from cumulant.core.plan import Field
from cumulant.core.units import EPOCH
from cumulant.features.online.scalars import DAY

_MICROSECOND = timedelta(microseconds=1)
#: from so many rows on it is faster to read column by column
_MANY = 8
#: types whose values a command line and JSON write as texts
TEXT_TYPES = frozenset({"str", "time", "date", "bytes"})
#: values of exactly these types are inside values already
_UNCHANGED: Mapping[str, type] = {"bool": bool, "float": float, "str": str, "bytes": bytes}


class RequestRows:
    """Rows of a request in their inside form, kept by row or by column."""

    def __init__(self, rows: list[dict[str, Any]] | None, columns: Mapping[str, list[Any]] | None = None) -> None:
        self._rows, self._columns = rows, columns

    def column(self, name: str) -> list[Any]:
        """The values of a field."""
        return [row[name] for row in self._rows or ()] if self._columns is None else self._columns[name]

    def all(self) -> list[dict[str, Any]]:
        """The rows."""
        if self._rows is None:
            self._rows = _rows_of(self._columns or {})
        return self._rows

    def take(self, places: Sequence[int]) -> RequestRows:
        """The rows at these places."""
        rows = self.all()
        return RequestRows([rows[at] for at in places])


class RequestReader:
    """Reads the plan's request fields from a row; other entries of the row are left alone.

    Absent fields, None and NaN are null. Whole numbers may come as 5.0, true and false as numbers where a number is
    expected. Times come as datetime or ISO 8601 text; without an offset they are read in the field's zone, a repeated
    hour as its first occurrence, a skipped one as null.
    """

    def __init__(self, fields: Sequence[Field]) -> None:
        self._fields = [
            (field.name, _reader(field), _UNCHANGED.get(field.dtype), field.dtype == "time") for field in fields
        ]

    def read(self, row: Mapping[str, object]) -> dict[str, Any]:
        """Inside values by name: None, bool, int, float, str; times in microseconds, dates in days.

        Raises:
            RequestError: a value is not of the field's type; names the field.
        """
        values: dict[str, Any] = {}
        for name, reader, unchanged, is_time in self._fields:
            value = row.get(name)
            if value is None or (isinstance(value, float) and not math.isfinite(value)):
                values[name] = None
            elif type(value) is unchanged:
                values[name] = value
            elif is_time and type(value) is datetime and value.tzinfo is UTC:
                values[name] = (value - EPOCH) // _MICROSECOND
            else:
                try:
                    values[name] = reader(value)
                except (ValueError, TypeError, OverflowError):
                    raise _type_error(name, value, reader) from None
        return values

    def read_all(self, rows: Sequence[Mapping[str, object]]) -> RequestRows:
        """As `read` of each row; faster where a field has values of one type, or few different times."""
        if len(rows) < _MANY or not self._fields:
            return RequestRows([self.read(row) for row in rows])
        return RequestRows(None, self._read_columns(rows))

    def _read_columns(self, rows: Sequence[Mapping[str, object]]) -> dict[str, list[Any]]:
        columns = {}
        for name, reader, unchanged, is_time in self._fields:
            column: list[Any] = [row.get(name) for row in rows]
            if is_time and all(type(value) is datetime and value.tzinfo is UTC for value in column):
                column = [(value - EPOCH) // _MICROSECOND for value in column]
            elif is_time and {datetime, str, NoneType}.issuperset(map(type, column)):
                # Times of a repeated hour are equal, and differ in their fold.
                keys = [(value, getattr(value, "fold", 0)) for value in column]
                moments = {key: self.read({name: key[0]})[name] for key in dict.fromkeys(keys)}
                column = [moments[key] for key in keys]
            elif not _are_inside(column, unchanged or (int if reader is _int else None)):
                read = [self.read(row) for row in rows]
                return {name: [row[name] for row in read] for name, *_ in self._fields}
            columns[name] = column
        return columns


def _rows_of(columns: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def _are_inside(values: Sequence[Any], kind: type | None) -> bool:
    """Whether all are inside values of this type, or null."""
    kinds = {*map(type, values)}
    if NoneType in kinds:
        kinds.remove(NoneType)
        values = [value for value in values if value is not None]
    if not kinds:
        return True
    if kinds != {kind}:
        return False
    if kind is int:
        return -(2**63) <= int(min(values)) <= int(max(values)) < 2**63
    return kind is not float or all(map(math.isfinite, values))


def _type_error(name: str, value: object, reader: Callable[[object], object]) -> RequestError:
    text = (reader.__doc__ or "").strip()
    wanted = text[:1].lower() + text[1:]
    return RequestError(f'"{name}" takes {wanted}, not {type(value).__name__}', subject=name)


def _reader(field: Field) -> Callable[[object], Any]:
    if field.dtype == "time":
        return _time_reader(ZoneInfo(field.zone or "UTC"))
    return {"bool": _bool, "int": _int, "float": _float, "str": _str, "date": _date, "bytes": _bytes}[field.dtype]


def _bool(value: object) -> bool:
    """True or false"""
    if isinstance(value, bool) or (isinstance(value, int | float) and value in {0, 1}):
        return bool(value)
    raise TypeError


def _int(value: object) -> int:
    """A whole number of 64 bits"""
    if not isinstance(value, int | float) or value != int(value) or not -(2**63) <= value < 2**63:
        raise TypeError
    return int(value)


def _float(value: object) -> float:
    """A number"""
    if not isinstance(value, int | float):
        raise TypeError
    return float(value)


def _str(value: object) -> str:
    """Text"""
    if not isinstance(value, str):
        raise TypeError
    return value


def _bytes(value: object) -> bytes:
    """Bytes"""
    if not isinstance(value, bytes):
        raise TypeError
    return value


def _date(value: object) -> int:
    """A date as 2013-04-01"""
    if isinstance(value, datetime):
        raise TypeError
    day = value if isinstance(value, date) else date.fromisoformat(_str(value))
    return day.toordinal() - EPOCH.toordinal()


def _time_reader(zone: ZoneInfo) -> Callable[[object], int | None]:
    def reader(value: object) -> int | None:
        """A time as 2013-04-01T06:00:00Z"""
        if isinstance(value, date) and not isinstance(value, datetime):
            value = datetime(value.year, value.month, value.day)  # noqa: DTZ001  (read in the field's zone below)
        moment = value if isinstance(value, datetime) else datetime.fromisoformat(_str(value))
        if moment.tzinfo is None:
            local = moment.replace(tzinfo=zone, fold=0)
            moment = local.astimezone(UTC)
            if moment.astimezone(zone).replace(tzinfo=None) != local.replace(tzinfo=None):
                return None
        return (moment - EPOCH) // _MICROSECOND

    return reader


def python_converter(dtype: str) -> Callable[[Any], Any] | None:
    """Conversion of inside values that are not None to Python values: times to datetime in UTC, dates to date."""
    match dtype:
        case "time":
            return lambda micros: EPOCH + timedelta(microseconds=micros)
        case "date":
            return lambda days: EPOCH.date() + timedelta(microseconds=days * DAY)
        case "bool":
            return bool
        case _:
            return None


def as_written(field: Field, value: object) -> object:
    """A value of a command line, which is text, as the column's type reads it."""
    if not isinstance(value, str) or field.dtype in TEXT_TYPES:
        return value
    try:
        return {"true": True, "false": False}[value] if field.dtype == "bool" else _number(value)
    except (ValueError, KeyError):
        return value  # the reader refuses it by name


def _number(text: str) -> int | float:
    return int(text) if text.lstrip("-").isdigit() else float(text)
