"""Rows of label files as labels: the prediction, the label, and since when it is known."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, tzinfo
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

import msgspec

from cumulant.core.errors import DataError, UsageError, did_you_mean
from cumulant.core.expr import Column, Node, columns
from cumulant.core.masking import is_masked, mask
from cumulant.core.plan import Field
from cumulant.core.servable import Task
from cumulant.core.units import EPOCH, from_micros, micros
from cumulant.data.spec import DateFormat, NumberFormat
from cumulant.outcomes.labels.target_values import UnreadableText, parse_number, parse_numbers, target_values
from cumulant.outcomes.prediction_refs import id_ref, key_ref
from cumulant.serving.prediction_log.personal_values import convert_value, typed_text

_ENCODE = msgspec.json.Encoder(enc_hook=str).encode
#: of a text that is kept of a row that cannot be used
_KEPT = 200
_ROLES = ("id", "row", "label", "known_time", "model", "weight", "time")
_ALIASES = {"id": ("id", "request_id", "prediction_id")}
#: before and after these moments Arrow and Python do not agree on what a time is
_EARLIEST, _LATEST = datetime(1900, 1, 1, tzinfo=UTC), datetime(9000, 1, 1, tzinfo=UTC)


class LabelSchema(msgspec.Struct, frozen=True, kw_only=True):
    """Properties of the labels' model. Without a task any bool, number or text is a label."""

    model: str = ""
    task: Task | None = None
    #: in the order of the model's outputs; of a binary model the second one is the positive class
    classes: tuple[str | int | bool, ...] = ()
    #: columns of the request that identify a prediction; none: labels name predictions by id only
    key: tuple[Field, ...] = ()
    #: the request's time column, and how much later the prediction is made for
    time: Field | None = None
    offset_us: int = 0
    #: what the model predicts, worked out of the labels' columns where they hold no column `label`
    target: Node | None = None
    #: how numbers in texts of the target's columns are written
    formats: Mapping[str, NumberFormat] = {}
    #: how the source writes times and dates of the key that are not ISO 8601
    date_formats: Mapping[str, DateFormat] = {}
    #: the source's column with the known time of the target, for labels without a column `known_time`
    known: Field | None = None


class LabelRow(NamedTuple):
    """One row, as a fact holds it."""

    ref: str
    model: str
    known_time: datetime
    label: str
    value: float | None
    weight: float
    id: str | None
    row: int | None
    key: str | None
    event_time: datetime | None
    problem: str


class LabelReader:
    """Reads rows of one file, or of one post.

    `names` maps parts to columns (`id`, `row`, `label`, `known_time`, `model`, `weight`, `time`).

    Raises:
        UsageError: `names` has a part that there is not.
    """

    def __init__(self, schema: LabelSchema, names: Mapping[str, str], salt: bytes, *, received: datetime) -> None:
        for part in names:
            if part not in _ROLES:
                raise UsageError(
                    f'"{part}" is no part of a label',
                    subject=part,
                    hint=did_you_mean(part, _ROLES) or f"parts: {', '.join(_ROLES)}",
                )
        self._schema, self._names, self._salt, self.received = schema, names, salt, received
        self._values = _lookup(schema)

    def check(self, names: Sequence[str], subject: str) -> None:
        """Refuse columns that cannot hold labels.

        Raises:
            DataError: no column names predictions, or none has the label.
        """
        known = set(names)
        missing = [column for column in self._names.values() if column not in known]
        if missing:
            raise DataError(
                f"{subject} has no column {missing[0]}",
                subject=subject,
                hint=did_you_mean(missing[0], known) or f"columns: {', '.join(sorted(known)[:12])}",
            )
        keyed = self._key_columns()
        if not any(name in known for name in self._id_columns()) and not (keyed and set(keyed) <= known):
            raise DataError(
                f"{subject} does not say which predictions its labels are for",
                subject=subject,
                hint=self._reference_hint(keyed),
            )
        target = self._schema.target
        if not self._label_column(known) and not (target is not None and set(columns(target)) <= known):
            wanted = "" if target is None else f", or {', '.join(sorted(columns(target)))}"
            raise DataError(
                f"{subject} has no column with the label",
                subject=subject,
                hint=f"it needs a column label{wanted}; `--map label=COLUMN` names it",
            )

    def read(self, rows: Sequence[object]) -> list[LabelRow]:
        """The label of each row, in the same order; `problem` is why a row cannot be used."""
        plain = [row if isinstance(row, dict) else {} for row in rows]
        known = {name for row in plain for name in row}
        column = self._label_column(known)
        labels = self._of_column([row.get(column) for row in plain]) if column else self._worked_out(plain)
        return [
            self._label_row(row, label) if isinstance(given, dict) else self._unusable("not a row", given)
            for given, row, label in zip(rows, plain, labels, strict=True)
        ]

    # --- parts of a row

    def _label_row(self, row: Mapping[str, Any], given: object) -> LabelRow:
        problem, label, value = self._label(given)
        known_time = self._known_time(row)
        if known_time is None:
            problem = problem or "unreadable time"
        request, place, key, when = self._reference(row)
        if request is not None and place is not None:
            ref = id_ref(request, place)
        elif key is not None and when is not None:
            ref = key_ref(key, when)
        else:
            ref, problem = "", problem or "names no prediction"
        weight = parse_number(row.get(self._names.get("weight", "weight"), 1.0))
        if weight is None or weight < 0:
            problem = problem or "wrong weight"
        return LabelRow(
            ref,
            _text(row.get(self._names.get("model", "model"))) or "",
            known_time or self.received,
            label,
            value,
            1.0 if weight is None else weight,
            request,
            place,
            key,
            when,
            problem,
        )

    def _reference(self, row: Mapping[str, Any]) -> tuple[str | None, int | None, str | None, datetime | None]:
        request = next((text for name in self._id_columns() if (text := _text(row.get(name)))), None)
        if request is not None:
            return request, _place(row.get(self._names.get("row", "row"), 0)), None, None
        key = self._key(row)
        moment = self._time(row.get(self._time_column() or ""), self._schema.time) if key is not None else None
        if moment is None or moment is self.received:
            return None, None, key, None
        return None, None, key, from_micros(micros(moment - EPOCH) + self._schema.offset_us)

    def _key(self, row: Mapping[str, Any]) -> str | None:
        if not self._schema.key or any(row.get(field.name) is None for field in self._schema.key):
            return None
        values = []
        for field in self._schema.key:
            given = row[field.name]
            if field.personal and is_masked(given):  # by the server that it was posted to
                values.append(str(given))
                continue
            value = convert_value(typed_text(self._in_format(given, field), field), field)
            values.append(mask(value, self._salt) if field.personal else str(value))
        return _ENCODE(values).decode()

    def _time(self, given: object, field: Field | None) -> datetime | None:
        """None where it cannot be read; the moment of receiving where it is missing."""
        if given is None or given == "":
            return self.received
        zone = ZoneInfo(field.zone) if field is not None and field.zone else UTC
        try:
            moment = read_moment(given if field is None else self._in_format(given, field), zone)
        except (ValueError, TypeError, OverflowError):
            return None
        return moment if _EARLIEST <= moment <= _LATEST else None

    def _known_time(self, row: Mapping[str, Any]) -> datetime | None:
        named, known = self._names.get("known_time", "known_time"), self._schema.known
        if known is not None and "known_time" not in self._names and named not in row:
            return self._time(row.get(known.name), known)
        return self._time(row.get(named), None)

    def _in_format(self, given: object, field: Field) -> object:
        """A text in the source's own format as a local time or date; anything else as it is."""
        form = self._schema.date_formats.get(field.name)
        if form is None or not isinstance(given, str):
            return given
        from cumulant.data.text import date_text  # loads Polars, which few label files need

        moment = date_text.read_one(given, form)
        if moment is None:
            return given
        return moment.date() if field.dtype == "date" else moment

    def _label(self, given: object) -> tuple[str, str, float | None]:
        """Problem, label as JSON, and its number."""
        if given is None or given == "" or (isinstance(given, float) and math.isnan(given)):
            return "no label", "null", None
        if isinstance(given, UnreadableText):
            return self._wrong(given)
        if self._schema.task == "regression":
            figure = parse_number(given)
            return ("", repr(figure), figure) if figure is not None else self._wrong(given)
        if self._values is not None:
            value = self._values.get(_canonical(given))
            return self._wrong(given) if value is None else ("", *value)
        return self._free(given)

    def _free(self, given: object) -> tuple[str, str, float | None]:
        if isinstance(given, str):
            given = parse_value(given)
            if isinstance(given, str) and given.lower() == "nan":  # how tables write that nothing is known
                return "no label", "null", None
        if isinstance(given, bool):
            return "", "true" if given else "false", float(given)
        if isinstance(given, int | float):
            figure = parse_number(given)
            return ("", _ENCODE(_whole(figure)).decode(), figure) if figure is not None else self._wrong(given)
        return ("", _ENCODE(given).decode(), None) if isinstance(given, str) else self._wrong(given)

    def _wrong(self, given: object) -> tuple[str, str, None]:
        return "wrong type", _ENCODE(str(given)[:_KEPT]).decode(), None

    def _unusable(self, problem: str, given: object) -> LabelRow:
        text = _ENCODE(str(given)[:_KEPT]).decode()
        return LabelRow("", "", self.received, text, None, 1.0, None, None, None, None, problem)

    # --- columns

    def _id_columns(self) -> Sequence[str]:
        return (self._names["id"],) if "id" in self._names else _ALIASES["id"]

    def _key_columns(self) -> list[str]:
        """The columns that name a prediction by its key; none where the schema has no key, or no time beside it."""
        time = self._time_column()
        return [*(field.name for field in self._schema.key), time] if self._schema.key and time else []

    def _reference_hint(self, keyed: Sequence[str]) -> str:
        timeless = bool(self._schema.key) and not keyed
        why = "this source has no event time, so a label names its prediction by id: " if timeless else ""
        by_key = f", or {', '.join(keyed)}" if keyed else ""
        return f"{why}it needs a column id{by_key}; `--map id=COLUMN` names it"

    def _time_column(self) -> str | None:
        return self._names.get("time") or (self._schema.time.name if self._schema.time else None)

    def _label_column(self, known: set[str]) -> str | None:
        if "label" in self._names:
            return self._names["label"]
        target = self._schema.target
        named = [target.name] if isinstance(target, Column) else []
        return next((name for name in ["label", *named] if name in known), None)

    def _of_column(self, values: Sequence[object]) -> list[object]:
        """The values of the label's column, texts in the format of the column that is the target."""
        target = self._schema.target
        return parse_numbers(values, self._schema.formats.get(target.name) if isinstance(target, Column) else None)

    def _worked_out(self, rows: Sequence[Mapping[str, Any]]) -> list[object]:
        """The target of each row, from its columns."""
        target = self._schema.target
        if target is None:
            return [None] * len(rows)
        return target_values(
            target,
            {
                name: parse_numbers([row.get(name) for row in rows], self._schema.formats.get(name))
                for name in sorted(columns(target))
            },
        )


def _lookup(schema: LabelSchema) -> dict[str, tuple[str, float | None]] | None:
    """By the text that a label may be written as: its JSON and number; None where any will do."""
    if schema.task not in ("binary", "multiclass") or not schema.classes:
        return None
    labels_by_text: dict[str, tuple[str, float | None]] = {}
    for place, label in enumerate(schema.classes):
        encoded = _ENCODE(label).decode(), float(place) if schema.task == "binary" else None
        labels_by_text[_canonical(label)] = encoded
        if isinstance(label, bool):
            labels_by_text[str(int(label))] = encoded
    return labels_by_text


def _canonical(value: object) -> str:
    """Numbers and truth values that mean the same have one text."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return value.lower() if value.lower() in ("true", "false") else value
    figure = parse_number(value)
    return str(value) if figure is None else str(_whole(figure))


def _whole(figure: float) -> float | int:
    return int(figure) if figure.is_integer() and abs(figure) < 2**53 else figure


def parse_value(text: str) -> str | bool | float:
    """The value of a text of a CSV file without a declared type: a truth value, a number, or itself."""
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    figure = parse_number(text)
    return text if figure is None else figure


def _text(value: object) -> str | None:
    if isinstance(value, str | int) and not isinstance(value, bool) and str(value):
        return str(value)[:1000]
    return None


def _place(value: object) -> int | None:
    figure = parse_number(0 if value in (None, "") else value)
    return int(figure) if figure is not None and figure.is_integer() and 0 <= figure < 2**31 else None


def read_moment(given: object, zone: tzinfo) -> datetime:
    """A time in ISO 8601, or as seconds since 1970; one without an offset is read in `zone`.

    Raises:
        ValueError, TypeError, OverflowError: it is none.
    """
    if isinstance(given, datetime):
        moment = given
    elif isinstance(given, date):
        moment = datetime(given.year, given.month, given.day)  # noqa: DTZ001 - the zone follows
    elif isinstance(given, int | float) and not isinstance(given, bool):
        return from_micros(round(given * 1_000_000))
    else:
        moment = datetime.fromisoformat(str(given))
    return (moment.replace(tzinfo=zone) if moment.tzinfo is None else moment).astimezone(UTC)
