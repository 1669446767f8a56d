"""Kinds of JSON values: which of them a field may have, by the declaration and by earlier messages."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, NamedTuple

import msgspec
import polars as pl

from cumulant.core.plan import DType
from cumulant.data.spec import RuleSpec, SourceSpec
from cumulant.data.text.casts import EPOCH, POLARS

Kind = Literal["text", "number", "bool"]
_KINDS: Mapping[type, Kind] = {bool: "bool", int: "number", float: "number", str: "text"}
_ALL: tuple[Kind, ...] = ("text", "number", "bool")
_EARLIER: Mapping[DType, Kind] = {"bool": "bool", "int": "number", "float": "number"}
#: the types of JSON values
OF_JSON: tuple[DType, ...] = ("bool", "int", "float", "str")
_LOW, _HIGH = -(1 << 63), (1 << 63) - 1
_START = datetime(1970, 1, 1, tzinfo=UTC)


class Reading(NamedTuple):
    """How a field is read. `kinds`: those that it may have; `texts`: others become text in each message, and not only
    where a batch has several; `times`: numbers are seconds or milliseconds since 1970; `fractions`: numbers beyond 64
    bits are read as fractions.
    """

    kinds: tuple[Kind, ...]
    texts: bool = False
    times: bool = False
    fractions: bool = False


def count_kinds(values: Iterable[Any]) -> Counter[Kind]:
    """How many plain values there are of each kind."""
    counts = Counter[Kind]()
    for own, count in Counter(map(type, values)).items():
        if own in _KINDS:
            counts[_KINDS[own]] += count
    return counts


def reading_of(name: str, spec: SourceSpec, known: Mapping[str, DType], counts: Counter[Kind]) -> Reading:
    """How a field is read. `counts`: the kinds that it has in messages of this batch, which decide only for a field
    that neither the declaration nor an earlier batch types.
    """
    rule = spec.rules.get(name, RuleSpec())
    declared = _declared(name, rule, spec, known.get(name))
    if declared is not None:
        return declared
    choice = _allowed(name, rule, spec)
    if len(choice) == 1:
        return _reading(choice[0], known.get(name))
    if name in known and (kind := _EARLIER.get(known[name], "text")) in choice:
        return _reading(kind, known[name])
    return _reading(max(choice, key=lambda kind: counts[kind]), None)


def _reading(kind: Kind, known: DType | None) -> Reading:
    return Reading(_ALL, texts=True) if kind == "text" else Reading((kind,), fractions=known == "float")


def _declared(name: str, rule: RuleSpec, spec: SourceSpec, known: DType | None) -> Reading | None:
    """How the declaration says that a field is read; None: it does not."""
    if rule.number_format is not None or rule.date_format is not None:
        return Reading(("text",))
    if name in {*spec.known_times, *([spec.time.column] if spec.time else [])} or rule.type == "time":
        return Reading(("text", "number"), times=True)
    if rule.type in ("str", "bool"):
        return Reading(_ALL, texts=rule.type == "str")
    if rule.type is not None:
        kinds: tuple[Kind, ...] = ("text", "number") if rule.type in ("int", "float") else ("text",)
        return Reading(kinds, fractions=rule.type == "float")
    if rule.min is None and rule.max is None:
        return None
    return Reading(("text", "number"), fractions=known == "float") if has_numeric_limits(rule) else Reading(("text",))


def has_numeric_limits(rule: RuleSpec) -> bool:
    """Whether a column has limits, which are numbers."""
    limits = [limit for limit in (rule.min, rule.max) if limit is not None]
    return bool(limits) and all(not isinstance(limit, str) or _is_number(limit) for limit in limits)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _allowed(name: str, rule: RuleSpec, spec: SourceSpec) -> tuple[Kind, ...]:
    """The kinds with which the values that the declaration lists can be compared."""
    if (
        spec.deleted is not None
        and spec.deleted.column == name
        and any(isinstance(value, str) for value in spec.deleted.values)
    ):
        return ("text",)
    if not rule.in_:
        return _ALL
    if all(isinstance(member, bool) for member in rule.in_):
        return ("bool",)
    numbers = all(isinstance(member, int | float) and not isinstance(member, bool) for member in rule.in_)
    return ("text", "number") if numbers else ("text",)


def stored_type(name: str, dtype: pl.DataType, spec: SourceSpec, known: Mapping[str, DType]) -> pl.DataType:
    """The type of a column with which its limits and members can be compared, where a batch has only nulls or whole
    numbers there.
    """
    rule = spec.rules.get(name)
    if rule is None:
        return POLARS[known[name]] if dtype == pl.Null() and known.get(name) in OF_JSON else dtype
    if rule.type is not None or rule.number_format is not None or rule.date_format is not None:
        return dtype
    if dtype == pl.Int64() and any(isinstance(member, float) for member in rule.in_ or ()):
        return pl.Float64()
    if dtype != pl.Null():
        return dtype
    allowed = _allowed(name, rule, spec)
    if has_numeric_limits(rule) or (allowed == ("text", "number") and known.get(name) != "str"):
        return pl.Float64()
    return pl.Boolean() if allowed == ("bool",) else dtype


def may_have_faults(values: Sequence[Any], reading: Reading) -> bool:
    """Whether one of these plain values may have a fault; most columns have none, which is quick to see."""
    types = set(map(type, values)) - {type(None)}
    if any(_KINDS[own] not in reading.kinds for own in types):
        return True
    if reading.texts or types.isdisjoint((int, float)):
        return False
    return reading.times or any(type(value) is int and not _LOW <= value <= _HIGH for value in values)


def fault_of(value: Any, reading: Reading) -> str | None:
    """What keeps a plain value from being read: `kind`, or `type` for a number that no column can hold."""
    kind = _KINDS[type(value)]
    if kind not in reading.kinds:
        return "kind"
    if kind != "number" or reading.texts:
        return None
    if reading.times:
        low, high = EPOCH
        return None if low <= value <= high or low * 1000 <= value <= high * 1000 else "type"
    if type(value) is int and not _LOW <= value <= _HIGH and not (reading.fractions and _is_fraction(value)):
        return "type"
    return None


def _is_fraction(value: int) -> bool:
    try:
        float(value)
    except OverflowError:
        return False
    return True


def column_of(name: str, values: list[Any], places: Sequence[int], height: int, reading: Reading) -> pl.Series:
    """Values without a fault, in these of `height` rows, as a column of the type that JSON gives them."""
    types = {type(value) for value in values}
    types.discard(type(None))
    dtype: pl.DataType = pl.Null()
    if types == {bool} and not reading.texts:
        dtype = pl.Boolean()
    elif types and types <= {int, float} and not reading.texts:
        whole = float not in types and all(value is None or _LOW <= value <= _HIGH for value in values)
        dtype = pl.Int64() if whole else pl.Float64()
        values = values if whole else [None if value is None else float(value) for value in values]
    elif types:
        dtype = pl.String()
        if types != {str}:
            values = [_as_text(value, reading) for value in values]
    if len(values) == height:
        return pl.Series(name, values, dtype)
    every: list[Any] = [None] * height
    for place, value in zip(places, values, strict=True):
        every[place] = value
    return pl.Series(name, every, dtype)


def _as_text(value: Any, reading: Reading) -> str | None:
    if value is None or isinstance(value, str):
        return value
    if reading.times:  # a number among texts is the same time as one alone
        micros = round(value * (1_000_000 if value <= EPOCH[1] else 1000))
        return (_START + timedelta(microseconds=micros)).isoformat()
    if type(value) is int or (type(value) is float and not math.isfinite(value)):  # which JSON has no word for
        return str(value)
    return msgspec.json.encode(value).decode()
