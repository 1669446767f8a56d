"""The feature tree: expressions over a closed set of operators, as plain values.

One tree compiles to Polars (`polars_compiler`), to the server's evaluator (`python_compiler`) and later
to other engines; every compiler is held to the same cases (`testing.expressions`). Rules, the same everywhere:

- A null operand gives null, except in `is_null`, `fill_null`, `coalesce`, `when` (a null condition counts
  as false) and Kleene `and`/`or` (false and null is false, true or null is true).
- Numbers are float64 or int64; `/` is always float. A result that is not finite (division by zero, log of
  a negative number) is null, so that NaN never travels; so is a whole result that does not fit 64 bits. `//` and `%`
  round towards minus infinity.
- Times are UTC microseconds; a calendar part needs a zone, which defaults to UTC. Weekday is 1 (Monday) to 7.
- `cast` to int truncates towards zero; text that is no number becomes null.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

Scalar = None | bool | int | float | str


class Column(msgspec.Struct, frozen=True, tag="col"):
    name: str


class Literal(msgspec.Struct, frozen=True, tag="lit"):
    value: Scalar


class Moment(msgspec.Struct, frozen=True, tag="time"):
    """A constant time, in microseconds since 1970 UTC."""

    micros: int


class Feature(msgspec.Struct, frozen=True, tag="feature"):
    """The value of another feature of the same plan, by its full name."""

    name: str


class Call(msgspec.Struct, frozen=True, tag="call"):
    """An operator applied to arguments; `options` are constants (a zone, a list of members)."""

    op: str
    args: tuple[Column | Literal | Moment | Feature | Call, ...]
    options: dict[str, bool | int | float | str | list[bool | int | float | str]] = {}


Node = Column | Literal | Moment | Feature | Call

#: operator -> (number of arguments, or None for one or more; names of its options)
OPERATORS: dict[str, tuple[int | None, tuple[str, ...]]] = {
    # arithmetic
    "add": (2, ()),
    "sub": (2, ()),
    "mul": (2, ()),
    "div": (2, ()),
    "floordiv": (2, ()),
    "mod": (2, ()),
    "pow": (2, ()),
    "neg": (1, ()),
    "abs": (1, ()),
    "sqrt": (1, ()),
    "log": (1, ()),
    "log1p": (1, ()),
    "exp": (1, ()),
    "round": (1, ("digits",)),
    "floor": (1, ()),
    "ceil": (1, ()),
    "clip": (1, ("min", "max")),
    "min": (None, ()),
    "max": (None, ()),
    # comparison and logic
    "eq": (2, ()),
    "ne": (2, ()),
    "lt": (2, ()),
    "le": (2, ()),
    "gt": (2, ()),
    "ge": (2, ()),
    "and": (2, ()),
    "or": (2, ()),
    "not": (1, ()),
    "is_in": (1, ("members",)),
    # nulls and choice
    "is_null": (1, ()),
    "fill_null": (2, ()),
    "coalesce": (None, ()),
    "when": (3, ()),
    # text
    "lower": (1, ()),
    "upper": (1, ()),
    "strip": (1, ()),
    "length": (1, ()),
    "contains": (1, ("text",)),
    "starts_with": (1, ("text",)),
    "ends_with": (1, ("text",)),
    "slice": (1, ("start", "length")),
    "concat": (None, ("separator",)),
    # time: parts in a zone, differences in seconds, shifts by whole microseconds
    "hour": (1, ("zone",)),
    "minute": (1, ("zone",)),
    "weekday": (1, ("zone",)),
    "day": (1, ("zone",)),
    "month": (1, ("zone",)),
    "year": (1, ("zone",)),
    "day_of_year": (1, ("zone",)),
    "week": (1, ("zone",)),
    "seconds_between": (2, ()),
    "shift": (1, ("micros",)),
    # type
    "cast": (1, ("to",)),
}


def walk(node: Node) -> Iterator[Node]:
    """`node` and everything below it, parents first."""
    yield node
    if isinstance(node, Call):
        for argument in node.args:
            yield from walk(argument)


def columns(node: Node) -> frozenset[str]:
    """Names of the raw columns that `node` reads."""
    return frozenset(part.name for part in walk(node) if isinstance(part, Column))


def features(node: Node) -> frozenset[str]:
    """Names of the other features that `node` reads."""
    return frozenset(part.name for part in walk(node) if isinstance(part, Feature))
