"""Rows of a file sorted into those that pass every row rule and those that are refused."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import polars as pl

from cumulant.core.errors import DefinitionError
from cumulant.data.deletions import without_deletions
from cumulant.data.parts.part import PartCheck, PartContext
from cumulant.data.row_columns import ROW, RULE
from cumulant.data.rules.prepare_check import SAMPLE
from cumulant.data.rules.row_checks import RowCheck, check_conditions, compile_rules, reading_checks, reading_marks
from cumulant.data.rules.unique import UniqueSet, mark_repeats, ordering_times, unique_sets
from cumulant.data.spec import SourceSpec
from cumulant.data.text.casts import Cast, column_casts, declare_numbers, refuse_zoneless
from cumulant.data.text.identifier_text import padded_width


class RowPlan(NamedTuple):
    """How the rows of a file are read and checked: `checks` are those of reading, then the declared ones.

    `padded`: digits of the longest text with leading zeros, of columns that are read as numbers.
    """

    casts: list[Cast]
    reading: list[RowCheck]
    checks: list[RowCheck]
    padded: Mapping[str, int | None]

    @property
    def names(self) -> list[str]:
        return [cast.name for cast in self.casts]


def plan_rows(plan: Sequence[Cast], padded: Mapping[str, int | None], context: PartContext) -> RowPlan:
    # The look for numbers that merge is costly, and idle where no text has leading zeros.
    column_plan = [replace(cast, merging=None) if padded.get(cast.name) is None else cast for cast in plan]
    reading = reading_checks(column_plan)
    checks = compile_rules(context.policy, column_plan, source=context.source)
    checks = without_deletions(checks, context.spec, {cast.name: cast.dtype for cast in column_plan}, context.source)
    return RowPlan(column_plan, reading, [*reading, *checks], padded)


@dataclass(frozen=True)
class CheckedRows:
    """Typed rows, the first rule that each fails, and whether it fails each check of the plan (`__mark0`, ...)."""

    typed: pl.DataFrame
    rule: pl.Series
    marks: pl.DataFrame

    def failed(self, plan: RowPlan) -> list[int]:
        """How many rows fail each check of the plan."""
        return [int(self.marks[_mark(index)].sum()) for index in range(len(plan.checks))]

    def local_times(self, plan: RowPlan, owners: pl.Series | None = None) -> pl.DataFrame:
        """Of each time column, and owner, how many times lack a zone and how many are valid."""
        owner = pl.lit(0) if owners is None else owners
        frames = [
            self.typed.with_columns(self.marks[_mark(index)])
            .group_by(owner.alias("owner"))
            .agg(
                pl.lit(check.column).alias("column"),
                pl.col(_mark(index)).sum().cast(pl.Int64).alias("local"),
                pl.col(check.column).is_not_null().sum().cast(pl.Int64).alias("valid"),
            )
            .select("owner", "column", "local", "valid")
            for index, check in enumerate(plan.checks)
            if check.rule.endswith(":zone") and check.column is not None
        ]
        schema = {"owner": pl.Int32, "column": pl.String, "local": pl.Int64, "valid": pl.Int64}
        return pl.concat(frames) if frames else pl.DataFrame(schema=schema)


def check_rows(rows: pl.DataFrame, plan: RowPlan, context: PartContext) -> CheckedRows:
    """Type the rows and check each by itself: one pass over them.

    Raises:
        DefinitionError: a condition fails, or reads other rows.
    """
    typing = rows.lazy().select([cast.expr for cast in plan.casts] + reading_marks(plan.casts))
    check_conditions(
        plan.checks[len(plan.reading) :], typing.select(plan.names).head(0).collect(), source=context.source
    )
    marked = _collect(typing.with_columns(_marks(plan.checks)), context)
    _refuse_aggregates(marked, plan.checks, context.source)
    marks = [_mark(index) for index in range(len(plan.checks))]
    rule = marked.select(_first_rule(plan.checks, marks)).to_series()
    return CheckedRows(_with_decimals(marked.select(plan.names), rows, plan.casts), rule, marked.select(marks))


def refuse_local_times(plan: RowPlan, counts: pl.DataFrame, source: str) -> None:
    """Raise where no time of a column, in one file, has a zone. `counts`: as `CheckedRows.local_times`."""
    without = counts.filter((pl.col("local") > 0) & (pl.col("local") == pl.col("valid")))
    if without.height:
        first = without.item(0, "column")
        refuse_zoneless(next(cast for cast in plan.casts if cast.name == first), source)


def count_failures(plan: RowPlan, failed: Sequence[int]) -> list[PartCheck]:
    """The checks of the plan with the rows that fail each."""
    return [
        PartCheck(rule=check.rule, column=check.column, text=check.text, failed=count)
        for check, count in zip(plan.checks, failed, strict=True)
    ]


@dataclass(frozen=True)
class SortedRows:
    """The rows of a file, or of several: `rule` and `marks` as `CheckedRows`, with repeats."""

    plan: RowPlan
    passed: pl.DataFrame
    refused: pl.DataFrame
    checks: tuple[PartCheck, ...]
    rule: pl.Series
    marks: pl.DataFrame


def sort_rows(rows: pl.DataFrame, context: PartContext, owners: pl.Series | None = None) -> SortedRows:
    """Split rows into passed ones, under their final types, and refused ones with `__rule` and `__row`.

    `owners`: the file of each row, where they are of several; values must be unique in each.
    """
    read = column_casts(rows.schema, declare_numbers(rows, context.spec), context.source)
    widths = {cast.name: padded_width(rows[cast.name].str.strip_chars()) for cast in read if cast.merging is not None}
    plan = plan_rows(read, widths, context)
    checked = check_rows(rows, plan, context)
    refuse_local_times(plan, checked.local_times(plan, owners), context.source)
    rule, checks = checked.rule, count_failures(plan, checked.failed(plan))
    # One part cannot decide which row of several keys has a unique value first.
    for unique in unique_sets(context.spec, plan.names) if context.spec.on_repeat != "latest" else ():
        rule, repeats = _mark_repeats(checked.typed, rule, unique, context.spec, owners)
        checks.append(PartCheck(rule=unique.rule, column=unique.column, text=unique.text, failed=repeats))
    passed = checked.typed.filter(rule.is_null()) if rule.null_count() != rule.len() else checked.typed
    refused = refused_frame(rows, checked.typed, rule, unread_columns(plan, checked.failed(plan)))
    return SortedRows(plan, passed, refused, tuple(checks), rule, checked.marks)


def unread_columns(plan: RowPlan, failed: Sequence[int]) -> set[str]:
    """Columns with a value that cannot be read as its type."""
    counts = zip(plan.reading, failed, strict=False)
    return {check.column for check, count in counts if count and check.column is not None}


def _mark(index: int) -> str:
    return f"__mark{index}"


def _with_decimals(typed: pl.DataFrame, rows: pl.DataFrame, plan: Sequence[Cast]) -> pl.DataFrame:
    """Decimals as they came: rules and profiles go by floats, keys and what is stored by all digits."""
    exact = [cast.name for cast in plan if cast.dtype == "float" and rows[cast.name].dtype.is_decimal()]
    return typed.with_columns(rows.select(exact).get_columns())


def _collect(frame: pl.LazyFrame, context: PartContext) -> pl.DataFrame:
    try:
        return frame.collect()
    except pl.exceptions.PolarsError as error:  # its text may quote values
        raise DefinitionError(
            f"source {context.source}: a condition fails on some rows ({type(error).__name__})",
            subject=context.source,
            hint=f"look for casts in: {'; '.join(context.spec.table.where) or 'the rules'}",
        ) from error


def _refuse_aggregates(marked: pl.DataFrame, checks: Sequence[RowCheck], source: str) -> None:
    """Raise for a condition that reads other rows (an average, a rank): its results differ on a sample."""
    sample = marked.gather_every(max(marked.height // SAMPLE, 1)).head(max(marked.height // 2, 1))
    for index, check in enumerate(checks):
        mark = _mark(index)
        alone = check.failing.fill_null(value=False)
        if check.column is None and not sample.select((alone == pl.col(mark)).all()).item():
            raise DefinitionError(
                f"source {source}: the condition `{check.text}` reads other rows",
                subject=check.text,
                hint="compare columns of one row; what needs other rows is a feature",
            )


def _marks(checks: Sequence[RowCheck]) -> list[pl.Expr]:
    return [check.failing.fill_null(value=False).alias(_mark(index)) for index, check in enumerate(checks)]


def _first_rule(checks: Sequence[RowCheck], marks: Sequence[str]) -> pl.Expr:
    """The name of the first rule that a row fails; null for a row that passes."""
    if not checks:
        return pl.lit(None, pl.String).repeat_by(pl.len()).explode().alias(RULE)
    choices = [pl.when(mark).then(pl.lit(check.rule)) for check, mark in zip(checks, marks, strict=True)]
    return pl.coalesce(choices).alias(RULE)


def _mark_repeats(
    typed: pl.DataFrame, rule: pl.Series, unique: UniqueSet, spec: SourceSpec, owners: pl.Series | None
) -> tuple[pl.Series, int]:
    index, known = pl.int_range(pl.len()).alias("index"), ordering_times(spec)
    owner = [] if owners is None else [owners.alias("__owner")]
    rows = typed.lazy().select(*dict.fromkeys([*unique.columns, *known]), *owner, index).filter(rule.is_null())
    if known:
        rows = rows.sort(pl.max_horizontal(known), "index", nulls_last=True)
    named = (*unique.columns, *(series.name for series in owner))
    positions = rows.filter(mark_repeats(named, spec)).select("index").collect().to_series()
    if not positions.len():
        return rule, 0
    return rule.scatter(positions, unique.rule), positions.len()


def refused_frame(rows: pl.DataFrame, typed: pl.DataFrame, rule: pl.Series, unread: Collection[str]) -> pl.DataFrame:
    """The refused rows; values of columns that could not all be read stay as they came, as text, so nothing is lost."""
    bad = rule.is_not_null()
    if not bad.any():
        return typed.head(0)
    refused = typed.filter(bad)
    texts = [pl.col(name).cast(pl.String, strict=False) for name in typed.columns if name in unread]
    positions = pl.int_range(rule.len(), eager=True).filter(bad)
    return refused.with_columns(rows.filter(bad).select(texts).get_columns() if texts else []).select(
        rule.filter(bad).alias(RULE), positions.cast(pl.Int64).alias(ROW), *typed.columns
    )
