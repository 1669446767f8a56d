"""Names, constants and small forms of Flink SQL, for sessions with the time zone UTC."""

from __future__ import annotations

import re
from collections.abc import Callable

from cumulant.features.definition.dtypes import Kind

#: types inside of a query: times are microseconds, dates are days, both since 1970 UTC
TYPES: dict[Kind, str] = {
    "bool": "BOOLEAN",
    "int": "BIGINT",
    "float": "DOUBLE",
    "str": "STRING",
    "time": "BIGINT",
    "date": "BIGINT",
}
#: types of the columns of a table
COLUMN_TYPES: dict[Kind, str] = TYPES | {"time": "TIMESTAMP_LTZ(6)", "date": "DATE"}
#: gives a value a name, so that it is written once
Let = Callable[[str], str]
_NAME = re.compile(r"`[^`]+`")
_BOUND = re.compile(r"`let ([0-9]+)`")
DAY_US = 86_400_000_000


def name(text: str) -> str:
    return "`" + text.replace("`", "``") + "`"


class QuerySteps:
    """Values of a query that others use by name; `around` computes them before, in as many steps as they need."""

    def __init__(self) -> None:
        self._levels: list[list[tuple[str, str]]] = []
        self._level_of: dict[str, int] = {}

    def let(self, value: str) -> str:
        if _NAME.fullmatch(value):
            return value
        level = max([0, *(self._level_of[number] + 1 for number in _BOUND.findall(value) if number in self._level_of)])
        number = str(len(self._level_of))
        self._level_of[number] = level
        if level == len(self._levels):
            self._levels.append([])
        self._levels[level].append((f"let {number}", value))
        return name(f"let {number}")

    def around(self, query: str) -> str:
        """A query with the values beside the columns of `query`."""
        for level in self._levels:
            query = f"SELECT *, {', '.join(f'{value} AS {name(of)}' for of, value in level)} FROM ({query})"
        return query


def text(value: str) -> str:
    """A constant text; control characters and the backslash are written as their numbers."""
    quoted = value.replace("'", "''")
    if any(ord(c) < 32 or c == "\\" for c in value):
        quoted = "".join(f"\\{ord(c):04x}" if ord(c) < 32 or c == "\\" else c for c in quoted)
        return f"U&'{quoted}'"
    return f"'{quoted}'"


def constant(value: bool | float | str | None, kind: Kind) -> str:
    if value is None or kind == "null":
        return null(kind)
    if kind == "str":
        return f"CAST({text(str(value))} AS STRING)"
    if kind == "bool":
        return "TRUE" if value else "FALSE"
    if kind == "float":
        return f"CAST('{float(value)!r}' AS DOUBLE)" if float(value) - float(value) == 0 else null("float")
    return f"CAST('{int(value)}' AS BIGINT)"


def null(kind: Kind) -> str:
    return f"CAST(NULL AS {TYPES.get(kind, 'BIGINT')})"


def decimal(value: str, digits: int = 19) -> str:
    """A whole number with room for one more bit, or as many digits."""
    return f"CAST({value} AS DECIMAL({digits}, 0))"


def whole(value: str) -> str:
    """A whole DECIMAL as 64 bits; null where it does not fit."""
    return f"TRY_CAST(CAST({value} AS STRING) AS BIGINT)"


def finite(let: Let, value: str) -> str:
    """A float; null where it is NaN or infinite."""
    value = let(value)
    return f"CASE WHEN ABS({value}) <= CAST('1.7976931348623157E308' AS DOUBLE) THEN {value} END"


def canonical(let: Let, column: str, kind: Kind) -> str:
    """A column of a table in its type inside of a query."""
    if kind == "time":
        return f"(EXTRACT(EPOCH FROM {column}) * 1000000 + MOD(EXTRACT(MICROSECOND FROM {column}), 1000000))"
    if kind == "date":
        return f"CAST(TIMESTAMPDIFF(DAY, DATE '1970-01-01', {column}) AS BIGINT)"
    return finite(let, column) if kind == "float" else column


def outward(value: str, kind: Kind) -> str:
    """A value inside of a query in the type of a table."""
    if kind == "time":
        return f"TO_TIMESTAMP_LTZ({value}, 6)"
    if kind == "date":
        return f"TIMESTAMPADD(DAY, CAST({value} AS INT), DATE '1970-01-01')"
    return value


def interval(micros: int) -> str:
    """A constant span of whole milliseconds, below 1,000 days."""
    millis = micros // 1000
    days, rest = divmod(millis, DAY_US // 1000)
    seconds, millis = divmod(rest, 1000)
    clock = f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}.{millis:03}"
    return f"INTERVAL '{days} {clock}' DAY(3) TO SECOND(3)"
