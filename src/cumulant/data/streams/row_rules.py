"""The rules of a source on rows of messages, each by itself: what is in one row decides nothing about another.

Types of columns come from the declaration and from JSON, and never from what most texts of a batch look like. A
condition that fails on single rows refuses these; one that fails on none at all is an error of the declaration.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import msgspec
import polars as pl

from cumulant.core.errors import DataError, DefinitionError
from cumulant.core.plan import DType
from cumulant.data.parts.part import PartContext
from cumulant.data.parts.row_sorting import check_rows, plan_rows
from cumulant.data.spec import RuleSpec, SourceSpec
from cumulant.data.streams.kinds import has_numeric_limits
from cumulant.data.text.casts import Cast, column_casts

_Types = dict[str, DType]


def check_rows_alone(
    rows: pl.DataFrame, context: PartContext, known: Mapping[str, DType]
) -> tuple[dict[int, str], _Types]:
    """The first rule that each row breaks, by its place, and the types under which the rows were checked.

    Raises:
        DataError, DefinitionError: the declaration can be used with no row.
    """
    refused: dict[int, str] = {}
    places = range(rows.height)
    where = context.spec.table.where
    for text in where if where and not _is_usable(rows, context) else ():
        names = _new_names(rows, text, context, known)
        if not names:
            continue
        # a new field of a kind that the condition cannot compare
        bad = rows.select(pl.any_horizontal(pl.col(names).is_not_null())).to_series()
        refused |= {places[place]: f"where:{text}" for place in bad.arg_true().to_list()}
        rows = rows.with_columns(pl.lit(None).alias(name) for name in names)
    rules, types = _check(rows, context, places)
    return rules | refused, types


def _is_usable(rows: pl.DataFrame, context: PartContext) -> bool:
    """Whether the declaration fits the types of rows."""
    try:
        _check_all(rows.head(0), context)
    except (DataError, DefinitionError):
        return False
    return True


def _new_names(rows: pl.DataFrame, text: str, context: PartContext, known: Mapping[str, DType]) -> list[str]:
    """The columns without a type before this batch that keep a condition from being used."""
    alone = _with_conditions(context, [text])
    if _is_usable(rows, alone):
        return []
    new = [
        name for name in _roots(text) if name in rows.columns and name not in known and name not in context.spec.rules
    ]
    nulls = rows.with_columns(pl.lit(None).alias(name) for name in new)
    return new if _is_usable(nulls, alone) else []


def condition_names(spec: SourceSpec) -> list[str]:
    """The columns that conditions name: where no message has had one, it is null."""
    return [name for text in spec.table.where for name in _roots(text)]


def _roots(text: str) -> list[str]:
    try:
        return pl.sql_expr(text).meta.root_names()
    except pl.exceptions.PolarsError:  # which is an error of the declaration, and raised as such
        return []


def _with_conditions(context: PartContext, conditions: Sequence[str]) -> PartContext:
    spec = msgspec.structs.replace(
        context.spec, table=msgspec.structs.replace(context.spec.table, where=list(conditions))
    )
    return replace(context, policy=msgspec.structs.replace(context.policy, spec=spec))


def _check(rows: pl.DataFrame, context: PartContext, places: Sequence[int]) -> tuple[dict[int, str], _Types]:
    """As `check_rows_alone`. Where a condition fails, the rows are halved until those remain that it fails on."""
    try:
        rule, types = _check_all(rows, context)
    except DefinitionError:
        if not _is_usable(rows, context):
            raise
        if rows.height == 1:
            failing = (text for text in context.spec.table.where if _fails(rows, _with_conditions(context, [text])))
            return {places[0]: f"where:{next(failing, context.spec.table.where[0])}"}, {}
        middle = rows.height // 2
        first, types = _check(rows[:middle], context, places[:middle])
        second, more = _check(rows[middle:], context, places[middle:])
        return first | second, types | more
    return {places[place]: text for place, text in enumerate(rule.to_list()) if text is not None}, types


def _fails(rows: pl.DataFrame, context: PartContext) -> bool:
    try:
        _check_all(rows, context)
    except DefinitionError:
        return True
    return False


def _check_all(rows: pl.DataFrame, context: PartContext) -> tuple[pl.Series, _Types]:
    """The first rule that each row breaks, or null, and the types under which the rows were checked."""
    schema = rows.schema
    casts = [_alone(cast, schema[cast.name], context.spec) for cast in _casts(schema, context)]
    checked = check_rows(rows, plan_rows(casts, {}, context), context)
    return checked.rule, {cast.name: cast.dtype for cast in casts}


def _casts(schema: Mapping[str, pl.DataType], context: PartContext) -> list[Cast]:
    rules = {name: _typed(rule, schema[name]) if name in schema else rule for name, rule in context.spec.rules.items()}
    return column_casts(schema, msgspec.structs.replace(context.spec, rules=rules), context.source)


def _typed(rule: RuleSpec, dtype: pl.DataType) -> RuleSpec:
    """`rule` with the type without which its limits or members could not be compared with the column's values."""
    if rule.type is not None or rule.number_format is not None or rule.date_format is not None:
        return rule
    fractions = any(isinstance(member, float) and not member.is_integer() for member in rule.in_ or ())
    if (has_numeric_limits(rule) and not dtype.is_numeric()) or (dtype.is_integer() and fractions):
        return msgspec.structs.replace(rule, type="float")
    return rule


def _alone(cast: Cast, dtype: pl.DataType, spec: SourceSpec) -> Cast:
    """`cast` without the mark that depends on other rows; a column of nulls of any type fits every condition."""
    rule = spec.rules.get(cast.name, RuleSpec())
    compared = rule.type is not None or rule.in_ is not None or (spec.deleted and spec.deleted.column == cast.name)
    if dtype == pl.Null() and cast.dtype == "str" and not compared:
        return replace(cast, dtype="bool", expr=pl.col(cast.name))
    return replace(cast, merging=None)
