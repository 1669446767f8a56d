"""Expressions as users write them: `col`, `lit`, `when`, operators, `.dt` and `.str`.

An `Expr` is an immutable tree with its source line. `loading` turns it into a `core.expr` tree; types are checked when
the plan is compiled.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime, timedelta
from typing import NoReturn, Self

import msgspec

from cumulant.core.errors import UsageError
from cumulant.core.expr import OPERATORS, Column, Literal, Moment, Scalar
from cumulant.core.units import duration, micros, show_duration, to_micros
from cumulant.features.definition.source_location import SourceLine, caller_line, definition_error

#: `Expr.str` is the namespace of text operations, so text itself needs another name inside that class
Name = str
Option = bool | int | float | str | list[bool | int | float | str]


class OperatorCall(msgspec.Struct, frozen=True, eq=False):
    """An operator on expressions."""

    op: str
    args: tuple[Expr, ...]
    options: Mapping[str, Option] = {}


class MeasureReference(msgspec.Struct, frozen=True, eq=False):
    """One column of a lookup, or one span of a window, before it has a name. `owner` is a measure of `define`."""

    owner: object
    part: str


Part = Column | Literal | Moment | OperatorCall | MeasureReference


class Description(msgspec.Struct, frozen=True):
    """A feature's description, owner and tags, as the user writes them."""

    text: str = ""
    owner: str = ""
    tags: tuple[str, ...] = ()


class Expr:
    """A value computed from a row. Combine with `+ - * / // % **`, comparisons, `& | ~` and the methods below.

    Nulls, numbers and times follow the rules of `cumulant.core.expr`.
    """

    def __init__(self, part: Part | None, *, place: SourceLine | None = None) -> None:
        self._part = part
        self._place = place or caller_line()
        self._description = Description()
        #: shared by described copies, so that a copy is known as the same expression
        self._identity = object()

    @property
    def part(self) -> Part:
        if self._part is None:
            raise definition_error("this has no value of its own")
        return self._part

    @property
    def place(self) -> SourceLine:
        return self._place

    @property
    def identity(self) -> object:
        return self._identity

    @property
    def description(self) -> Description:
        return self._description

    def described(self, text: Name, *, owner: Name = "", tags: Iterable[Name] = ()) -> Self:
        """The same feature with a description, an owner and tags, as reports and the catalogue show them."""
        copy = object.__new__(type(self))
        copy.__dict__.update(self.__dict__)
        copy._description = Description(text, owner, tuple(tags))
        return copy

    # arithmetic
    def __add__(self, other: Operand) -> Expr:
        return apply("add", self, other)

    def __radd__(self, other: Operand) -> Expr:
        return apply("add", other, self)

    def __sub__(self, other: Operand) -> Expr:
        return apply("sub", self, other)

    def __rsub__(self, other: Operand) -> Expr:
        return apply("sub", other, self)

    def __mul__(self, other: Operand) -> Expr:
        return apply("mul", self, other)

    def __rmul__(self, other: Operand) -> Expr:
        return apply("mul", other, self)

    def __truediv__(self, other: Operand) -> Expr:
        return apply("div", self, other)

    def __rtruediv__(self, other: Operand) -> Expr:
        return apply("div", other, self)

    def __floordiv__(self, other: Operand) -> Expr:
        return apply("floordiv", self, other)

    def __rfloordiv__(self, other: Operand) -> Expr:
        return apply("floordiv", other, self)

    def __mod__(self, other: Operand) -> Expr:
        return apply("mod", self, other)

    def __rmod__(self, other: Operand) -> Expr:
        return apply("mod", other, self)

    def __pow__(self, other: Operand) -> Expr:
        return apply("pow", self, other)

    def __rpow__(self, other: Operand) -> Expr:
        return apply("pow", other, self)

    def __neg__(self) -> Expr:
        return apply("neg", self)

    def __abs__(self) -> Expr:
        return apply("abs", self)

    def abs(self) -> Expr:
        return apply("abs", self)

    def sqrt(self) -> Expr:
        """Square root; null below zero."""
        return apply("sqrt", self)

    def log(self) -> Expr:
        """Natural logarithm; null at and below zero."""
        return apply("log", self)

    def log1p(self) -> Expr:
        """log(1 + x), exact near zero; null at and below -1."""
        return apply("log1p", self)

    def exp(self) -> Expr:
        return apply("exp", self)

    def round(self, digits: int = 0) -> Expr:
        """Rounded to `digits` decimals, halves to the even neighbour."""
        return apply("round", self, options={"digits": digits})

    def floor(self) -> Expr:
        return apply("floor", self)

    def ceil(self) -> Expr:
        return apply("ceil", self)

    def clip(self, min: float | None = None, max: float | None = None) -> Expr:  # noqa: A002  (the field's own names)
        """Moved into [min, max]; a bound left out does not limit."""
        bounds: dict[str, Option] = {k: v for k, v in (("min", min), ("max", max)) if v is not None}
        if not bounds:
            raise definition_error("clip() needs min, max or both")
        return apply("clip", self, options=bounds)

    # comparison and logic
    def __eq__(self, other: object) -> Expr:  # type: ignore[override]
        return apply("eq", self, other)

    def __ne__(self, other: object) -> Expr:  # type: ignore[override]
        return apply("ne", self, other)

    __hash__ = object.__hash__

    def __lt__(self, other: Operand) -> Expr:
        return apply("lt", self, other)

    def __le__(self, other: Operand) -> Expr:
        return apply("le", self, other)

    def __gt__(self, other: Operand) -> Expr:
        return apply("gt", self, other)

    def __ge__(self, other: Operand) -> Expr:
        return apply("ge", self, other)

    def __and__(self, other: Operand) -> Expr:
        return apply("and", self, other)

    def __rand__(self, other: Operand) -> Expr:
        return apply("and", other, self)

    def __or__(self, other: Operand) -> Expr:
        return apply("or", self, other)

    def __ror__(self, other: Operand) -> Expr:
        return apply("or", other, self)

    def __invert__(self) -> Expr:
        return apply("not", self)

    def between(self, low: Operand, high: Operand) -> Expr:
        """At least `low` and at most `high`."""
        return (self >= low) & (self <= high)

    def is_in(self, members: Iterable[bool | int | float | Name]) -> Expr:
        """Whether the value is one of `members`, which are constants; null for a null."""
        return apply("is_in", self, options={"members": list(members)})

    # nulls
    def is_null(self) -> Expr:
        return apply("is_null", self)

    def is_not_null(self) -> Expr:
        return ~apply("is_null", self)

    def fill_null(self, value: Operand) -> Expr:
        """`value` where this is null."""
        return apply("fill_null", self, value)

    def cast(self, to: Name) -> Expr:
        """As another type: `int`, `float`, `str` or `bool`."""
        return apply("cast", self, options={"to": to})

    @property
    def dt(self) -> TimeParts:
        return TimeParts(self)

    @property
    def str(self) -> Text:
        return Text(self)

    def __bool__(self) -> NoReturn:
        raise definition_error(
            "an expression has no truth value while features are defined",
            hint="write & | ~ instead of and, or, not; .between(a, b) instead of a < x < b; when(...) instead of if",
        )

    def __contains__(self, item: object) -> NoReturn:
        raise definition_error(
            '"in" does not work on an expression', hint='write col("a").is_in([...]) or .str.contains(...)'
        )

    def __iter__(self) -> Iterator[Expr]:
        raise definition_error("an expression cannot be iterated over")

    def __repr__(self) -> Name:
        return f"<expression at {self._place}>"


class TimeParts:
    """Parts of a time in a zone (an IANA name, such as `Europe/Paris`), and time arithmetic."""

    def __init__(self, value: Expr) -> None:
        self._value = value

    def _part(self, op: str, zone: str) -> Expr:
        return apply(op, self._value, options={"zone": zone})

    def hour(self, zone: str = "UTC") -> Expr:
        """0 to 23."""
        return self._part("hour", zone)

    def minute(self, zone: str = "UTC") -> Expr:
        """0 to 59."""
        return self._part("minute", zone)

    def weekday(self, zone: str = "UTC") -> Expr:
        """1 (Monday) to 7."""
        return self._part("weekday", zone)

    def day(self, zone: str = "UTC") -> Expr:
        """Day of the month, from 1."""
        return self._part("day", zone)

    def month(self, zone: str = "UTC") -> Expr:
        """1 to 12."""
        return self._part("month", zone)

    def year(self, zone: str = "UTC") -> Expr:
        return self._part("year", zone)

    def day_of_year(self, zone: str = "UTC") -> Expr:
        """1 to 366."""
        return self._part("day_of_year", zone)

    def week(self, zone: str = "UTC") -> Expr:
        """ISO week, 1 to 53."""
        return self._part("week", zone)

    def seconds_since(self, other: Operand) -> Expr:
        """This time minus `other`, in seconds."""
        return apply("seconds_between", self._value, other)

    def shift(self, by: str | timedelta) -> Expr:
        """This time moved by a duration such as `2h` or `-30m`."""
        return apply("shift", self._value, options={"micros": shift_micros(by)})


class Text:
    """Operations on text; positions and lengths count characters."""

    def __init__(self, value: Expr) -> None:
        self._value = value

    def lower(self) -> Expr:
        return apply("lower", self._value)

    def upper(self) -> Expr:
        return apply("upper", self._value)

    def strip(self) -> Expr:
        """Without spaces, tabs and line ends on both sides."""
        return apply("strip", self._value)

    def length(self) -> Expr:
        return apply("length", self._value)

    def contains(self, text: str) -> Expr:
        """Whether `text` occurs, taken literally."""
        return apply("contains", self._value, options={"text": text})

    def starts_with(self, text: str) -> Expr:
        return apply("starts_with", self._value, options={"text": text})

    def ends_with(self, text: str) -> Expr:
        return apply("ends_with", self._value, options={"text": text})

    def slice(self, start: int, length: int) -> Expr:
        """`length` characters from `start` (0 is the first; -1 the last)."""
        return apply("slice", self._value, options={"start": start, "length": length})


Operand = Expr | Scalar | datetime | timedelta


def shift_micros(by: str | timedelta) -> int:
    """`2h`, `-30m` or a timedelta in microseconds."""
    if isinstance(by, timedelta):
        return micros(by)
    sign, text = (-1, by.strip()[1:]) if by.strip().startswith("-") else (1, by)
    try:
        return sign * micros(duration(text))
    except UsageError as error:
        raise definition_error(error.message, hint=error.hint) from None


def literal(value: object) -> Literal | Moment:
    """A Python constant as a leaf of the tree.

    Raises:
        DefinitionError: `value` is not null, a bool, a finite number, text, a time or a duration.
    """
    if isinstance(value, datetime):
        return Moment(to_micros(value))
    if isinstance(value, timedelta):
        return Literal(show_duration(value))
    if value is None or isinstance(value, bool | int | float | str):
        if isinstance(value, int) and not -(2**63) <= value < 2**63:
            raise definition_error(f"{value} does not fit 64 bits")
        if isinstance(value, float) and not math.isfinite(value):  # JSON, in which plans are kept, has no such number
            hint = "compare with a number; what is not finite in a column counts as null"
            raise definition_error(f"{value} cannot be part of an expression", hint=hint)
        return Literal(value)
    raise definition_error(
        f"{type(value).__name__} cannot be part of an expression",
        hint='use col("name"), a number, text, true or false, a datetime or None',
    )


def apply(op: str, *args: object, options: Mapping[str, Option] | None = None) -> Expr:
    """An operator on operands; every operator of the closed set is reached through this."""
    arity = OPERATORS[op][0]
    if (arity is None and not args) or (arity is not None and arity != len(args)):
        raise definition_error(f"{op} takes {arity or 'at least one'} argument(s), {len(args)} given")
    place = caller_line()
    operands = tuple(a if isinstance(a, Expr) else Expr(literal(a), place=place) for a in args)
    return Expr(OperatorCall(op, operands, dict(options or {})), place=place)
