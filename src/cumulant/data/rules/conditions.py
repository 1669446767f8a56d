"""Conditions of `table.where`: SQL in which undefined computations have no result and whole numbers do not wrap.

A row is refused where its condition is false, or null because of a division by zero or a function outside its domain.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence

import polars as pl

from cumulant.core.plan import DType

_TOKEN = re.compile(
    r"\s+|--[^\n]*|/\*.*?\*/|'(?:[^']|'')*'|\"(?:[^\"]|\"\")*\"|`[^`]*`"
    r"|(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?|\w+"
    r"|<=>|->>|!~\*|!~~\*|~~\*|::|//|<=|>=|<>|!=|==|\|\||->|<<|>>|&&|!~~|~~|!~|~\*|\^@|@>|<@|.",
    re.DOTALL,
)
_DIVISIONS, _DIVIDING_FUNCTIONS = frozenset({"/", "//", "%"}), frozenset({"DIV", "MOD"})
_PARTIAL_FUNCTIONS = frozenset({"SQRT", "LN", "LOG", "LOG1P", "LOG2", "LOG10", "ASIN", "ACOS"})
_NOT_FINITE = "CAST('NaN' AS DOUBLE), CAST('inf' AS DOUBLE), CAST('-inf' AS DOUBLE)"
_ARITHMETIC = frozenset({"+", "-", "*"})
Tokens = Sequence[str]
#: of the tokens of a value and those values that it may not have
Guard = Callable[[Tokens, str], str]


def compile_condition(text: str, types: Mapping[str, DType]) -> pl.Expr:
    """The rows that break the condition, over columns of these types.

    Raises:
        PolarsError: it is no expression of SQL.
    """
    plain = pl.sql_expr(text)  # what is wrong with it is reported of the text as written
    whole = {name for name, dtype in types.items() if dtype == "int"}
    temporal = {name for name, dtype in types.items() if dtype in ("time", "date")}
    tokens = _widen_integers([token for token in _TOKEN.findall(text) if not _is_blank(token)], whole)
    guarded = _guard_undefined(tokens, _guard("NULL", temporal))
    if guarded == tokens:
        return ~(pl.sql_expr(" ".join(tokens)) if any("INT128" in token for token in tokens) else plain)
    holds = pl.sql_expr(" ".join(guarded))
    defined = _guard_undefined(tokens, _guard("1", temporal))
    return ~holds | (holds.is_null() & pl.sql_expr(" ".join(defined)).is_not_null())


def _guard(instead: str, temporal: Collection[str]) -> Guard:
    """Puts `instead` in the place of values that a number may not have; spans of time are left as they are."""

    def guard(tokens: Tokens, undefined: str) -> str:
        value = " ".join(tokens)
        if any(_name(token) in temporal for token in tokens):
            return value
        return f"(CASE WHEN ({value}) IN ({undefined}) THEN {instead} ELSE ({value}) END)"

    return guard


def _is_blank(token: str) -> bool:
    return token.isspace() or token.startswith(("--", "/*"))


def _widen_integers(tokens: Tokens, whole: Collection[str]) -> list[str]:
    """Columns of whole numbers beside + - * as 128-bit numbers; not where they count intervals of time."""
    if any(token.upper() == "INTERVAL" for token in tokens):
        return list(tokens)
    result = []
    for before, token, after in zip(["", *tokens], tokens, [*tokens[1:], ""], strict=False):
        is_column = _name(token) in whole and before != "." and after not in {"(", ".", "::"}
        computed = is_column and (before in _ARITHMETIC or after in _ARITHMETIC)
        result.append(f"CAST({token} AS INT128)" if computed else token)
    return result


def _name(token: str) -> str:
    return token[1:-1] if token[:1] in {'"', "`"} else token


def _guard_undefined(tokens: Tokens, guard: Guard) -> list[str]:
    """The tokens with `guard` around divisors and functions that are not defined everywhere, also inside of others."""
    result: list[str] = []
    at = 0
    while at < len(tokens):
        token, name, calls = tokens[at], tokens[at].upper(), tokens[at + 1 : at + 2] == ["("]
        comma = _comma(tokens, at + 1) if calls and name in _DIVIDING_FUNCTIONS else None
        end = _closing_end(tokens, at + 1) if calls else at + 1
        if token in _DIVISIONS:
            end = _operand_end(tokens, at + 1)
            result += [token, guard(_guard_undefined(tokens[at + 1 : end], guard), "0")]
        elif comma is not None:
            divisor = guard(_guard_undefined(tokens[comma + 1 : end - 1], guard), "0")
            result += [token, *_guard_undefined(tokens[at + 1 : comma], guard), ",", divisor, ")"]
        elif calls and name in _PARTIAL_FUNCTIONS:
            result.append(guard([token, *_guard_undefined(tokens[at + 1 : end], guard)], _NOT_FINITE))
        else:
            result.append(token)
            end = at + 1
        at = end
    return result


def _operand_end(tokens: Tokens, at: int) -> int:
    """Where the operand that begins at `at` ends: signs, a value, its casts."""
    while at < len(tokens) and tokens[at] in {"+", "-"}:
        at += 1
    if at < len(tokens) and tokens[at].upper() == "CASE":
        at = _case_end(tokens, at)
    elif at < len(tokens) and tokens[at] == "(":
        at = _closing_end(tokens, at)
    else:
        at += 1
        while at + 1 < len(tokens) and tokens[at] == ".":
            at += 2
        at = _closing_end(tokens, at) if tokens[at : at + 1] == ["("] else at
    while tokens[at : at + 1] == ["::"]:
        at += 2
        at = _closing_end(tokens, at) if tokens[at : at + 1] == ["("] else at
    return min(at, len(tokens))


def _closing_end(tokens: Tokens, at: int) -> int:
    """The place after the parenthesis that closes the one at `at`."""
    depth = 0
    for place in range(at, len(tokens)):
        depth += (tokens[place] == "(") - (tokens[place] == ")")
        if depth == 0:
            return place + 1
    return len(tokens)


def _case_end(tokens: Tokens, at: int) -> int:
    depth = 0
    for place in range(at, len(tokens)):
        depth += (tokens[place].upper() == "CASE") - (tokens[place].upper() == "END")
        if depth == 0:
            return place + 1
    return len(tokens)


def _comma(tokens: Tokens, at: int) -> int | None:
    """The comma between the two arguments of the call whose parenthesis opens at `at`."""
    depth, commas = 0, []
    for place in range(at, _closing_end(tokens, at)):
        depth += (tokens[place] == "(") - (tokens[place] == ")")
        if depth == 1 and tokens[place] == ",":
            commas.append(place)
    return commas[0] if len(commas) == 1 else None
