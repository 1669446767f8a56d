"""The expression tree as Spark SQL; cases of `testing.expressions` check it together with the other compilers.

Each operator refers to its arguments once (`let`), so that the text does not grow with depth. Whole results that do not
fit 64 bits, divisions by zero and texts that are no number give null, where ANSI mode alone would end the query.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import cast

from cumulant.core.expr import Call, Column, Feature, Moment, Node
from cumulant.features.definition.dtypes import (
    BLANKS,
    FLOAT_TEXT,
    INT_TEXT,
    Kind,
    Options,
    leaf_kind,
    result_kind,
    unify,
)
from cumulant.features.spark.sql_text import DAY_US, TYPES, constant, finite, let, name, null, text

#: from here on every float is whole
_WHOLE = "CAST('4503599627370496' AS DOUBLE)"
_LEAST = "CAST('-9223372036854775808' AS BIGINT)"
_INT_TEXT = text(INT_TEXT)
_FLOAT_TEXT = text(FLOAT_TEXT)


def expression(
    node: Node,
    columns: Mapping[str, Kind],
    features: Mapping[str, Kind] | None = None,
    *,
    column: Callable[[str], str] = name,
) -> tuple[str, Kind]:
    """A resolved `node` as text, over columns and features in their types inside of a query, and its kind.

    Raises:
        DefinitionError: a name or type does not fit.
    """
    if isinstance(node, Call):
        visited = [expression(argument, columns, features, column=column) for argument in node.args]
        args, kinds = [arg for arg, _ in visited], [kind for _, kind in visited]
        kind = result_kind(node.op, kinds, node.options)
        return _OPERATORS[node.op](args, kinds, node.options, kind), kind
    kind = leaf_kind(node, columns, features or {})
    if isinstance(node, Column):
        return column(node.name), kind
    if isinstance(node, Feature):
        return name(node.name), kind
    if isinstance(node, Moment):
        return constant(node.micros, "int"), kind
    return constant(node.value, kind), kind


def convert(value: str, kind: Kind, wanted: Kind) -> str:
    """`value` of one kind as another that it fits into."""
    if kind == wanted:
        return value
    if kind == "null":
        return null(wanted)
    if kind == "date" and wanted == "time":
        return f"({value} * {DAY_US}L)"
    return f"CAST({value} AS {TYPES[wanted]})"


Compiled = Callable[[list[str], list[Kind], Options, Kind], str]


def _numeric(form: str) -> Compiled:
    """Arguments as the result's kind; a float result that is not finite is null."""

    def compiled(args: list[str], kinds: list[Kind], _options: Options, kind: Kind) -> str:
        value = form.format(*(convert(arg, k, kind) for arg, k in zip(args, kinds, strict=True)))
        return finite(value) if kind == "float" else value

    return compiled


def _by_kind(whole: str, real: str) -> Compiled:
    """One form for whole numbers, one for floats. Over several uses of an argument, `v.a` and `v.b` stand for them."""

    def compiled(args: list[str], kinds: list[Kind], _options: Options, kind: Kind) -> str:
        values = [convert(arg, k, kind) for arg, k in zip(args, kinds, strict=True)]
        form = real if kind == "float" else whole
        value = let(values, form) if "v.a" in form else form.format(*values)
        return finite(value) if kind == "float" else value

    return compiled


def _common(form: str) -> Compiled:
    """Arguments as the one kind that all fit into."""

    def compiled(args: list[str], kinds: list[Kind], _options: Options, _kind: Kind) -> str:
        common = unify(kinds)
        assert common is not None
        # of nulls alone, whose type compares with nothing
        wanted: Kind = "bool" if common == "null" else common
        return form.format(*(convert(arg, k, wanted) for arg, k in zip(args, kinds, strict=True)))

    return compiled


def _plain(form: str, kind: Kind, *options: str) -> Compiled:
    """One argument, taken as `kind`, and options."""

    def compiled(args: list[str], kinds: list[Kind], given: Options, _kind: Kind) -> str:
        return form.format(convert(args[0], kinds[0], kind), *(text(cast("str", given[option])) for option in options))

    return compiled


def _calendar(form: str) -> Compiled:
    """A part of a time in a zone. A date has no zone: its parts are its own."""

    def compiled(args: list[str], kinds: list[Kind], options: Options, _kind: Kind) -> str:
        if kinds[0] == "date":
            value = f"date_from_unix_date(CAST({args[0]} AS INT))"
        else:
            zone = text(cast("str", options.get("zone", "UTC")))
            value = f"from_utc_timestamp(timestamp_micros({convert(args[0], kinds[0], 'time')}), {zone})"
        return f"CAST({form.format(value)} AS BIGINT)"

    return compiled


def _rounded_down(value: str, function: str = "floor") -> str:
    """Of a float; the function alone gives a whole number, which may not hold it."""
    return let([value], f"CASE WHEN abs(v.a) >= {_WHOLE} THEN v.a ELSE CAST({function}(v.a) AS DOUBLE) END")


def _whole(function: str) -> Compiled:
    """Rounding of floats; whole numbers stay as they are."""

    def compiled(args: list[str], kinds: list[Kind], _options: Options, kind: Kind) -> str:
        value = convert(args[0], kinds[0], kind)
        return _rounded_down(value, function) if kind == "float" else value

    return compiled


def _round(args: list[str], kinds: list[Kind], options: Options, kind: Kind) -> str:
    value = convert(args[0], kinds[0], kind)
    if kind == "int":
        return value
    scale = constant(10.0 ** cast("int", options.get("digits", 0)), "float")
    return finite(f"(rint({value} * {scale}) / {scale})")


def _floordiv(args: list[str], kinds: list[Kind], _options: Options, kind: Kind) -> str:
    a, b = (convert(arg, k, kind) for arg, k in zip(args, kinds, strict=True))
    if kind == "float":
        return finite(_rounded_down(f"try_divide({a}, {b})"))
    down = "CASE WHEN v.a % v.b != 0L AND (v.a < 0L) != (v.b < 0L) THEN 1L ELSE 0L END"
    impossible = f"v.a IS NULL OR v.b IS NULL OR v.b = 0L OR (v.b = -1L AND v.a = {_LEAST})"
    return let([a, b], f"CASE WHEN {impossible} THEN CAST(NULL AS BIGINT) ELSE (v.a div v.b) - {down} END")


def _mod(args: list[str], kinds: list[Kind], _options: Options, kind: Kind) -> str:
    a, b = (convert(arg, k, kind) for arg, k in zip(args, kinds, strict=True))
    if kind == "float":
        return finite(let([a, b], f"v.a - v.b * {_rounded_down('try_divide(v.a, v.b)')}"))
    signed = "CASE WHEN v.a % v.b != 0L AND (v.a < 0L) != (v.b < 0L) THEN v.a % v.b + v.b ELSE v.a % v.b END"
    return let([a, b], f"CASE WHEN v.b = 0L OR v.b IS NULL THEN CAST(NULL AS BIGINT) ELSE {signed} END")


def _clip(args: list[str], kinds: list[Kind], options: Options, kind: Kind) -> str:
    cases = [
        f"WHEN v.a {sign} {constant(cast('float', options[bound]), kind)} "
        f"THEN {constant(cast('float', options[bound]), kind)}"
        for bound, sign in (("min", "<"), ("max", ">"))
        if bound in options
    ]
    value = convert(args[0], kinds[0], kind)
    return let([value], f"CASE {' '.join(cases)} ELSE v.a END") if cases else value


def _extreme(function: str) -> Compiled:
    def compiled(args: list[str], kinds: list[Kind], _options: Options, kind: Kind) -> str:
        values = [convert(arg, k, kind) for arg, k in zip(args, kinds, strict=True)]
        if len(values) == 1:
            return values[0]
        array = f"array({', '.join(values)})"
        return let([array], f"CASE WHEN exists(v.a, x -> x IS NULL) THEN {null(kind)} ELSE array_{function}(v.a) END")

    return compiled


def _is_in(args: list[str], kinds: list[Kind], options: Options, _kind: Kind) -> str:
    members = list(cast("list[bool | int | float | str]", options["members"]))
    if kinds[0] == "null":
        return null("bool")
    if not members:
        return f"CASE WHEN {args[0]} IS NOT NULL THEN false END"
    wanted = kinds[0]
    if kinds[0] in {"int", "float"} or any(isinstance(m, int | float) for m in members):
        whole = kinds[0] != "float" and not any(isinstance(m, float) for m in members)
        wanted = "int" if whole else "float"
    listed = ", ".join(constant(member, wanted) for member in members)
    return f"({convert(args[0], kinds[0], wanted)} IN ({listed}))"


def _when(args: list[str], kinds: list[Kind], _options: Options, kind: Kind) -> str:
    condition = convert(args[0], kinds[0], "bool")
    return f"CASE WHEN {condition} THEN {convert(args[1], kinds[1], kind)} ELSE {convert(args[2], kinds[2], kind)} END"


def _coalesce(args: list[str], kinds: list[Kind], _options: Options, kind: Kind) -> str:
    return f"coalesce({', '.join(convert(arg, k, kind) for arg, k in zip(args, kinds, strict=True))})"


def _concat(args: list[str], kinds: list[Kind], options: Options, _kind: Kind) -> str:
    separator = text(cast("str", options.get("separator", "")))
    return f"concat({f', {separator}, '.join(convert(arg, k, 'str') for arg, k in zip(args, kinds, strict=True))})"


def _slice(args: list[str], kinds: list[Kind], options: Options, _kind: Kind) -> str:
    start, length = cast("int", options["start"]), cast("int", options["length"])
    return f"substring({convert(args[0], kinds[0], 'str')}, {start + 1 if start >= 0 else start}, {length})"


def _seconds(args: list[str], kinds: list[Kind], _options: Options, _kind: Kind) -> str:
    later, earlier = (
        f"CAST({convert(arg, kind, 'time')} AS DECIMAL(20, 0))" for arg, kind in zip(args, kinds, strict=True)
    )
    return f"(CAST({later} - {earlier} AS DOUBLE) / 1e6D)"


def _shift(args: list[str], kinds: list[Kind], options: Options, _kind: Kind) -> str:
    return f"try_add({convert(args[0], kinds[0], 'time')}, {constant(cast('int', options['micros']), 'int')})"


def _cast(args: list[str], kinds: list[Kind], options: Options, _kind: Kind) -> str:
    to, (value,), (kind,) = cast("Kind", options["to"]), args, kinds
    if kind == "str" and to == "float":
        return finite(let([_stripped(value)], _float_of("v.a")))
    if kind == "str" and to == "int":
        whole = "try_cast(v.a AS BIGINT)"
        return let(
            [_stripped(value)], f"CASE WHEN v.a RLIKE {_INT_TEXT} THEN {whole} ELSE {_truncated(_float_of('v.a'))} END"
        )
    if kind == "float" and to == "int":
        return _truncated(value)
    if to == "bool" and kind in {"int", "float"}:
        return f"({value} != 0)"
    return convert(value, kind, to)


def _stripped(value: str) -> str:
    return f"btrim({value}, {text(BLANKS)})"


def _float_of(value: str) -> str:
    return f"CASE WHEN {value} RLIKE {_FLOAT_TEXT} THEN try_cast({value} AS DOUBLE) END"


def _truncated(value: str) -> str:
    """A float as a whole number; null where it does not fit 64 bits."""
    return f"try_cast(get(filter(array({value}), x -> x < CAST('9223372036854775808' AS DOUBLE)), 0) AS BIGINT)"


_OPERATORS: dict[str, Compiled] = {
    "add": _by_kind("try_add({0}, {1})", "({0} + {1})"),
    "sub": _by_kind("try_subtract({0}, {1})", "({0} - {1})"),
    "mul": _by_kind("try_multiply({0}, {1})", "({0} * {1})"),
    "div": _numeric("try_divide({0}, {1})"),
    "floordiv": _floordiv,
    "mod": _mod,
    "pow": _numeric("power({0}, {1})"),
    "neg": _by_kind("try_subtract(0L, {0})", "(- {0})"),
    "abs": _by_kind(f"CASE WHEN v.a = {_LEAST} THEN CAST(NULL AS BIGINT) ELSE abs(v.a) END", "abs({0})"),
    "sqrt": _numeric("sqrt({0})"),
    "log": _numeric("ln({0})"),
    "log1p": _numeric("log1p({0})"),
    "exp": _numeric("exp({0})"),
    "round": _round,
    "floor": _whole("floor"),
    "ceil": _whole("ceil"),
    "clip": _clip,
    "min": _extreme("min"),
    "max": _extreme("max"),
    "eq": _common("({0} = {1})"),
    "ne": _common("({0} != {1})"),
    "lt": _common("({0} < {1})"),
    "le": _common("({0} <= {1})"),
    "gt": _common("({0} > {1})"),
    "ge": _common("({0} >= {1})"),
    "and": _common("({0} AND {1})"),
    "or": _common("({0} OR {1})"),
    "not": _plain("(NOT {0})", "bool"),
    "is_in": _is_in,
    "is_null": lambda args, _kinds, _options, _kind: f"({args[0]} IS NULL)",
    "fill_null": _coalesce,
    "coalesce": _coalesce,
    "when": _when,
    "lower": _plain("lower({0})", "str"),
    "upper": _plain("upper({0})", "str"),
    "strip": _plain(f"btrim({{0}}, {text(BLANKS)})", "str"),
    "length": _plain("CAST(char_length({0}) AS BIGINT)", "str"),
    "contains": _plain("contains({0}, {1})", "str", "text"),
    "starts_with": _plain("startswith({0}, {1})", "str", "text"),
    "ends_with": _plain("endswith({0}, {1})", "str", "text"),
    "slice": _slice,
    "concat": _concat,
    "hour": _calendar("hour({0})"),
    "minute": _calendar("minute({0})"),
    "weekday": _calendar("weekday({0}) + 1"),
    "day": _calendar("day({0})"),
    "month": _calendar("month({0})"),
    "year": _calendar("year({0})"),
    "day_of_year": _calendar("dayofyear({0})"),
    "week": _calendar("weekofyear({0})"),
    "seconds_between": _seconds,
    "shift": _shift,
    "cast": _cast,
}


def operators() -> Sequence[str]:
    """What compiles."""
    return tuple(_OPERATORS)
