"""Where expressions begin: columns, constants and the functions that join several values."""

from __future__ import annotations

from datetime import datetime

from cumulant.core.expr import Column, Scalar
from cumulant.features.definition.expressions import Expr, Operand, apply, literal
from cumulant.features.definition.source_location import definition_error


def col(name: str) -> Expr:
    """A raw column: of the row itself or, inside a window, of the past row."""
    if not isinstance(name, str):
        raise definition_error(f"col() takes a column name, not {type(name).__name__}")
    return Expr(Column(name))


def lit(value: Scalar | datetime) -> Expr:
    """A constant."""
    return Expr(literal(value))


def coalesce(*values: Operand) -> Expr:
    """The first value that is not null."""
    return apply("coalesce", *values)


def least(*values: Operand) -> Expr:
    """The smallest of several values; null if one is null."""
    return apply("min", *values)


def greatest(*values: Operand) -> Expr:
    """The largest of several values; null if one is null."""
    return apply("max", *values)


def concat(*values: Operand, separator: str = "") -> Expr:
    """Texts joined by `separator`; null if one is null."""
    return apply("concat", *values, options={"separator": separator})


class When:
    """`when(a).then(x)`: waits for its value."""

    def __init__(self, condition: Operand, before: tuple[tuple[Operand, Operand], ...] = ()) -> None:
        self._condition = condition
        self._before = before

    def then(self, value: Operand) -> Then:
        return Then((*self._before, (self._condition, value)))


class Then(Expr):
    """The first value whose condition holds; null where none does, unless `otherwise` follows."""

    def __init__(self, cases: tuple[tuple[Operand, Operand], ...], otherwise: Operand = None) -> None:
        result: object = otherwise
        for condition, value in reversed(cases):
            result = apply("when", condition, value, result)
        if not isinstance(result, Expr):
            raise definition_error("when() needs a condition")
        super().__init__(result.part)
        self._cases = cases

    def when(self, condition: Operand) -> When:
        return When(condition, self._cases)

    def otherwise(self, value: Operand) -> Expr:
        return Then(self._cases, value)


def when(condition: Operand) -> When:
    """`when(condition).then(value).otherwise(other)`, with further `.when().then()`; a null condition is false."""
    return When(condition)
