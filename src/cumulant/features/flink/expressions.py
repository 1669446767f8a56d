"""The expression tree as Flink SQL; cases of `testing.expressions` check it together with the other compilers.

Each operator writes its arguments once: what it needs several times gets a name by `let`. Whole results that do not fit
64 bits, divisions by zero and texts that are no number give null, where Flink alone would wrap or end the job.
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
from cumulant.features.flink.sql_text import (
    DAY_US,
    TYPES,
    Let,
    constant,
    decimal,
    finite,
    name,
    null,
    outward,
    text,
    whole,
)

_LEAST = constant(-(2**63), "int")
#: from here on every float is whole
_WHOLE = constant(2.0**52, "float")
_LIMIT = constant(2.0**63, "float")
_INT_TEXT = text(INT_TEXT)
#: where parts of a time are in its text
_CLOCK = {"HOUR": 12, "MINUTE": 15}
_FLOAT_TEXT = text(FLOAT_TEXT)


def expression(
    node: Node,
    let: Let,
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
        visited = [expression(argument, let, columns, features, column=column) for argument in node.args]
        kinds = [kind for _, kind in visited]
        kind = result_kind(node.op, kinds, node.options)
        arguments = _Arguments([arg for arg, _ in visited], kinds, node.options, kind, let)
        return _OPERATORS[node.op](arguments), kind
    kind = leaf_kind(node, columns, features or {})
    if isinstance(node, Column | Feature):
        return (column if isinstance(node, Column) else name)(node.name), kind
    return constant(node.micros if isinstance(node, Moment) else node.value, "int" if kind == "time" else kind), kind


def convert(value: str, kind: Kind, wanted: Kind) -> str:
    """`value` of one kind as another that it fits into."""
    if kind == "null":
        return null(wanted)
    if kind == "date" and wanted == "time":
        return f"({value} * {DAY_US})"
    if kind == "bool" and wanted == "str":
        return f"LOWER(CAST({value} AS STRING))"
    if kind == "bool" and wanted in {"int", "float"}:
        return f"CAST(CAST({value} AS INT) AS {TYPES[wanted]})"
    return value if kind == wanted else f"CAST({value} AS {TYPES[wanted]})"


class _Arguments:
    """The arguments of one operator, its options, and the kind of its result."""

    def __init__(self, args: list[str], kinds: list[Kind], options: Options, kind: Kind, let: Let) -> None:
        self.args, self.kinds, self.options, self.kind, self.let = args, kinds, options, kind, let

    def of(self, kind: Kind, *, named: bool = False) -> list[str]:
        """As one kind; `named`: for forms that use them several times."""
        values = [convert(arg, own, kind) for arg, own in zip(self.args, self.kinds, strict=True)]
        return [self.let(value) for value in values] if named else values

    def common(self) -> list[str]:
        """As the one kind that all fit into, which has an order."""
        kind = unify(self.kinds)
        assert kind is not None
        return self.of("int" if kind in {"bool", "null"} else kind)

    def option(self, of: str, default: object = None) -> int | float | str:
        return cast("int | float | str", self.options.get(of, default))


Compiled = Callable[[_Arguments], str]


def _number(whole_form: str, real: str) -> Compiled:
    """One form for whole numbers, as DECIMALs, and one for floats."""

    def compiled(of: _Arguments) -> str:
        if of.kind == "float":
            return finite(of.let, real.format(*of.of("float")))
        return whole(whole_form.format(*map(decimal, of.of("int"))))

    return compiled


def _float(form: str) -> Compiled:
    return lambda of: finite(of.let, form.format(*of.of("float")))


def _plain(form: str, kind: Kind, *options: str) -> Compiled:
    """One argument, taken as `kind`, and options."""
    return lambda of: form.format(*of.of(kind), *(text(str(of.option(option))) for option in options))


def _compared(sign: str) -> Compiled:
    return lambda of: f"({of.common()[0]} {sign} {of.common()[1]})"


def _logic(sign: str) -> Compiled:
    return lambda of: f"({f' {sign} '.join(of.of('bool'))})"


def _calendar(part: str) -> Compiled:
    """A part of a time in a zone, read from its text: EXTRACT rounds times before 1970 up. A date has no zone: its
    parts are its own.
    """

    def compiled(of: _Arguments) -> str:
        if of.kinds[0] == "date":
            return f"CAST(EXTRACT({part} FROM {outward(of.args[0], 'date')}) AS BIGINT)"
        seconds = f"CAST(TO_TIMESTAMP_LTZ({of.of('time')[0]}, 6) AS TIMESTAMP(6))"
        shown, zone = f"DATE_FORMAT({seconds}, 'yyyy-MM-dd HH:mm:ss')", str(of.option("zone", "UTC"))
        if zone != "UTC":
            shown = f"CONVERT_TZ({shown}, 'UTC', {text(zone)})"
        if part in _CLOCK:
            return f"TRY_CAST(SUBSTRING({shown}, {_CLOCK[part]}, 2) AS BIGINT)"
        return f"CAST(EXTRACT({part} FROM TRY_CAST(SUBSTRING({shown}, 1, 10) AS DATE)) AS BIGINT)"

    return compiled


def _rounded(function: str) -> Compiled:
    """Rounding of floats; whole numbers stay as they are."""
    return lambda of: f"{function}({of.of(of.kind)[0]})" if of.kind == "float" else of.of(of.kind)[0]


def _round(of: _Arguments) -> str:
    """To the nearest, of two the even one: adding and taking away 2^52 leaves no digits."""
    (value,) = of.of(of.kind)
    if of.kind == "int":
        return value
    scale = constant(10.0 ** int(of.option("digits", 0)), "float")
    scaled = of.let(f"{value} * {scale}")
    even = (
        f"CASE WHEN ABS({scaled}) >= {_WHOLE} THEN {scaled} WHEN {scaled} < CAST('0' AS DOUBLE) "
        f"THEN ({scaled} - {_WHOLE}) + {_WHOLE} ELSE ({scaled} + {_WHOLE}) - {_WHOLE} END"
    )
    return finite(of.let, f"({even}) / {scale}")


def _abs(of: _Arguments) -> str:
    (value,) = of.of(of.kind, named=True)
    return f"ABS({value})" if of.kind == "float" else f"CASE WHEN {value} <> {_LEAST} THEN ABS({value}) END"


def _log1p(of: _Arguments) -> str:
    """By Kahan's form, which keeps the digits of small arguments."""
    (value,) = of.of("float", named=True)
    unit = constant(1.0, "float")
    more = of.let(f"({unit} + {value})")
    small = f"CASE WHEN {more} = {unit} THEN {value} ELSE LN({more}) * ({value} / ({more} - {unit})) END"
    return finite(of.let, small)


def _not_zero(value: str) -> str:
    """A divisor that never ends a job: where it is 0 the quotient is not used."""
    return f"(CASE WHEN {value} = 0 OR {value} = -1 THEN CAST(1 AS BIGINT) ELSE {value} END)"


def _floordiv(of: _Arguments) -> str:
    a, b = of.of(of.kind, named=True)
    if of.kind == "float":
        return finite(of.let, f"FLOOR({a} / {b})")
    down = f"CASE WHEN MOD({a}, {_not_zero(b)}) <> 0 AND ({a} < 0) <> ({b} < 0) THEN 1 ELSE 0 END"
    minus = whole(f"0 - {decimal(a)}")
    return f"CASE WHEN {b} = 0 THEN {null('int')} WHEN {b} = -1 THEN {minus} ELSE {a} / {_not_zero(b)} - {down} END"


def _mod(of: _Arguments) -> str:
    a, b = of.of(of.kind, named=True)
    if of.kind == "float":
        return finite(of.let, f"{a} - {b} * FLOOR({a} / {b})")
    rest = of.let(f"MOD({a}, {_not_zero(b)})")
    signed = f"CASE WHEN {rest} <> 0 AND ({a} < 0) <> ({b} < 0) THEN {rest} + {b} ELSE {rest} END"
    return f"CASE WHEN {b} = 0 THEN {null('int')} ELSE {signed} END"


def _clip(of: _Arguments) -> str:
    (value,) = of.of(of.kind, named=True)
    bounds = [
        (sign, constant(of.option(bound), of.kind))
        for bound, sign in (("min", "<"), ("max", ">"))
        if bound in of.options
    ]
    cases = " ".join(f"WHEN {value} {sign} {bound} THEN {bound}" for sign, bound in bounds)
    return f"CASE {cases} ELSE {value} END" if cases else value


def _extreme(function: str) -> Compiled:
    return lambda of: f"{function}({', '.join(of.of(of.kind))})" if len(of.args) > 1 else of.of(of.kind)[0]


def _is_in(of: _Arguments) -> str:
    members = list(cast("list[bool | int | float | str]", of.options["members"]))
    kind = of.kinds[0]
    if kind == "null":
        return null("bool")
    if not members:
        return f"CASE WHEN {of.args[0]} IS NOT NULL THEN FALSE END"
    if kind != "str":
        real = kind == "float" or any(isinstance(member, float) for member in members)
        kind = "float" if real else "int"
    listed = ", ".join(constant(member, kind) for member in members)
    return f"({of.of(kind)[0]} IN ({listed}))"


def _when(of: _Arguments) -> str:
    yes, no = (convert(arg, own, of.kind) for arg, own in zip(of.args[1:], of.kinds[1:], strict=True))
    return f"CASE WHEN {convert(of.args[0], of.kinds[0], 'bool')} THEN {yes} ELSE {no} END"


def _coalesce(of: _Arguments) -> str:
    values = ", ".join(of.of("int" if of.kind == "null" else of.kind))
    return f"COALESCE({values})"


def _concat(of: _Arguments) -> str:
    separator = text(str(of.option("separator", "")))
    return f"CONCAT({f', {separator}, '.join(of.of('str'))})"


def _slice(of: _Arguments) -> str:
    start, length = int(of.option("start")), int(of.option("length"))
    (value,) = of.of("str", named=True)
    if start >= 0:
        return f"SUBSTRING({value}, {start + 1}, {length})"
    begin = f"(CHAR_LENGTH({value}) - {-start})"
    rest = f"SUBSTRING({value}, 1, GREATEST({begin} + {length}, 0))"
    return f"CASE WHEN {begin} >= 0 THEN SUBSTRING({value}, {begin} + 1, {length}) ELSE {rest} END"


def _contains(form: str) -> Compiled:
    """Every text has the empty one in it."""

    def compiled(of: _Arguments) -> str:
        (value,), part = of.of("str"), str(of.option("text"))
        return form.format(value, text(part)) if part else f"CASE WHEN {value} IS NOT NULL THEN TRUE END"

    return compiled


def _seconds(of: _Arguments) -> str:
    later, earlier = map(decimal, of.of("time"))
    return f"(CAST({later} - {earlier} AS DOUBLE) / CAST('1e6' AS DOUBLE))"


def _shift(of: _Arguments) -> str:
    return whole(f"{decimal(of.of('time')[0])} + {decimal(constant(of.option('micros'), 'int'))}")


def _cast(of: _Arguments) -> str:
    to, (value,), (kind,) = cast("Kind", of.options["to"]), of.args, of.kinds
    if kind == "str" and to in {"int", "float"}:
        stripped = of.let(f"TRIM(BOTH {text(BLANKS)} FROM {value})")
        real = f"CASE WHEN REGEXP({stripped}, {_FLOAT_TEXT}) THEN TRY_CAST({stripped} AS DOUBLE) END"
        if to == "float":
            return finite(of.let, real)
        exact = f"TRY_CAST({stripped} AS BIGINT)"
        return f"CASE WHEN REGEXP({stripped}, {_INT_TEXT}) THEN {exact} ELSE {_truncated(of.let, real)} END"
    if kind == "float" and to == "int":
        return _truncated(of.let, value)
    if to == "bool" and kind in {"int", "float"}:
        return f"({value} <> 0)"
    return convert(value, kind, to)


def _truncated(let: Let, value: str) -> str:
    """A float as a whole number; null where it does not fit 64 bits."""
    value = let(value)
    return f"CASE WHEN {value} >= -{_LIMIT} AND {value} < {_LIMIT} THEN CAST({value} AS BIGINT) END"


_OPERATORS: dict[str, Compiled] = {
    "add": _number("{0} + {1}", "({0} + {1})"),
    "sub": _number("{0} - {1}", "({0} - {1})"),
    "mul": _number("{0} * {1}", "({0} * {1})"),
    "div": _float("({0} / {1})"),
    "floordiv": _floordiv,
    "mod": _mod,
    "pow": _float("POWER({0}, {1})"),
    "neg": _number("0 - {0}", "(- {0})"),
    "abs": _abs,
    "sqrt": _float("SQRT({0})"),
    "log": _float("LN({0})"),
    "log1p": _log1p,
    "exp": _float("EXP({0})"),
    "round": _round,
    "floor": _rounded("FLOOR"),
    "ceil": _rounded("CEIL"),
    "clip": _clip,
    "min": _extreme("LEAST"),
    "max": _extreme("GREATEST"),
    "eq": _compared("="),
    "ne": _compared("<>"),
    "lt": _compared("<"),
    "le": _compared("<="),
    "gt": _compared(">"),
    "ge": _compared(">="),
    "and": _logic("AND"),
    "or": _logic("OR"),
    "not": _plain("(NOT {0})", "bool"),
    "is_in": _is_in,
    "is_null": lambda of: f"({of.args[0]} IS NULL)",
    "fill_null": _coalesce,
    "coalesce": _coalesce,
    "when": _when,
    "lower": _plain("LOWER({0})", "str"),
    "upper": _plain("UPPER({0})", "str"),
    "strip": _plain(f"TRIM(BOTH {text(BLANKS)} FROM {{0}})", "str"),
    "length": _plain("CAST(CHAR_LENGTH({0}) AS BIGINT)", "str"),
    "contains": _contains("(INSTR({0}, {1}) > 0)"),
    "starts_with": _contains("STARTSWITH({0}, {1})"),
    "ends_with": _contains("ENDSWITH({0}, {1})"),
    "slice": _slice,
    "concat": _concat,
    "hour": _calendar("HOUR"),
    "minute": _calendar("MINUTE"),
    "weekday": _calendar("ISODOW"),
    "day": _calendar("DAY"),
    "month": _calendar("MONTH"),
    "year": _calendar("YEAR"),
    "day_of_year": _calendar("DOY"),
    "week": _calendar("WEEK"),
    "seconds_between": _seconds,
    "shift": _shift,
    "cast": _cast,
}


def operators() -> Sequence[str]:
    """What compiles."""
    return tuple(_OPERATORS)
