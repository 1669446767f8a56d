"""Expressions as text: targets, prediction times and rules across columns.

    arr_delay > 15          not cancelled          amount / limit > 0.9 and country in ["FR", "DE"]

Names are columns. Python's parser reads the text, and only a closed list of forms is taken; nothing in it can run.
"""

from __future__ import annotations

import ast
import json
import keyword
import re
from collections.abc import Collection, Mapping
from typing import cast

from cumulant.core.errors import DefinitionError, UsageError, did_you_mean
from cumulant.core.expr import OPERATORS, Call, Column, Literal, Node
from cumulant.core.plan import PredictAt, Source
from cumulant.core.units import duration, micros
from cumulant.features.definition.expressions import Option

_BINARY: dict[type[ast.operator], str] = {
    ast.Add: "add",
    ast.Sub: "sub",
    ast.Mult: "mul",
    ast.Div: "div",
    ast.FloorDiv: "floordiv",
    ast.Mod: "mod",
    ast.Pow: "pow",
    ast.BitAnd: "and",
    ast.BitOr: "or",
}
_COMPARE: dict[type[ast.cmpop], str] = {
    ast.Eq: "eq",
    ast.NotEq: "ne",
    ast.Lt: "lt",
    ast.LtE: "le",
    ast.Gt: "gt",
    ast.GtE: "ge",
}
_CONSTANTS: dict[str, bool | None] = {"true": True, "false": False, "null": None}
#: names that read better than the operator's own
_ALIASES = {"len": "length", "least": "min", "greatest": "max"}
_CASTS = ("bool", "int", "float", "str")
_INFIX = frozenset(
    {
        "add",
        "sub",
        "mul",
        "div",
        "floordiv",
        "mod",
        "pow",
        "neg",
        "eq",
        "ne",
        "lt",
        "le",
        "gt",
        "ge",
        "and",
        "or",
        "not",
        "is_in",
        "cast",
        "shift",
    }
)
FUNCTIONS = tuple(sorted({*OPERATORS} - _INFIX | {*_ALIASES, *_CASTS, "col"}))
_LONGEST = 10_000
_PREDICT_AT = re.compile(r"\s*(?P<column>.+?)\s*(?:(?P<sign>[+-])\s*(?P<span>\d[\d.a-z\s]*))?")


def parse(text: str, *, columns: Collection[str] | None = None) -> Node:
    """`text` as a tree.

    Taken are: column names (`col("any name")` for those that are no Python names), numbers, quoted text, `true`,
    `false`, `null`; `+ - * / // % **`; (chained) comparisons; `and`, `or`, `not`; `in [...]`, `not in [...]`, `is
    null`, `is not null`; `a if condition else b`; the functions of the operator set, such as `abs(x)`, `contains(x,
    "text")`, `hour(x, "Europe/Paris")`; casts `int(x)`, `float(x)`, `str(x)`. With `columns`, a text that is a column's
    name is that column, and other names are refused.

    Raises:
        DefinitionError: the text is none of this; names the fault and the nearest name.
    """
    if columns is not None and text.strip() in columns:
        return Column(text.strip())
    if len(text) > _LONGEST:
        raise DefinitionError(f"an expression may have {_LONGEST} characters, this one has {len(text)}")
    try:
        tree = ast.parse(text.strip(), mode="eval")
    except SyntaxError as error:
        raise DefinitionError(f'cannot read "{text}": {error.msg}', subject=text, hint=_syntax_hint(text)) from None
    except (ValueError, RecursionError, MemoryError):
        raise DefinitionError("cannot read this expression: it is nested too deeply", subject=text[:80]) from None
    return _Reader(text, columns).node(tree.body)


def _syntax_hint(text: str) -> str:
    if re.search(r"(?<![=!<>])=(?!=)", text):
        return "equality is written =="
    if "&&" in text or "||" in text:
        return "write and, or, not"
    return 'a column whose name has spaces or signs is written col("its name")'


def with_quoted_columns(text: str, columns: Collection[str]) -> str | None:
    """`text` with `col("any name")` for columns that are no Python names; None where that changes or parses nothing."""
    names = [name for name in columns if name and (keyword.iskeyword(name) or not name.isidentifier())]
    if not names:
        return None
    known = "|".join(re.escape(name) for name in sorted(names, key=len, reverse=True))
    written = re.sub(rf"""("[^"]*"|'[^']*')|(?<!\w)(?:{known})(?!\w)""", _quoted_column, text)
    try:
        parse(written, columns=columns)
    except DefinitionError:
        return None
    return None if written == text else written


def _quoted_column(match: re.Match[str]) -> str:
    return match[1] or f"col({json.dumps(match[0], ensure_ascii=False)})"


def parse_predict_at(text: str, sources: Mapping[str, Source], *, entity: str | None = None) -> PredictAt:
    """`sched_dep` or `sched_dep - 2h` as a moment of prediction, with a column of `entity` (default: of all sources).

    Raises:
        DefinitionError: not of this form, no such column, or no time column.
    """
    match = _PREDICT_AT.fullmatch(text)
    if match is None:
        raise DefinitionError(f'cannot read predict_at "{text}"', subject=text, hint="write: sched_dep - 2h")
    column, offset = match["column"], 0
    if match["span"]:
        try:
            offset = micros(duration(match["span"].strip())) * (-1 if match["sign"] == "-" else 1)
        except UsageError as error:
            raise DefinitionError(f"predict_at: {error.message}", subject=text, hint=error.hint) from None
    searched = [sources[entity]] if entity is not None else list(sources.values())
    fields = {field.name: field for source in searched for field in source.fields}
    if column not in fields:
        hint = did_you_mean(column, fields) or "write a time column, plus or minus a duration: sched_dep - 2h"
        raise DefinitionError(f'predict_at: there is no column "{column}"', subject=column, hint=hint)
    if fields[column].dtype != "time":
        times = ", ".join(name for name, field in fields.items() if field.dtype == "time")
        raise DefinitionError(f'predict_at: "{column}" is no time', subject=column, hint=f"times are: {times}")
    return PredictAt(column, offset)


class _Reader:
    """Turns Python's syntax tree into ours, form by form; what is not listed is refused."""

    def __init__(self, text: str, columns: Collection[str] | None) -> None:
        self._text = text
        self._columns = columns

    def node(self, tree: ast.expr) -> Node:  # noqa: PLR0911  (one a form)
        match tree:
            case ast.Name(id=name):
                return self._name(name)
            case ast.Constant(value=value):
                return self._constant(value)
            case ast.BinOp(left=first, op=op, right=second) if type(op) in _BINARY:
                return Call(_BINARY[type(op)], (self.node(first), self.node(second)))
            case ast.UnaryOp(op=op, operand=operand):
                return self._unary(op, operand)
            case ast.BoolOp(op=op, values=values):
                return self._chain("and" if isinstance(op, ast.And) else "or", [self.node(value) for value in values])
            case ast.Compare(left=first, ops=ops, comparators=comparators):
                sides = [first, *comparators]
                pairs = zip(ops, sides, sides[1:], strict=False)
                return self._chain("and", [self._compare(op, a, b) for op, a, b in pairs])
            case ast.IfExp(test=test, body=body, orelse=other):
                return Call("when", (self.node(test), self.node(body), self.node(other)))
            case ast.Call():
                return self._call(tree)
        raise self._refuse(tree)

    def _refuse(self, tree: ast.AST, hint: str | None = None) -> DefinitionError:
        part = ast.get_source_segment(self._text.strip(), tree) or self._text
        return DefinitionError(f'"{part}" cannot be used in an expression', subject=self._text, hint=hint)

    def _name(self, name: str) -> Node:
        if name.lower() in _CONSTANTS and (self._columns is None or name not in self._columns):
            return Literal(_CONSTANTS[name.lower()])
        if self._columns is not None and name not in self._columns:
            hint = did_you_mean(name, self._columns) or f"there are {', '.join(sorted(self._columns)[:12])}"
            raise DefinitionError(f'there is no column "{name}"', subject=name, hint=hint)
        return Column(name)

    def _constant(self, value: object) -> Literal:
        if isinstance(value, int) and not -(2**63) <= value < 2**63:
            raise DefinitionError(f"{value} does not fit 64 bits", subject=self._text)
        if value is None or isinstance(value, bool | int | float | str):
            return Literal(value)
        raise DefinitionError(f"{value!r} cannot be used in an expression", subject=self._text)

    def _unary(self, op: ast.unaryop, operand: ast.expr) -> Node:
        if isinstance(op, ast.Not | ast.Invert):
            return Call("not", (self.node(operand),))
        if isinstance(op, ast.UAdd):
            return self.node(operand)
        inner = self.node(operand)
        if isinstance(inner, Literal) and isinstance(inner.value, int | float) and not isinstance(inner.value, bool):
            return Literal(-inner.value)
        return Call("neg", (inner,))

    def _chain(self, op: str, nodes: list[Node]) -> Node:
        joined = nodes[0]
        for node in nodes[1:]:
            joined = Call(op, (joined, node))
        return joined

    def _compare(self, op: ast.cmpop, first: ast.expr, second: ast.expr) -> Node:
        if isinstance(op, ast.In | ast.NotIn):
            if not isinstance(second, ast.List | ast.Tuple | ast.Set):
                raise self._refuse(second, 'write: x in ["a", "b"]')
            members = [self._member(item) for item in second.elts]
            membership = Call("is_in", (self.node(first),), {"members": members})
            return membership if isinstance(op, ast.In) else Call("not", (membership,))
        a, b = self.node(first), self.node(second)
        equal = isinstance(op, ast.Is | ast.Eq)
        if isinstance(op, ast.Is | ast.IsNot) or (isinstance(op, ast.Eq | ast.NotEq) and b == Literal(None)):
            if b != Literal(None):
                raise self._refuse(second, '"is" compares with null only; write == for values')
            return Call("is_null", (a,)) if equal else Call("not", (Call("is_null", (a,)),))
        return Call(_COMPARE[type(op)], (a, b))

    def _member(self, item: ast.expr) -> bool | int | float | str:
        node = self.node(item)
        if not isinstance(node, Literal) or node.value is None:
            raise self._refuse(item, "members of a list are constants")
        return node.value

    def _call(self, tree: ast.Call) -> Node:
        if not isinstance(tree.func, ast.Name) or (tree.keywords and any(k.arg is None for k in tree.keywords)):
            raise self._refuse(tree, f"functions are {', '.join(FUNCTIONS)}")
        name = tree.func.id
        if name not in FUNCTIONS:
            hint = did_you_mean(name, FUNCTIONS) or f"functions are {', '.join(FUNCTIONS)}"
            raise DefinitionError(f'there is no function "{name}"', subject=name, hint=hint)
        if name == "col":
            return self._col(tree)
        if name in _CASTS:
            return Call("cast", self._arguments(tree, name, 1), {"to": name})
        op = _ALIASES.get(name, name)
        arity, known = OPERATORS[op]
        return Call(op, self._arguments(tree, op, arity), self._options(tree, arity, known))

    def _col(self, tree: ast.Call) -> Node:
        match tree.args:
            case [ast.Constant(value=str(name))] if not tree.keywords:
                if self._columns is not None and name not in self._columns:
                    hint = did_you_mean(name, self._columns)
                    raise DefinitionError(f'there is no column "{name}"', subject=name, hint=hint)
                return Column(name)
        raise self._refuse(tree, 'write: col("name")')

    def _arguments(self, tree: ast.Call, op: str, arity: int | None) -> tuple[Node, ...]:
        given = tree.args if arity is None else tree.args[:arity]
        if not given or (arity is not None and len(given) < arity):
            raise self._refuse(tree, f"{op} takes {arity or 'at least one'} argument(s)")
        return tuple(self.node(argument) for argument in given)

    def _options(self, tree: ast.Call, arity: int | None, known: tuple[str, ...]) -> dict[str, Option]:
        """Constants after the arguments, in the order of the operator's options or by name."""
        extra = [] if arity is None else tree.args[arity:]
        if len(extra) > len(known):
            raise self._refuse(tree, "too many arguments")
        given = [*zip(known, extra, strict=False), *((cast("str", k.arg), k.value) for k in tree.keywords)]
        for name, _ in given:
            if name not in known:
                raise self._refuse(tree, did_you_mean(name, known) or f"options are {', '.join(known) or 'none'}")
        return {name: self._member(item) for name, item in given}
