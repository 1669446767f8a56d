"""Names, constants and small forms of Spark SQL, for sessions in ANSI mode with the time zone UTC."""

from __future__ import annotations

from collections.abc import Sequence

from cumulant.features.definition.dtypes import Kind

#: types inside of a query: times are microseconds, dates are days, both since 1970 UTC
TYPES: dict[Kind, str] = {
    "bool": "BOOLEAN",
    "int": "BIGINT",
    "float": "DOUBLE",
    "str": "STRING",
    "time": "BIGINT",
    "date": "BIGINT",
    "bytes": "BINARY",
    "null": "VOID",
}
DAY_US = 86_400_000_000
_ESCAPES = {"\\": "\\\\", "'": "\\'"}


def name(text: str) -> str:
    return "`" + text.replace("`", "``") + "`"


def text(value: str) -> str:
    """A constant text; control characters are written as their numbers, and so is `$`, with which Spark substitutes
    variables of its server before it reads the text.
    """
    return "'" + "".join(_ESCAPES.get(c, f"\\u{ord(c):04x}" if ord(c) < 32 or c == "$" else c) for c in value) + "'"


def constant(value: bool | float | str | None, kind: Kind) -> str:
    if value is None or kind == "null":
        return null(kind)
    if kind == "str":
        return text(str(value))
    if kind == "bool":
        return "true" if value else "false"
    if kind == "float":
        number = float(value)
        return f"CAST('{number!r}' AS DOUBLE)" if number - number == 0 else null("float")
    return f"CAST('{int(value)}' AS BIGINT)"


def null(kind: Kind) -> str:
    return "NULL" if kind == "null" else f"CAST(NULL AS {TYPES[kind]})"


def let(values: Sequence[str], body: str) -> str:
    """`body` with the values as `v.a`, `v.b`, ..., so that each is written and computed once."""
    fields = ", ".join(f"'{chr(97 + i)}', {value}" for i, value in enumerate(values))
    return f"transform(array(named_struct({fields})), v -> {body})[0]"


def finite(value: str) -> str:
    """A float; null where it is NaN or infinite."""
    return f"get(filter(array({value}), v -> abs(v) < CAST('Infinity' AS DOUBLE)), 0)"


def canonical(column: str, kind: Kind) -> str:
    """A column of a table in its type inside of a query."""
    if kind == "time":
        return f"unix_micros({column})"
    if kind == "date":
        return f"CAST(unix_date({column}) AS BIGINT)"
    return finite(column) if kind == "float" else column


def outward(value: str, kind: Kind) -> str:
    """A value inside of a query in the type of a table."""
    if kind == "time":
        return f"timestamp_micros({value})"
    if kind == "date":
        return f"date_from_unix_date(CAST({value} AS INT))"
    return value
