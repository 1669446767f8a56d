"""Rules of a source as Polars expressions, which mark the rows that fail in one pass. A null breaks no rule."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime

import polars as pl

from cumulant.core.errors import DataError, DefinitionError, UsageError, did_you_mean
from cumulant.core.plan import DType
from cumulant.core.units import moment
from cumulant.data.policy import SourcePolicy
from cumulant.data.rules.conditions import compile_condition
from cumulant.data.spec import Bound, Member, RuleSpec, SourceSpec
from cumulant.data.text.casts import POLARS, Cast

_PRESENT, _ZONELESS, _MERGING = "__present:", "__zoneless:", "__merging:"


class AbsentColumnError(DataError):
    """A declared column that the rows do not have; its name is the subject."""


def absent_column_error(message: str, name: str, known: Sequence[str]) -> AbsentColumnError:
    """The error for a declared column `name` that is not among `known`, with the nearest of them as hint."""
    hint = did_you_mean(name, known) or f"columns: {', '.join(known[:20])}"
    return AbsentColumnError(message, subject=name, hint=hint)


@dataclass(frozen=True)
class RowCheck:
    """One rule over the rows of a part. `rule` names it (`distance:min`), `text` describes it."""

    rule: str
    column: str | None
    text: str
    failing: pl.Expr


def compile_rules(policy: SourcePolicy, casts: list[Cast], *, source: str) -> list[RowCheck]:
    """The row checks of a source, over cast columns.

    Raises:
        DataError: a rule names a value that its column cannot hold.
        DefinitionError: a pattern or condition that cannot be parsed.
    """
    spec, types = policy.spec, {cast.name: cast.dtype for cast in casts}
    checks = [_presence_check(column, types[column]) for column in _required_columns(policy) if column in types]
    for column, rule in spec.rules.items():
        if column in types:
            checks += _column_checks(column, rule, types[column], source=source, personal=column in spec.personal)
    return checks + [_condition(text, types) for text in spec.table.where]


def reading_marks(casts: list[Cast]) -> list[pl.Expr]:
    """Marks of the raw columns by which values that were lost in reading are recognized."""
    marks = [cast.present.alias(f"{_PRESENT}{cast.name}") for cast in casts if cast.present is not None]
    marks += [cast.merging.alias(f"{_MERGING}{cast.name}") for cast in casts if cast.merging is not None]
    return marks + [cast.zoneless.alias(f"{_ZONELESS}{cast.name}") for cast in casts if cast.zoneless is not None]


def reading_checks(casts: list[Cast]) -> list[RowCheck]:
    """Checks that each value could be read as its column's type; they read cast columns and reading marks."""
    checks = []
    for cast in casts:
        name = cast.name
        if cast.zoneless is not None:
            local = pl.col(f"{_ZONELESS}{name}") & pl.col(name).is_not_null()
            checks.append(RowCheck(f"{name}:zone", name, f"{name} has a time zone", local))
        if cast.present is not None:
            lost = pl.col(f"{_PRESENT}{name}") & pl.col(name).is_null()
            checks.append(RowCheck(f"{name}:type", name, f"{name} is of type {cast.dtype}", lost))
        if cast.merging is not None:
            text = f"no two texts of {name} are one number but for leading zeros (`type: str` keeps them apart)"
            checks.append(RowCheck(f"{name}:zeros", name, text, pl.col(f"{_MERGING}{name}")))
    return checks


def _presence_check(column: str, dtype: DType) -> RowCheck:
    """A value that is known: text of blanks and infinite numbers are none."""
    value = pl.col(column)
    if dtype == "str":
        blank = value.is_null() | (value.str.strip_chars() == "")
        return RowCheck(f"{column}:nulls", column, f"{column} is not null or blank", blank)
    if dtype == "float":
        unknown = value.is_null() | value.is_infinite()
        return RowCheck(f"{column}:nulls", column, f"{column} is not null or infinite", unknown)
    return RowCheck(f"{column}:nulls", column, f"{column} is not null", value.is_null())


def _required_columns(policy: SourcePolicy) -> list[str]:
    """Columns that may never be null: the key, the event time, and those limited to no nulls."""
    spec = policy.spec
    time = [spec.time.column] if spec.time else []
    limited = [column for column in spec.rules if column in policy.required]
    return list(dict.fromkeys([*spec.keys, *time, *limited]))


def _column_checks(column: str, rule: RuleSpec, dtype: DType, *, source: str, personal: bool) -> list[RowCheck]:
    value, checks = pl.col(column), []
    if rule.min is not None:
        low = _bound(rule.min, dtype, column, source)
        checks.append(RowCheck(f"{column}:min", column, f"{column} is at least {rule.min}", value < low))
    if rule.max is not None:
        high = _bound(rule.max, dtype, column, source)
        checks.append(RowCheck(f"{column}:max", column, f"{column} is at most {rule.max}", value > high))
    if rule.in_ is not None:
        members = [parse_member(member, dtype, column, source) for member in rule.in_]
        listed = f"a set of {len(members)}" if personal else ", ".join(str(member) for member in rule.in_[:20])
        outside = ~value.is_in(pl.Series(members, dtype=POLARS[dtype]).implode())
        checks.append(RowCheck(f"{column}:in", column, f"{column} is one of {listed}", outside))
    if rule.pattern is not None:
        text = f"{column} matches {rule.pattern}"
        missing = ~value.cast(pl.String).str.contains(_pattern(rule.pattern, column))
        checks.append(RowCheck(f"{column}:pattern", column, text, missing))
    return checks


def _bound(bound: Bound, dtype: DType, column: str, source: str) -> pl.Expr:
    limit = pl.lit(parse_bound(bound, dtype, column, source))
    return limit.cast(POLARS["time"]) if dtype == "time" else limit


def parse_bound(bound: Bound, dtype: DType, column: str, source: str) -> int | float | date | datetime:
    """A limit as a value of the column's type.

    Raises:
        DataError: it is none of that type.
    """
    try:
        if dtype == "time":
            return moment(str(bound))
        if dtype == "date":
            return date.fromisoformat(str(bound))
        if dtype in ("int", "float"):
            return float(bound) if isinstance(bound, str) else bound
    except (ValueError, UsageError):
        pass
    raise DataError(
        f'source {source}: the limit {bound!r} does not fit column "{column}", which is of type {dtype}',
        subject=column,
        hint="limits are for numbers, times and dates; declare the column's `type` if it was read wrongly",
    )


def parse_member(member: Member, dtype: DType, column: str, source: str) -> Member:
    """An allowed value as one of the column's type.

    Raises:
        DataError: it is none of that type.
    """
    if dtype == "str":
        return str(member)
    fits: tuple[type, ...] | None = {"int": (int,), "float": (int, float), "bool": (bool,)}.get(dtype)
    if fits is not None and isinstance(member, fits) and (dtype == "bool") == isinstance(member, bool):
        return member
    if dtype == "int" and isinstance(member, float) and member.is_integer():
        return int(member)
    if dtype == "bool" and member in (0, 1):
        return bool(member)
    raise DataError(
        f'source {source}: {member!r} can never be in column "{column}", which is of type {dtype}',
        subject=column,
        hint="write members of the column's type; declare its `type` if it was read wrongly",
    )


def _pattern(pattern: str, column: str) -> str:
    try:
        pl.select(pl.lit("").str.contains(pattern))
    except pl.exceptions.PolarsError as error:
        raise DefinitionError(
            f'the pattern of column "{column}" is no regular expression: {pattern}',
            subject=column,
            hint="use Rust's regex syntax: no look-around, no back-references",
        ) from error
    return pattern


def _condition(text: str, types: Mapping[str, DType]) -> RowCheck:
    try:
        breaks = compile_condition(text, types)
    except pl.exceptions.PolarsError as error:
        raise DefinitionError(
            f"the condition `{text}` cannot be understood",
            subject=text,
            hint="write a comparison of columns, such as arr_time >= dep_time",
        ) from error
    return RowCheck(f"where:{text}", None, text, breaks)


def check_columns(spec: SourceSpec, names: Mapping[str, object] | list[str], *, source: str, url: str) -> None:
    """Raise DataError where `names` lacks a declared key, time or known-time column; the hint is the nearest name."""
    known = list(names)
    for name in known:
        if name.startswith("__"):
            raise DataError(
                f'{url}: column "{name}" starts with two underscores, which Cumulant keeps for itself',
                subject=name,
                hint="rename it in `prepare`",
            )
    needed = [("key", name) for name in spec.keys]
    needed += [("event_time", spec.time.column)] if spec.time else []
    needed += [("known_time", when) for when in spec.known_times]
    needed += [("sequence_by", spec.sequence_by)] if spec.sequence_by is not None else []
    for role, name in needed:
        if name not in known:
            raise absent_column_error(
                f'source {source}: {url} has no column "{name}", which is declared as {role}', name, known
            )


def refuse_unknown_columns(spec: SourceSpec, columns: Sequence[str], *, source: str) -> None:
    """Raise DataError where a rule, known time, period, personal mark or subject names no column that a file has."""
    if spec.batch.period is not None and spec.time is None:
        raise DataError(
            f"source {source}: `batch.period` needs the time of each row",
            subject=source,
            hint="declare event_time, or leave `period` out: new rows are then evaluated by file",
        )
    named = [("rules", column) for column in spec.rules]
    named += [("known_time", column) for column in spec.known_columns]
    named += [("personal", column) for column in spec.personal]
    named += [("subject", spec.subject)] if spec.subject else []
    for role, column in named:
        if column not in columns:
            raise absent_column_error(f'source {source} has no column "{column}", which {role} names', column, columns)


def check_conditions(checks: list[RowCheck], frame: pl.DataFrame, *, source: str) -> None:
    """Raise where a cross-column condition does not fit the columns.

    Raises:
        AbsentColumnError: it names an unknown column.
        DefinitionError: it compares incompatible types, or is not boolean.
    """
    for check in checks:
        if check.column is not None:
            continue
        absent = next((name for name in check.failing.meta.root_names() if name not in frame.columns), None)
        if absent is not None:
            message = f'source {source} has no column "{absent}", which the condition `{check.text}` names'
            raise absent_column_error(message, absent, frame.columns)
        try:
            dtype = frame.select(check.failing.alias("failing")).schema["failing"]
        except pl.exceptions.PolarsError as error:
            reason = str(error).splitlines()[0]
            raise DefinitionError(
                f"source {source}: the condition `{check.text}` does not fit its columns: {reason}",
                subject=check.text,
                hint=f"columns: {', '.join(frame.columns[:20])}",
            ) from error
        if dtype != pl.Boolean:
            raise DefinitionError(
                f"source {source}: the condition `{check.text}` gives {dtype}, not true or false",
                subject=check.text,
                hint="write a comparison, such as arr_time >= dep_time",
            )
