"""Types of expressions: argument and result types of each operator, the same for every compiler.

A kind is a column type of the plan, or `null`, which fits anywhere. Booleans are 1 and 0 in arithmetic, an int becomes
a float beside a float, a date is its midnight UTC beside a time.
"""

from __future__ import annotations

import zoneinfo
from collections.abc import Callable, Mapping, Sequence
from typing import Literal as OneOf
from typing import cast

from cumulant.core.errors import DefinitionError, UsageError, did_you_mean
from cumulant.core.expr import OPERATORS, Call, Column, Feature, Literal, Moment, Node
from cumulant.core.plan import DType
from cumulant.core.units import duration, micros, moment, to_micros

Kind = DType | OneOf["null"]
Options = Mapping[str, bool | int | float | str | list[bool | int | float | str]]

NUMBERS: frozenset[Kind] = frozenset({"bool", "int", "float", "null"})
TIMES: frozenset[Kind] = frozenset({"time", "date", "null"})
#: what strip() removes
BLANKS = " \t\n\r\x0b\x0c"
#: texts that a cast reads as a whole number, and as any number
INT_TEXT = r"^[+-]?[0-9]+$"
FLOAT_TEXT = r"^[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?$"
CASTS = ("bool", "int", "float", "str")
_SHOWN = {
    "str": "text",
    "bool": "true/false",
    "int": "a whole number",
    "float": "a number",
    "time": "a time",
    "date": "a date",
    "bytes": "bytes",
    "null": "null",
}


def describe_kind(kind: Kind) -> str:
    return _SHOWN[kind]


def literal_kind(value: object) -> Kind:
    if value is None:
        return "null"
    for kind, types in (("bool", bool), ("int", int), ("float", float), ("str", str)):
        if isinstance(value, types):
            return cast("Kind", kind)
    raise DefinitionError(f"{type(value).__name__} is no constant of an expression")


def unify(kinds: Sequence[Kind]) -> Kind | None:
    """The kind that all of `kinds` fit into, or None."""
    present = {kind for kind in kinds if kind != "null"}
    if len(present) <= 1:
        return present.pop() if present else "null"
    if present <= NUMBERS:
        return "float" if "float" in present else "int"
    return "time" if present <= TIMES else None


def result_kind(op: str, kinds: Sequence[Kind], options: Options) -> Kind:
    """The kind of `op` on arguments of these kinds.

    Raises:
        DefinitionError: the operator does not exist, or does not take such arguments or options.
    """
    if op not in OPERATORS:
        raise DefinitionError(f'there is no operator "{op}"', subject=op, hint=did_you_mean(op, OPERATORS))
    arity, known = OPERATORS[op]
    if (arity is None and not kinds) or (arity is not None and arity != len(kinds)):
        raise DefinitionError(f"{op} takes {arity or 'at least one'} argument(s), {len(kinds)} given", subject=op)
    for name in options:
        if name not in known:
            raise DefinitionError(f'{op} has no option "{name}"', subject=op, hint=did_you_mean(name, known))
    return _RULES[op](op, kinds, options)


def _refuse(op: str, kinds: Sequence[Kind], hint: str | None = None) -> DefinitionError:
    given = " and ".join(describe_kind(kind) for kind in kinds)
    return DefinitionError(f"{op} does not work on {given}", subject=op, hint=hint)


def _needs(op: str, kinds: Sequence[Kind], allowed: frozenset[Kind], hint: str | None = None) -> None:
    if any(kind not in allowed for kind in kinds):
        raise _refuse(op, kinds, hint)


def _arithmetic(op: str, kinds: Sequence[Kind], _options: Options) -> Kind:
    hint = 'a time moves by a duration: col("t") - "2h"' if TIMES & set(kinds) - {"null"} else None
    _needs(op, kinds, NUMBERS, hint)
    return "float" if "float" in kinds else "int"


def _float(op: str, kinds: Sequence[Kind], _options: Options) -> Kind:
    _needs(op, kinds, NUMBERS)
    return "float"


def _round(op: str, kinds: Sequence[Kind], options: Options) -> Kind:
    digits = options.get("digits", 0)
    if isinstance(digits, bool) or not isinstance(digits, int) or not 0 <= digits <= 15:
        raise DefinitionError("round takes 0 to 15 digits", subject=op)
    return _arithmetic(op, kinds, options)


def _clip(op: str, kinds: Sequence[Kind], options: Options) -> Kind:
    _needs(op, kinds, NUMBERS)
    bounds = [literal_kind(bound) for bound in options.values()]
    _needs(op, bounds, frozenset({"int", "float"}))
    low, high = options.get("min"), options.get("max")
    if isinstance(low, int | float) and isinstance(high, int | float) and low > high:
        raise DefinitionError(f"clip: min {low} is above max {high}", subject=op)
    return _arithmetic(op, [*kinds, *bounds], options)


def _extreme(op: str, kinds: Sequence[Kind], options: Options) -> Kind:
    if all(kind in TIMES for kind in kinds):
        return unify(kinds) or "null"
    return _arithmetic(op, kinds, options)


def _compare(op: str, kinds: Sequence[Kind], _options: Options) -> Kind:
    common = unify(kinds)
    if common is None or common == "bytes":
        hint = "text and numbers differ; cast one of them" if "str" in kinds and NUMBERS & set(kinds) else None
        raise _refuse(op, kinds, hint)
    return "bool"


def _logic(op: str, kinds: Sequence[Kind], _options: Options) -> Kind:
    _needs(op, kinds, frozenset({"bool", "null"}), "compare first: x != 0")
    return "bool"


def _is_in(op: str, kinds: Sequence[Kind], options: Options) -> Kind:
    members = options.get("members")
    if not isinstance(members, list | tuple):
        raise DefinitionError("is_in needs its members as a list", subject=op)
    common = unify([*kinds, *(literal_kind(member) for member in members)])
    if common not in {"bool", "int", "float", "str", "null"} or kinds[0] in TIMES - {"null"}:
        raise _refuse(op, [kinds[0], *sorted({literal_kind(member) for member in members})])
    return "bool"


def _is_null(_op: str, _kinds: Sequence[Kind], _options: Options) -> Kind:
    return "bool"


def _same(op: str, kinds: Sequence[Kind], _options: Options) -> Kind:
    common = unify(kinds)
    if common is None or common == "bytes":
        raise _refuse(op, kinds, "both sides need one type")
    return common


def _when(op: str, kinds: Sequence[Kind], options: Options) -> Kind:
    _needs("the condition of when", kinds[:1], frozenset({"bool", "null"}), "compare first: x != 0")
    return _same(op, kinds[1:], options)


def _text(kind: Kind) -> Callable[[str, Sequence[Kind], Options], Kind]:
    def rule(op: str, kinds: Sequence[Kind], options: Options) -> Kind:
        _needs(op, kinds, frozenset({"str", "null"}), 'cast first: x.cast("str")')
        for name in OPERATORS[op][1]:
            wanted = int if name in {"start", "length"} else str
            value = options.get(name, "" if name == "separator" else None)
            if isinstance(value, bool) or not isinstance(value, wanted):
                raise DefinitionError(f"{op} needs the option {name}", subject=op)
            if name == "length" and isinstance(value, int) and value < 0:
                raise DefinitionError(f"{op}: length cannot be negative", subject=op)
        return kind

    return rule


def _calendar(op: str, kinds: Sequence[Kind], options: Options) -> Kind:
    _needs(op, kinds, TIMES if op not in {"hour", "minute"} else frozenset({"time", "null"}))
    zone = options.get("zone", "UTC")
    if not isinstance(zone, str) or not is_zone(zone):
        hint = did_you_mean(str(zone), zoneinfo.available_timezones())
        raise DefinitionError(f'"{zone}" is no time zone', subject=op, hint=hint or "write a name as Europe/Paris")
    return "int"


def _seconds(op: str, kinds: Sequence[Kind], _options: Options) -> Kind:
    _needs(op, kinds, TIMES)
    return "float"


def _shift(op: str, kinds: Sequence[Kind], options: Options) -> Kind:
    _needs(op, kinds, TIMES)
    if isinstance(options.get("micros"), bool) or not isinstance(options.get("micros"), int):
        raise DefinitionError("shift needs whole microseconds", subject=op)
    return "time"


def _cast(op: str, kinds: Sequence[Kind], options: Options) -> Kind:
    to = options.get("to")
    if to not in CASTS:
        raise DefinitionError(f'cannot cast to "{to}"', subject=op, hint=f"cast to one of {', '.join(CASTS)}")
    allowed = {"str": {"bool", "int", "str"}, "bool": {"bool", "int", "float"}}
    fits = allowed.get(to, {"bool", "int", "float", "str"}) | {"null"}
    hint = "how many digits to write is not settled: round it and cast it to int first" if to == "str" else None
    _needs(f"cast to {to}", kinds, frozenset(cast("set[Kind]", fits)), hint)
    return cast("Kind", to)


Rule = Callable[[str, Sequence[Kind], Options], Kind]
_RULES: dict[str, Rule] = {
    **dict.fromkeys(("add", "sub", "mul", "floordiv", "mod", "neg", "abs", "floor", "ceil"), _arithmetic),
    **dict.fromkeys(("div", "pow", "sqrt", "log", "log1p", "exp"), _float),
    **dict.fromkeys(("eq", "ne", "lt", "le", "gt", "ge"), _compare),
    **dict.fromkeys(("and", "or", "not"), _logic),
    **dict.fromkeys(("fill_null", "coalesce"), _same),
    **dict.fromkeys(("lower", "upper", "strip", "slice", "concat"), _text("str")),
    **dict.fromkeys(("contains", "starts_with", "ends_with"), _text("bool")),
    **dict.fromkeys(("hour", "minute", "weekday", "day", "month", "year", "day_of_year", "week"), _calendar),
    **dict.fromkeys(("min", "max"), _extreme),
    "round": _round,
    "clip": _clip,
    "is_in": _is_in,
    "is_null": _is_null,
    "when": _when,
    "length": _text("int"),
    "seconds_between": _seconds,
    "shift": _shift,
    "cast": _cast,
}


def is_zone(name: str) -> bool:
    """Whether the name is a zone of the IANA database."""
    try:
        zoneinfo.ZoneInfo(name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        return False
    return True


def resolve(node: Node, columns: Mapping[str, Kind], features: Mapping[str, Kind] | None = None) -> tuple[Node, Kind]:
    """`node` with its short forms expanded, and its kind.

    Expanded are: the difference of two times (`seconds_between`), a time moved by a duration in text (`shift`), and a
    time compared with text (a `Moment`, in UTC unless the text has an offset).

    Raises:
        DefinitionError: a name does not exist, or an operator does not take its arguments.
    """
    if isinstance(node, Call):
        resolved = [resolve(argument, columns, features) for argument in node.args]
        call, kinds = _expand_short_forms(node, [part for part, _ in resolved], [kind for _, kind in resolved])
        return call, result_kind(call.op, kinds, call.options)
    return node, leaf_kind(node, columns, features or {})


def leaf_kind(node: Node, columns: Mapping[str, Kind], features: Mapping[str, Kind]) -> Kind:
    """The kind of a column, feature or constant. Raises DefinitionError for a name that does not exist."""
    if isinstance(node, Column):
        return _kind_of_name(node.name, columns, "column")
    if isinstance(node, Feature):
        return _kind_of_name(node.name, features, "feature")
    return literal_kind(node.value) if isinstance(node, Literal) else "time"


def _kind_of_name(name: str, kinds: Mapping[str, Kind], what: str) -> Kind:
    if name in kinds:
        return kinds[name]
    known = f"there are {', '.join(list(kinds)[:12])}" if kinds else None
    raise DefinitionError(f'there is no {what} "{name}"', subject=name, hint=did_you_mean(name, kinds) or known)


def _expand_short_forms(node: Call, args: list[Node], kinds: list[Kind]) -> tuple[Call, list[Kind]]:
    op = node.op
    if len(args) == 2 and {"time", "date"} & set(kinds):
        if op == "sub" and all(kind in TIMES for kind in kinds):
            return Call("seconds_between", tuple(args)), kinds
        if op in {"add", "sub"}:
            pairs = [(args[0], args[1], kinds[0])] + ([(args[1], args[0], kinds[1])] if op == "add" else [])
            for base, span, kind in pairs:
                if kind in TIMES and isinstance(span, Literal) and isinstance(span.value, str):
                    return Call("shift", (base,), {"micros": _offset(op, span.value)}), [kind]
        if op in {"eq", "ne", "lt", "le", "gt", "ge", "seconds_between"}:
            args = [_as_moment(arg) for arg in args]
            kinds = ["time" if isinstance(arg, Moment) else kind for arg, kind in zip(args, kinds, strict=True)]
    return Call(op, tuple(args), node.options), kinds


def _offset(op: str, span: str) -> int:
    """A duration in text as microseconds to move by."""
    try:
        length = micros(duration(span))
    except UsageError as error:
        raise DefinitionError(error.message, subject=span, hint=error.hint) from None
    return length if op == "add" else -length


def _as_moment(node: Node) -> Node:
    if isinstance(node, Literal) and isinstance(node.value, str):
        try:
            return Moment(to_micros(moment(node.value)))
        except UsageError as error:
            raise DefinitionError(error.message, subject=node.value, hint=error.hint) from None
    return node
