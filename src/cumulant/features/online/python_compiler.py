"""The expression tree compiled to Python closures: the server's form of every operator. Standard library only.

Held to the cases of `testing.expressions` together with `polars_compiler`. Inside, times are microseconds and dates
days since 1970 UTC, so a closure sees only None, bool, int, float and str.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any, cast
from zoneinfo import ZoneInfo

from cumulant.core.expr import Call, Column, Feature, Literal, Moment, Node
from cumulant.core.units import EPOCH
from cumulant.features.definition.dtypes import BLANKS, Kind, Options, leaf_kind, result_kind, unify
from cumulant.features.online.scalars import DAY, finite, float_of, int_of, truncate, whole

#: A value inside: None, bool, int, float or str. Its type is settled when the tree is compiled.
Value = Any
Row = Mapping[str, Value]
Evaluate = Callable[[Row, Row], Value]
_YEARS_1_TO_9999 = (-62_135_596_800_000_000, 253_402_300_799_999_999)


def compile_node(node: Node, columns: Mapping[str, Kind], features: Mapping[str, Kind] | None = None) -> Evaluate:
    """`node` as a function of a row's columns and features, both in their inside form.

    `node` is taken as `dtypes.resolve` leaves it.

    Raises:
        DefinitionError: a name or type does not fit.
    """
    return _visit(node, columns, features or {})[0]


def _visit(node: Node, columns: Mapping[str, Kind], features: Mapping[str, Kind]) -> tuple[Evaluate, Kind]:
    if isinstance(node, Call):
        visited = [_visit(argument, columns, features) for argument in node.args]
        args, kinds = [evaluate for evaluate, _ in visited], [kind for _, kind in visited]
        kind = result_kind(node.op, kinds, node.options)
        return _OPERATORS[node.op](args, kinds, node.options, kind), kind
    kind = leaf_kind(node, columns, features)
    return _leaf(node), kind


def _leaf(node: Node) -> Evaluate:
    if isinstance(node, Column):
        name = node.name
        return lambda columns, _features: columns[name]
    if isinstance(node, Feature):
        name = node.name
        return lambda _columns, features: features[name]
    value = node.micros if isinstance(node, Moment) else cast("Literal", node).value
    if isinstance(value, float) and not math.isfinite(value):
        value = None
    return lambda _columns, _features: value


Compiled = Callable[[list[Evaluate], list[Kind], Options, Kind], Evaluate]


def _convert(evaluate: Evaluate, kind: Kind, wanted: Kind) -> Evaluate:
    """A value of one kind as another that it fits into."""
    if kind in {wanted, "null"}:
        return evaluate
    convert: Callable[[Value], Value]
    if wanted == "float":
        convert = float
    elif wanted == "int":
        convert = int
    else:  # a date as its midnight
        convert = DAY.__mul__

    def converted(columns: Row, features: Row) -> Value:
        value = evaluate(columns, features)
        return None if value is None else convert(value)

    return converted


def _apply1(function: Callable[[Value], Value], a: Evaluate) -> Evaluate:
    """A function of one value that gives null on null."""

    def applied(columns: Row, features: Row) -> Value:
        x = a(columns, features)
        return None if x is None else function(x)

    return applied


def _apply2(function: Callable[[Value, Value], Value], a: Evaluate, b: Evaluate) -> Evaluate:
    """A function of two values that gives null on null."""

    def applied(columns: Row, features: Row) -> Value:
        x = a(columns, features)
        if x is None:
            return None
        y = b(columns, features)
        return None if y is None else function(x, y)

    return applied


def _numeric(floats: Callable[..., Value], ints: Callable[..., Value] | None = None) -> Compiled:
    """One or two numbers as the result's kind."""

    def compiled(args: list[Evaluate], kinds: list[Kind], _options: Options, kind: Kind) -> Evaluate:
        converted = [_convert(arg, k, kind) for arg, k in zip(args, kinds, strict=True)]
        function = floats if kind == "float" or ints is None else ints
        if len(converted) == 1:
            return _apply1(function, converted[0])
        return _apply2(function, converted[0], converted[1])

    return compiled


def _guarded(function: Callable[..., float]) -> Callable[..., float | None]:
    """A mathematical function that gives null where it is not defined or too large."""

    def guarded(*values: float) -> float | None:
        try:
            return finite(function(*values))
        except (ValueError, OverflowError, ZeroDivisionError):
            return None

    return guarded


def _floordiv(a: float, b: float) -> float | None:
    return _floor(a / b) if b != 0 else None


def _floor(a: float) -> float | None:
    return float(math.floor(a)) if math.isfinite(a) else None


def _mod(a: float, b: float) -> float | None:
    quotient = _floordiv(a, b)
    return None if quotient is None else finite(a - b * quotient)


def _int_floordiv(a: int, b: int) -> int | None:
    return whole(a // b) if b else None


def _int_mod(a: int, b: int) -> int | None:
    return a % b if b else None


def _round(args: list[Evaluate], kinds: list[Kind], options: Options, kind: Kind) -> Evaluate:
    value = _convert(args[0], kinds[0], kind)
    if kind == "int":
        return value
    scale = 10.0 ** cast("int", options.get("digits", 0))

    def rounded(x: float) -> float | None:
        scaled = x * scale
        return finite(round(scaled) / scale) if math.isfinite(scaled) else None

    return _apply1(rounded, value)


def _clip(args: list[Evaluate], kinds: list[Kind], options: Options, kind: Kind) -> Evaluate:
    number = float if kind == "float" else int
    low = number(cast("float", options["min"])) if "min" in options else None
    high = number(cast("float", options["max"])) if "max" in options else None

    def clipped(x: float) -> float:
        if low is not None and x < low:
            return low
        return high if high is not None and x > high else x

    return _apply1(clipped, _convert(args[0], kinds[0], kind))


def _extreme(function: Callable[[list[Value]], Value]) -> Compiled:
    def compiled(args: list[Evaluate], kinds: list[Kind], _options: Options, kind: Kind) -> Evaluate:
        converted = [_convert(arg, k, kind) for arg, k in zip(args, kinds, strict=True)]

        def extreme(columns: Row, features: Row) -> Value:
            values = [evaluate(columns, features) for evaluate in converted]
            return None if None in values else function(values)

        return extreme

    return compiled


def _compare(function: Callable[[Value, Value], bool]) -> Compiled:
    def compiled(args: list[Evaluate], kinds: list[Kind], _options: Options, _kind: Kind) -> Evaluate:
        common = unify(kinds)
        assert common is not None
        a, b = (_convert(arg, k, common) for arg, k in zip(args, kinds, strict=True))
        return _apply2(function, a, b)

    return compiled


def _logic(decisive: bool) -> Compiled:
    """Kleene `or` (decided by true) and `and` (decided by false)."""

    def compiled(args: list[Evaluate], _kinds: list[Kind], _options: Options, _kind: Kind) -> Evaluate:
        a, b = args

        def logic(columns: Row, features: Row) -> Value:
            x = a(columns, features)
            if x is decisive:
                return decisive
            y = b(columns, features)
            if y is decisive:
                return decisive
            return None if x is None or y is None else not decisive

        return logic

    return compiled


def _is_in(args: list[Evaluate], kinds: list[Kind], options: Options, _kind: Kind) -> Evaluate:
    members = list(cast("list[Value]", options["members"]))
    floats = kinds[0] == "float" or any(isinstance(member, float) for member in members)
    known = {float(member) for member in members} if floats else set(members)
    value = _convert(args[0], kinds[0], "float") if floats else args[0]
    return _apply1(known.__contains__, value)


def _is_null(args: list[Evaluate], _kinds: list[Kind], _options: Options, _kind: Kind) -> Evaluate:
    value = args[0]
    return lambda columns, features: value(columns, features) is None


def _coalesce(args: list[Evaluate], kinds: list[Kind], _options: Options, kind: Kind) -> Evaluate:
    converted = [_convert(arg, k, kind) for arg, k in zip(args, kinds, strict=True)]

    def coalesced(columns: Row, features: Row) -> Value:
        for evaluate in converted:
            value = evaluate(columns, features)
            if value is not None:
                return value
        return None

    return coalesced


def _when(args: list[Evaluate], kinds: list[Kind], _options: Options, kind: Kind) -> Evaluate:
    condition, then, other = args[0], _convert(args[1], kinds[1], kind), _convert(args[2], kinds[2], kind)

    def chosen(columns: Row, features: Row) -> Value:
        return then(columns, features) if condition(columns, features) else other(columns, features)

    return chosen


def _text(function: Callable[..., Value], *names: str) -> Compiled:
    """A function of a text and the options `names`."""

    def compiled(args: list[Evaluate], _kinds: list[Kind], options: Options, _kind: Kind) -> Evaluate:
        given = [options[name] for name in names]
        return _apply1(lambda text: function(text, *given), args[0])

    return compiled


def _slice(text: str, start: int, length: int) -> str:
    if start < 0:
        start += len(text)
    return text[max(start, 0) : max(start + length, 0)]


def _concat(args: list[Evaluate], _kinds: list[Kind], options: Options, _kind: Kind) -> Evaluate:
    separator = cast("str", options.get("separator", ""))

    def joined(columns: Row, features: Row) -> Value:
        texts = [evaluate(columns, features) for evaluate in args]
        return None if None in texts else separator.join(texts)

    return joined


def _calendar(function: Callable[[datetime], int]) -> Compiled:
    """A part of a time in a zone, of the years 1 to 9999. A date has no zone: its parts are its own."""

    def compiled(args: list[Evaluate], kinds: list[Kind], options: Options, _kind: Kind) -> Evaluate:
        is_date = kinds[0] == "date"
        zone = ZoneInfo("UTC" if is_date else cast("str", options.get("zone", "UTC")))
        value = _convert(args[0], kinds[0], "time")
        first, last = _YEARS_1_TO_9999

        def part(columns: Row, features: Row) -> int | None:
            micros = value(columns, features)
            if micros is None or not first <= micros <= last:
                return None
            try:
                local = (EPOCH + timedelta(microseconds=micros)).astimezone(zone)
            except OverflowError:
                return None
            return function(local)

        return part

    return compiled


def _seconds(args: list[Evaluate], kinds: list[Kind], _options: Options, _kind: Kind) -> Evaluate:
    a, b = (_convert(arg, k, "time") for arg, k in zip(args, kinds, strict=True))
    return _apply2(lambda later, earlier: float(later - earlier) / 1e6, a, b)


def _shift(args: list[Evaluate], kinds: list[Kind], options: Options, _kind: Kind) -> Evaluate:
    by = cast("int", options["micros"])
    return _apply1(lambda value: whole(value + by), _convert(args[0], kinds[0], "time"))


def _cast(args: list[Evaluate], kinds: list[Kind], options: Options, _kind: Kind) -> Evaluate:
    to, kind = cast("Kind", options["to"]), kinds[0]
    if kind in {to, "null"}:
        return args[0]
    functions: dict[tuple[Kind, Kind], Callable[[Value], Value]] = {
        ("str", "int"): int_of,
        ("str", "float"): float_of,
        ("float", "int"): truncate,
        ("bool", "int"): int,
        ("int", "float"): float,
        ("bool", "float"): float,
        ("int", "bool"): bool,
        ("float", "bool"): bool,
        ("int", "str"): str,
        ("bool", "str"): lambda value: "true" if value else "false",
    }
    return _apply1(functions[kind, to], args[0])


_OPERATORS: dict[str, Compiled] = {
    "add": _numeric(lambda a, b: finite(a + b), lambda a, b: whole(a + b)),
    "sub": _numeric(lambda a, b: finite(a - b), lambda a, b: whole(a - b)),
    "mul": _numeric(lambda a, b: finite(a * b), lambda a, b: whole(a * b)),
    "div": _numeric(_guarded(lambda a, b: a / b)),
    "floordiv": _numeric(_floordiv, _int_floordiv),
    "mod": _numeric(_mod, _int_mod),
    "pow": _numeric(_guarded(math.pow)),
    "neg": _numeric(lambda a: -a, lambda a: whole(-a)),
    "abs": _numeric(abs, lambda a: whole(abs(a))),
    "sqrt": _numeric(_guarded(math.sqrt)),
    "log": _numeric(_guarded(math.log)),
    "log1p": _numeric(_guarded(math.log1p)),
    "exp": _numeric(_guarded(math.exp)),
    "round": _round,
    "floor": _numeric(_floor, int),
    "ceil": _numeric(lambda a: float(math.ceil(a)), int),
    "clip": _clip,
    "min": _extreme(min),
    "max": _extreme(max),
    "eq": _compare(lambda a, b: a == b),
    "ne": _compare(lambda a, b: a != b),
    "lt": _compare(lambda a, b: a < b),
    "le": _compare(lambda a, b: a <= b),
    "gt": _compare(lambda a, b: a > b),
    "ge": _compare(lambda a, b: a >= b),
    "and": _logic(decisive=False),
    "or": _logic(decisive=True),
    "not": _text(lambda value: not value),
    "is_in": _is_in,
    "is_null": _is_null,
    "fill_null": _coalesce,
    "coalesce": _coalesce,
    "when": _when,
    "lower": _text(str.lower),
    "upper": _text(str.upper),
    "strip": _text(lambda text: text.strip(BLANKS)),
    "length": _text(len),
    "contains": _text(lambda text, part: part in text, "text"),
    "starts_with": _text(str.startswith, "text"),
    "ends_with": _text(str.endswith, "text"),
    "slice": _text(_slice, "start", "length"),
    "concat": _concat,
    "hour": _calendar(lambda local: local.hour),
    "minute": _calendar(lambda local: local.minute),
    "weekday": _calendar(datetime.isoweekday),
    "day": _calendar(lambda local: local.day),
    "month": _calendar(lambda local: local.month),
    "year": _calendar(lambda local: local.year),
    "day_of_year": _calendar(lambda local: local.timetuple().tm_yday),
    "week": _calendar(lambda local: local.isocalendar().week),
    "seconds_between": _seconds,
    "shift": _shift,
    "cast": _cast,
}
