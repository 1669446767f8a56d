"""The expression tree compiled to Polars; cases of `testing.expressions` check it together with `python_compiler`.

Each operator refers to its arguments once (`_let`), so that the expression's size does not grow with depth.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import cast

import polars as pl

from cumulant.core.expr import Call, Column, Feature, Literal, Moment, Node
from cumulant.core.plan import DType
from cumulant.data.text.zones import to_local, to_utc
from cumulant.features.definition.dtypes import (
    BLANKS,
    FLOAT_TEXT,
    INT_TEXT,
    Kind,
    Options,
    leaf_kind,
    resolve,
    result_kind,
    unify,
)

TIME = pl.Datetime("us", "UTC")
#: the Polars type that each column type has inside
TYPES: dict[Kind, pl.DataType | type[pl.DataType]] = {
    "bool": pl.Boolean,
    "int": pl.Int64,
    "float": pl.Float64,
    "str": pl.String,
    "time": TIME,
    "date": pl.Date,
    "bytes": pl.Binary,
    "null": pl.Null,
}


def kind_of(dtype: pl.DataType) -> DType:
    """The column type of a Polars type; a naive time counts as UTC, a category as text."""
    if dtype.is_integer():
        return "int"
    if dtype.is_float() or dtype.is_decimal():
        return "float"
    named: list[tuple[type[pl.DataType], DType]] = [
        (pl.Boolean, "bool"),
        (pl.Datetime, "time"),
        (pl.Date, "date"),
        (pl.Binary, "bytes"),
    ]
    return next((kind for base, kind in named if dtype == base or isinstance(dtype, base)), "str")


def canonical(column: pl.Expr, dtype: pl.DataType, kind: Kind, zone: str | None = None) -> pl.Expr:
    """A raw column of type `dtype` in its inside type: no NaN or infinity, times in UTC microseconds, plain text.

    A naive time or date is in `zone` (default UTC): of a repeated hour the first, a skipped one is null.
    """
    wanted = TYPES[kind]
    if dtype == wanted and kind != "float":
        return column
    if kind == "float":
        value = column.cast(pl.Float64)
        return pl.when(value.is_finite()).then(value)  # `finite` takes Polars a millisecond a column
    if kind == "time" and isinstance(dtype, (pl.Datetime, pl.Date)):
        if isinstance(dtype, pl.Date) or dtype.time_zone is None:
            return to_utc(column, zone or "UTC")
        return column.dt.convert_time_zone("UTC").cast(TIME)
    return column.cast(wanted, strict=False)


def finite(value: pl.Expr) -> pl.Expr:
    """`value`, null where it is NaN or infinite."""
    return _let([value], lambda v: pl.when(v.is_finite()).then(v))


def _let(values: Sequence[pl.Expr], body: Callable[..., pl.Expr]) -> pl.Expr:
    """`body` of values that it may use more than once, while each is computed once."""
    names = [f"v{i}" for i in range(len(values))]
    bound = pl.struct(value.alias(name) for name, value in zip(names, values, strict=True))
    result = body(*(pl.field(name) for name in names)).alias("r")
    return bound.struct.with_fields(result).struct.field("r")


def expression(
    node: Node,
    columns: Mapping[str, Kind],
    features: Mapping[str, Kind] | None = None,
    *,
    column: Callable[[str], pl.Expr] = pl.col,
) -> pl.Expr:
    """A resolved `node` as a Polars expression over columns in their inside types (`canonical`), made by `column`.

    Raises:
        DefinitionError: a name or type does not fit.
    """
    return _Compiler(columns, features or {}, column).visit(node)[0]


def evaluate(node: Node, frame: pl.DataFrame) -> pl.Series:
    """The values of `node` over the rows of `frame`, whose own types decide.

    Raises:
        DefinitionError: a column does not exist, or an operator does not take its arguments.
    """
    kinds: dict[str, Kind] = {name: kind_of(dtype) for name, dtype in frame.schema.items()}
    resolved, kind = resolve(node, kinds)
    value = expression(resolved, kinds, column=lambda name: canonical(pl.col(name), frame[name].dtype, kinds[name]))
    if kind != "null":
        value = value.cast(TYPES[kind])
    column = frame.select(value.alias("value"))["value"]
    return column if len(column) == frame.height else column.new_from_index(0, frame.height)


class _Compiler:
    def __init__(
        self,
        columns: Mapping[str, Kind],
        features: Mapping[str, Kind],
        column: Callable[[str], pl.Expr],
    ) -> None:
        self._columns = columns
        self._features = features
        self._column = column

    def visit(self, node: Node) -> tuple[pl.Expr, Kind]:
        if isinstance(node, Call):
            visited = [self.visit(argument) for argument in node.args]
            args, kinds = [expr for expr, _ in visited], [kind for _, kind in visited]
            kind = result_kind(node.op, kinds, node.options)
            return _OPERATORS[node.op](args, kinds, node.options, kind), kind
        kind = leaf_kind(node, self._columns, self._features)
        if isinstance(node, Column):
            return self._column(node.name), kind
        if isinstance(node, Feature):
            return pl.col(node.name), kind
        if isinstance(node, Moment):
            return pl.lit(node.micros, dtype=pl.Int64).cast(TIME), kind
        return _literal(node, kind), kind


def _literal(node: Literal, kind: Kind) -> pl.Expr:
    value = pl.lit(node.value, dtype=None if kind == "null" else TYPES[kind])
    return finite(value) if kind == "float" else value


def _as(value: pl.Expr, kind: Kind, wanted: Kind) -> pl.Expr:
    """`value` of one kind as another that it fits into."""
    if kind == wanted:
        return value
    return value.cast(TIME if wanted == "time" else TYPES[wanted])


Compiled = Callable[[list[pl.Expr], list[Kind], Options, Kind], pl.Expr]


def _numeric(function: Callable[..., pl.Expr]) -> Compiled:
    """Arguments as the result's kind; a float result that is not finite is null."""

    def compiled(args: list[pl.Expr], kinds: list[Kind], _options: Options, kind: Kind) -> pl.Expr:
        value = function(*(_as(arg, k, kind) for arg, k in zip(args, kinds, strict=True)))
        return finite(value) if kind == "float" else value

    return compiled


def _checked(function: Callable[..., pl.Expr]) -> Compiled:
    """As `_numeric`; a whole result that does not fit 64 bits is null."""

    def compiled(args: list[pl.Expr], kinds: list[Kind], options: Options, kind: Kind) -> pl.Expr:
        if kind == "float":
            return _numeric(function)(args, kinds, options, kind)
        wide = (arg.cast(pl.Int128) for arg in args)
        return function(*wide).cast(pl.Int64, strict=False)

    return compiled


def _whole(function: Callable[[pl.Expr], pl.Expr]) -> Compiled:
    """Rounding of floats; whole numbers stay as they are."""

    def compiled(args: list[pl.Expr], kinds: list[Kind], _options: Options, kind: Kind) -> pl.Expr:
        value = _as(args[0], kinds[0], kind)
        return function(value) if kind == "float" else value

    return compiled


def _common(function: Callable[..., pl.Expr]) -> Compiled:
    """Arguments as the one kind that all fit into."""

    def compiled(args: list[pl.Expr], kinds: list[Kind], _options: Options, _kind: Kind) -> pl.Expr:
        common = unify(kinds)
        assert common is not None
        return function(*(_as(arg, k, common) for arg, k in zip(args, kinds, strict=True)))

    return compiled


def _ordered(function: Callable[[pl.Expr, pl.Expr], pl.Expr]) -> Compiled:
    return _common(function)


def _plain(function: Callable[[pl.Expr, Options], pl.Expr], kind: Kind) -> Compiled:
    """One argument, taken as `kind`, and options."""

    def compiled(args: list[pl.Expr], kinds: list[Kind], options: Options, _kind: Kind) -> pl.Expr:
        return function(_as(args[0], kinds[0], kind), options)

    return compiled


def _calendar(function: Callable[[pl.Expr], pl.Expr]) -> Compiled:
    """A part of a time in a zone. A date has no zone: its parts are its own."""

    def compiled(args: list[pl.Expr], kinds: list[Kind], options: Options, _kind: Kind) -> pl.Expr:
        value = _as(args[0], kinds[0], "time") if kinds[0] == "null" else args[0]
        if kinds[0] == "time":
            value = to_local(value, cast("str", options.get("zone", "UTC")))
        return function(value).cast(pl.Int64)

    return compiled


def _quotient(a: pl.Expr, b: pl.Expr) -> pl.Expr:
    """Correctly rounded: by a bare constant, Polars multiplies with its reciprocal, so that 29 / 10 is not 2.9."""
    return _let([a, b], lambda x, y: x / y)


def _floordiv(a: pl.Expr, b: pl.Expr) -> pl.Expr:
    return a // b


def _mod(args: list[pl.Expr], kinds: list[Kind], _options: Options, kind: Kind) -> pl.Expr:
    a, b = (_as(arg, k, kind) for arg, k in zip(args, kinds, strict=True))
    if kind == "int":
        return a % b
    return finite(_let([a, b], lambda x, y: x - y * (x / y).floor()))


def _round(args: list[pl.Expr], kinds: list[Kind], options: Options, kind: Kind) -> pl.Expr:
    if kind == "int":
        return _as(args[0], kinds[0], "int")
    scale = 10.0 ** cast("int", options.get("digits", 0))
    whole = (_as(args[0], kinds[0], "float") * scale).round(0, mode="half_to_even")
    return finite(_quotient(whole, pl.lit(scale)))


def _clip(args: list[pl.Expr], kinds: list[Kind], options: Options, kind: Kind) -> pl.Expr:
    bounds = {name: pl.lit(options[name], dtype=TYPES[kind]) for name in ("min", "max") if name in options}
    return _as(args[0], kinds[0], kind).clip(bounds.get("min"), bounds.get("max"))


def _extreme(function: Callable[[list[pl.Expr]], pl.Expr]) -> Compiled:
    def compiled(args: list[pl.Expr], kinds: list[Kind], _options: Options, kind: Kind) -> pl.Expr:
        values = [_as(arg, k, kind) for arg, k in zip(args, kinds, strict=True)]

        def body(*bound: pl.Expr) -> pl.Expr:
            return pl.when(pl.all_horizontal(*(b.is_not_null() for b in bound))).then(function(list(bound)))

        return _let(values, body)

    return compiled


def _is_in(args: list[pl.Expr], kinds: list[Kind], options: Options, _kind: Kind) -> pl.Expr:
    members = list(cast("list[bool | int | float | str]", options["members"]))
    if kinds[0] == "null" or not members:
        return args[0].cast(pl.Boolean) if kinds[0] == "null" else pl.when(args[0].is_not_null()).then(pl.lit(False))  # noqa: FBT003
    numeric = kinds[0] in {"int", "float"} or any(isinstance(m, int | float) for m in members)
    wanted: Kind = kinds[0]
    if numeric:
        whole = kinds[0] != "float" and not any(isinstance(m, float) for m in members)
        wanted = "int" if whole else "float"
    return _as(args[0], kinds[0], wanted).is_in(pl.Series(members, dtype=TYPES[wanted], strict=False).implode())


def _when(args: list[pl.Expr], kinds: list[Kind], _options: Options, kind: Kind) -> pl.Expr:
    condition = _as(args[0], kinds[0], "bool")
    return pl.when(condition).then(_as(args[1], kinds[1], kind)).otherwise(_as(args[2], kinds[2], kind))


def _coalesce(args: list[pl.Expr], kinds: list[Kind], _options: Options, kind: Kind) -> pl.Expr:
    return pl.coalesce(*(_as(arg, k, kind) for arg, k in zip(args, kinds, strict=True)))


def _concat(args: list[pl.Expr], kinds: list[Kind], options: Options, _kind: Kind) -> pl.Expr:
    texts = [_as(arg, k, "str") for arg, k in zip(args, kinds, strict=True)]
    return pl.concat_str(texts, separator=cast("str", options.get("separator", "")))


def _seconds(args: list[pl.Expr], kinds: list[Kind], _options: Options, _kind: Kind) -> pl.Expr:
    later, earlier = (_as(arg, k, "time").cast(pl.Int64) for arg, k in zip(args, kinds, strict=True))
    return _quotient((later.cast(pl.Int128) - earlier.cast(pl.Int128)).cast(pl.Float64), pl.lit(1e6))


def _shift(args: list[pl.Expr], kinds: list[Kind], options: Options, _kind: Kind) -> pl.Expr:
    wide = _as(args[0], kinds[0], "time").cast(pl.Int64).cast(pl.Int128)
    return (wide + pl.lit(options["micros"], dtype=pl.Int128)).cast(pl.Int64, strict=False).cast(TIME)


def _cast(args: list[pl.Expr], kinds: list[Kind], options: Options, _kind: Kind) -> pl.Expr:
    to, (value,), (kind,) = cast("Kind", options["to"]), args, kinds
    if kind == "null":
        return value.cast(TYPES[to])
    if kind == "str" and to in {"int", "float"}:
        return _number_of(value.str.strip_chars(BLANKS), to)
    if kind == "float" and to == "int":
        return value.cast(pl.Int64, strict=False)
    if to == "bool" and kind != "bool":
        return value != 0
    return value.cast(TYPES[to])


def _number_of(text: pl.Expr, to: Kind) -> pl.Expr:
    def as_float(v: pl.Expr) -> pl.Expr:
        return pl.when(v.str.contains(FLOAT_TEXT)).then(v).cast(pl.Float64, strict=False)

    def as_int(v: pl.Expr) -> pl.Expr:
        whole = v.cast(pl.Int64, strict=False)
        return pl.when(v.str.contains(INT_TEXT)).then(whole).otherwise(as_float(v).cast(pl.Int64, strict=False))

    return _let([text], as_int) if to == "int" else finite(_let([text], as_float))


_OPERATORS: dict[str, Compiled] = {
    "add": _checked(lambda a, b: a + b),
    "sub": _checked(lambda a, b: a - b),
    "mul": _checked(lambda a, b: a * b),
    "div": _numeric(_quotient),
    "floordiv": lambda args, kinds, options, kind: (
        _numeric(lambda a, b: _quotient(a, b).floor())(args, kinds, options, kind)
        if kind == "float"
        else _checked(_floordiv)(args, kinds, options, kind)
    ),
    "mod": _mod,
    "pow": _numeric(lambda a, b: a.pow(b)),
    "neg": _checked(lambda a: a * -1),  # a 128-bit number has no negation of its own
    "abs": _checked(lambda a: a.abs()),
    "sqrt": _numeric(lambda a: a.sqrt()),
    "log": _numeric(lambda a: a.log()),
    "log1p": _numeric(lambda a: a.log1p()),
    "exp": _numeric(lambda a: a.exp()),
    "round": _round,
    "floor": _whole(lambda a: a.floor()),
    "ceil": _whole(lambda a: a.ceil()),
    "clip": _clip,
    "min": _extreme(lambda values: pl.min_horizontal(*values)),
    "max": _extreme(lambda values: pl.max_horizontal(*values)),
    "eq": _ordered(lambda a, b: a == b),
    "ne": _ordered(lambda a, b: a != b),
    "lt": _ordered(lambda a, b: a < b),
    "le": _ordered(lambda a, b: a <= b),
    "gt": _ordered(lambda a, b: a > b),
    "ge": _ordered(lambda a, b: a >= b),
    "and": _common(lambda a, b: a.cast(pl.Boolean) & b.cast(pl.Boolean)),
    "or": _common(lambda a, b: a.cast(pl.Boolean) | b.cast(pl.Boolean)),
    "not": _plain(lambda a, _: ~a, "bool"),
    "is_in": _is_in,
    "is_null": lambda args, _kinds, _options, _kind: args[0].is_null(),
    "fill_null": _coalesce,
    "coalesce": _coalesce,
    "when": _when,
    "lower": _plain(lambda a, _: a.str.to_lowercase(), "str"),
    "upper": _plain(lambda a, _: a.str.to_uppercase(), "str"),
    "strip": _plain(lambda a, _: a.str.strip_chars(BLANKS), "str"),
    "length": _plain(lambda a, _: a.str.len_chars().cast(pl.Int64), "str"),
    "contains": _plain(lambda a, o: a.str.contains(cast("str", o["text"]), literal=True), "str"),
    "starts_with": _plain(lambda a, o: a.str.starts_with(cast("str", o["text"])), "str"),
    "ends_with": _plain(lambda a, o: a.str.ends_with(cast("str", o["text"])), "str"),
    "slice": _plain(lambda a, o: a.str.slice(cast("int", o["start"]), cast("int", o["length"])), "str"),
    "concat": _concat,
    "hour": _calendar(lambda a: a.dt.hour()),
    "minute": _calendar(lambda a: a.dt.minute()),
    "weekday": _calendar(lambda a: a.dt.weekday()),
    "day": _calendar(lambda a: a.dt.day()),
    "month": _calendar(lambda a: a.dt.month()),
    "year": _calendar(lambda a: a.dt.year()),
    "day_of_year": _calendar(lambda a: a.dt.ordinal_day()),
    "week": _calendar(lambda a: a.dt.week()),
    "seconds_between": _seconds,
    "shift": _shift,
    "cast": _cast,
}
