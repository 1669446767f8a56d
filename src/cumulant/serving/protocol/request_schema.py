"""Request schema: checks the raw fields of a row and converts them to the plan's types."""

from __future__ import annotations

import binascii
import math
from base64 import b64decode
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from difflib import get_close_matches
from typing import TypeVar
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec

from cumulant.core.errors import DefinitionError, RequestError, did_you_mean, join_names
from cumulant.core.plan import FeaturePlan, Field, Source
from cumulant.core.servable import Unread
from cumulant.core.units import EPOCH

Check = Callable[[object], object]
Item = TypeVar("Item")
_INT64 = 2**63
#: values of exactly these types need no check
_UNCHANGED: Mapping[str, type] = {"bool": bool, "str": str}
#: names that one message lists
NAMED = 10


#: warning text by the reason why a column is not needed
_UNREAD: Mapping[Unread, str] = {
    "late": "is not known at the moment of prediction",
    "target": "is what the model predicts",
    "unused": "is not read by the model",
}


class RequestSchema:
    """Checks rows against the request fields of a plan. Columns in `unread` are ignored, with a warning.

    A nullable field may be left out or null. So may fields that no feature of the row itself needs, but by which the
    row enters the windows of later rows: its key, its event time, and what windows read that comes with it.

    Times are ISO 8601 text or a number of seconds since 1970 UTC; text without an offset is read in the field's zone
    (else UTC). Dates are ISO 8601 text, bytes are base64.
    Errors never repeat values of personal fields.
    """

    def __init__(self, plan: FeaturePlan, unread: Mapping[str, Unread] | None = None) -> None:
        self.unread: Mapping[str, Unread] = unread or {}
        moment = plan.predict_at.column if plan.predict_at else None
        required = [f.name for f in plan.request if not f.nullable or f.name == moment]
        self._checking((*plan.request, *_fields_beside(plan)), required)

    def _checking(self, fields: Sequence[Field], required: Sequence[str]) -> None:
        self.fields: dict[str, Field] = {field.name: field for field in fields}
        self.required = tuple(required)
        self._checks = {field.name: (_check(field), _UNCHANGED.get(field.dtype)) for field in fields}
        self._empty: dict[str, object] = dict.fromkeys(self.fields)

    def rows(self, raw: Sequence[object]) -> list[dict[str, object]]:
        """Every row with every field, in the plan's types; times are UTC datetimes.

        Raises:
            RequestError: the first row with a fault; names its fields with values of another type.
        """
        if len(raw) == 1:
            return [self.row(raw[0])]
        return [self.row(row, f"row {number}: ") for number, row in enumerate(raw, 1)]

    def warnings(self, names: Collection[str]) -> tuple[str, ...]:
        """Warnings for ignored columns, one sentence per column."""
        return tuple(
            f"{name} {_UNREAD[why]} and was ignored; leave it out" for name, why in self.unread.items() if name in names
        )

    def row(self, raw: object, where: str = "") -> dict[str, object]:
        """As `rows`, of one row; errors begin with `where`."""
        if not isinstance(raw, dict):
            raise RequestError(f"{where}expected an object with the fields of one row, got {_kind(raw)}")
        values = self._empty.copy()
        checks = self._checks
        ignored = 0
        for name, value in raw.items():
            field = checks.get(name)
            if field is None:
                if name not in self.unread:
                    raise self._unknown(raw, where)
                ignored += 1
                continue
            check, unchanged = field
            if type(value) is unchanged:
                values[name] = value
            elif value is not None:
                try:
                    values[name] = check(value)
                except ValueError:
                    raise self._invalid(raw, where) from None
        missing = [name for name in self.required if values[name] is None]
        if missing:
            raise missing_fields(missing, raw, where)
        if ignored == len(raw) and self.fields:
            hint = f"expected fields: {', '.join(self.fields)}"
            raise RequestError(f"{where}the row has none of the model's fields", hint=hint)
        return values

    def _unknown(self, row: Mapping[str, object], where: str) -> RequestError:
        names = [name for name in row if name not in self.fields and name not in self.unread]
        if len(names) == 1:
            near = did_you_mean(names[0], self.fields)
        else:
            close = ((name, get_close_matches(name, self.fields, n=1)) for name in names[:NAMED])
            proposals = ", ".join(f'"{matches[0]}" for "{name[:100]}"' for name, matches in close if matches)
            near = f"did you mean {proposals}?" if proposals else None
        are = "is no field" if len(names) == 1 else "are no fields"
        hint = near or f"known fields: {', '.join(self.fields)}"
        return RequestError(f"{where}there {are} {quoted(names)}", subject=names[0][:100], hint=hint)

    def _invalid(self, row: Mapping[str, object], where: str) -> RequestError:
        """The error of a row with a value that its field does not take: it names each such field."""

        def check(name: str) -> None:
            value = row[name]
            try:
                self._checks[name][0](value)
            except ValueError as error:
                got = _kind(value) if self.fields[name].personal else f"{_kind(value)} {short_text(value)}".strip()
                raise RequestError(f'field "{name}" must be {error}, got {got}', subject=name) from None

        return first_errors(check, (name for name in row if name in self.fields and row[name] is not None), where)


def _fields_beside(plan: FeaturePlan) -> list[Field]:
    """Optional fields of the predicted source's rows, where windows read that source."""
    measures = (spec.window or spec.lookup for spec in plan.features)
    if all(measure is None or measure.source != plan.entity for measure in measures):
        return []
    source, requested = plan.sources[plan.entity], {field.name for field in plan.request}
    names = fields_with_row(source) - requested
    return [msgspec.structs.replace(field, nullable=True) for field in source.fields if field.name in names]


def fields_with_row(source: Source) -> set[str]:
    """Fields of a source that are known when a row begins; the others become known later."""
    later = set(source.known) | {known.column for known in source.known.values()}
    return {field.name for field in source.fields} - later


class SourceSchema(RequestSchema):
    """Checks rows that are posted to a source: all of `fields` but its key may be absent."""

    def __init__(self, fields: Sequence[Field], key: Sequence[str]) -> None:
        self.unread = {}
        self._checking(fields, key)


def first_errors(check: Callable[[Item], object], items: Iterable[Item], where: str = "") -> RequestError:
    """One error for the items, some of which `check` refuses by a RequestError: the first ten, begun by `where`."""
    messages: list[str] = []
    subject = hint = None
    for item in items:
        try:
            check(item)
        except RequestError as error:  # not kept: its traceback would keep this frame, and with it the body
            if not messages:
                subject, hint = error.subject, error.hint
            messages.append(error.message)
        if len(messages) > NAMED:
            break
    more = "; and more" if len(messages) > NAMED else ""
    return RequestError(f"{where}{'; '.join(messages[:NAMED])}{more}", subject=subject, hint=hint)


def missing_fields(names: Sequence[str], row: Mapping[str, object], where: str) -> RequestError:
    """The error for a row in which the required fields `names` are absent or null: all of them, in one sentence."""
    absent = [name for name in names if name not in row]
    null = [name for name in names if name in row]
    problems = [f"{_fields(absent)} required"] if absent else []
    problems += [f"{_fields(null, 'must not be')} null"] if null else []
    return RequestError(f"{where}{'; '.join(problems)}", subject=names[0][:100])


def _fields(names: Sequence[str], verb: str = "") -> str:
    noun, are = ("field", "is") if len(names) == 1 else ("fields", "are")
    return f"{noun} {quoted(names)} {verb or are}"


def quoted(names: Sequence[str]) -> str:
    """Quoted names, each cut to 100 characters, with the number of further ones."""
    return join_names([f'"{name[:100]}"' for name in names], NAMED)


def _kind(value: object) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "a boolean"
        case int() | float():
            return "the number"
        case str():
            return "the text"
        case list():
            return "a list"
        case _:
            return "an object"


def short_text(value: object) -> str:
    """Short text of a scalar for a message; empty for other values."""
    if isinstance(value, (list, dict, bool)) or value is None:
        return ""
    text = repr(value) if isinstance(value, str) else str(value)
    return text if len(text) <= 40 else f"{text[:37]}..."


def _check(field: Field) -> Check:
    if field.dtype == "time":
        return _time(_zone(field))
    checks: Mapping[str, Check] = {
        "bool": _bool,
        "int": _int,
        "float": _float,
        "str": _str,
        "date": _date,
        "bytes": _bytes,
    }
    return checks[field.dtype]


def _zone(field: Field) -> ZoneInfo | None:
    if field.zone is None or field.zone == "UTC":
        return None
    try:
        return ZoneInfo(field.zone)
    except (ZoneInfoNotFoundError, ValueError):
        hint = "install the package tzdata, or correct the zone"
        raise DefinitionError(f'field {field.name} has an unknown zone "{field.zone}"', hint=hint) from None


def _bool(value: object) -> bool:
    if value is True or value is False:
        return value
    raise ValueError("true or false")


def _int(value: object) -> int:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool) and -_INT64 <= value < _INT64:
        return value
    raise ValueError("a whole number of 64 bits")


def _float(value: object) -> float:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        try:
            number = float(value)
        except OverflowError:
            number = math.inf
        if math.isfinite(number):
            return number
    raise ValueError("a finite number")


def _str(value: object) -> str:
    if isinstance(value, str):
        return value
    raise ValueError("text")


def _date(value: object) -> date:
    if isinstance(value, str):
        try:
            return date.fromisoformat(value)
        except ValueError:
            pass
    raise ValueError("a date such as 2013-04-01")


def _bytes(value: object) -> bytes:
    if isinstance(value, str):
        try:
            return b64decode(value, validate=True)
        except (binascii.Error, ValueError):
            pass
    raise ValueError("base64 text")


def _time(zone: ZoneInfo | None) -> Check:
    clock_time = f" or a clock time of {zone.key}" if zone else ""
    expected = f"a time such as 2013-04-01T06:00:00Z{clock_time}, or seconds since 1970"

    def check(value: object) -> datetime:
        try:
            if isinstance(value, str):
                when = datetime.fromisoformat(value)
                moment = when.astimezone(UTC) if when.tzinfo else _first_moment(when, zone)
            elif isinstance(value, (int, float)) and not isinstance(value, bool):
                moment = EPOCH + timedelta(seconds=value)
            else:
                moment = None
        except (ValueError, OverflowError):
            raise ValueError(expected) from None
        if moment is None:
            if zone is None or not isinstance(value, str):
                raise ValueError(expected)
            raise ValueError(f"a time with an offset: clocks of {zone.key} skip this one when they are put forward")
        return moment

    return check


def _first_moment(when: datetime, zone: ZoneInfo | None) -> datetime | None:
    """The moment of a clock time, of a repeated hour the first one; None of a time that the clocks skip."""
    moment = when.replace(tzinfo=zone or UTC, fold=0).astimezone(UTC)
    if zone is None or moment.astimezone(zone).replace(tzinfo=None, fold=0) == when.replace(fold=0):
        return moment
    return None
