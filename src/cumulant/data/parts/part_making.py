"""Parts of files that are read whole: prepared, read, checked and stored."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence

import polars as pl

from cumulant.core.plan import Field
from cumulant.data.formats.json_faults import NOT_JSON
from cumulant.data.formats.json_limits import DEPTH, MOST_LEVELS
from cumulant.data.parts.part import (
    MALFORMED,
    PartCheck,
    PartContext,
    PartFacts,
    PartField,
    declared_types,
)
from cumulant.data.parts.row_sorting import RowPlan, sort_rows
from cumulant.data.profile import Profile, profile
from cumulant.data.row_columns import ROW, RULE
from cumulant.data.rules.prepare_check import check_row_wise
from cumulant.data.rules.row_checks import check_columns
from cumulant.data.spec import SourceSpec
from cumulant.data.text.casts import Cast
from cumulant.data.text.csv_text import FileTable

_CSV_SAMPLE = 5000


def build_part(context: PartContext, digest: str, table: FileTable, *, url: str, guessed: bool) -> PartFacts:
    """Prepare, read, check and store the rows of one file. `guessed`: its types were inferred from text.

    Raises:
        DataError: the file lacks a declared column, or its values have no place in a table.
        DefinitionError: `prepare` is not row-wise, or a rule cannot be applied.
        UserCodeError: `prepare` raised.
        StorageError: the parts cannot be written.
    """
    raw = table.rows
    if not raw.height:
        return _empty(context, digest, raw)
    rows = prepare_rows(raw, context)
    check_columns(context.spec, rows.columns, source=context.source, url=url)
    sorted_out = sort_rows(rows, context)
    guesses = {*rows.columns} if guessed else table.partitions
    nulls = {column.name: column.null_count() for column in sorted_out.passed}
    fields = part_fields(sorted_out.plan, nulls, sorted_out.passed.height, context.spec, guesses)
    unread = misshapen_rows(table)
    refused = {"refused": sorted_out.refused, **unread}
    written = context.write(digest, "rows", sorted_out.passed)
    facts = PartFacts(
        digest=digest,
        rows_in=raw.height + sum(frame.height for frame in unread.values()),
        rows_dropped=raw.height - rows.height,
        rows=written,
        refused=tuple(context.write(digest, place, frame) for place, frame in refused.items() if frame.height),
        fields=fields,
        checks=(*sorted_out.checks, *shape_checks(table, context.spec)),
        profile=profile(sorted_out.passed, plain_fields(fields, context.spec)),
        csv_bytes=csv_size(sorted_out.passed),
        notes=table.notes,
    )
    context.record(facts)
    return facts


def prepare_rows(raw: pl.DataFrame, context: PartContext) -> pl.DataFrame:
    """What `prepare` makes of rows. Raises DefinitionError where it does not treat them one by one."""
    rows = context.apply_prepare(raw)
    if context.prepare is not None:
        check_row_wise(context.prepare, raw, rows, name=context.prepare.name)
    return rows


def _empty(context: PartContext, digest: str, raw: pl.DataFrame) -> PartFacts:
    """The part of a file with a header and no rows: its columns are unknown, and `prepare` is not called."""
    facts = PartFacts(
        digest=digest,
        rows_in=0,
        rows_dropped=0,
        rows=context.write(digest, "rows", raw.select(pl.all().cast(pl.String, strict=False))),
        refused=(),
        fields=(),
        checks=(),
        profile=Profile(0),
        csv_bytes=0,
    )
    context.record(facts)
    return facts


def misshapen_rows(table: FileTable) -> dict[str, pl.DataFrame]:
    """The rows that were refused before they were read: by their fields, and by declared paths."""
    frames = {}
    if table.malformed is not None:  # their values have no clear column
        frames["malformed"] = table.malformed.select(pl.lit(MALFORMED).alias(RULE), ROW, pl.exclude(ROW))
    if table.refused is not None:
        frames["paths"] = table.refused
    return frames


def shape_checks(table: FileTable, spec: SourceSpec) -> list[PartCheck]:
    """The checks of `misshapen_rows`."""
    checks = []
    if table.malformed is not None:
        text = f"each row has the {table.malformed.width - 2} fields of the header"
        checks.append(PartCheck(rule=MALFORMED, column=None, text=text, failed=table.malformed.height))
    if table.refused is not None:
        rules = table.refused[RULE].to_list()
        for rule, failed in Counter(rules).items():
            column, text = _shape(rule, spec)
            checks.append(PartCheck(rule=rule, column=column, text=text, failed=failed))
    return checks


def _shape(rule: str, spec: SourceSpec) -> tuple[str | None, str]:
    """The column of a rule that refuses rows before they are read, and its text."""
    if rule == DEPTH:
        return None, f"each row is nested at most {MOST_LEVELS} levels deep"
    if rule == NOT_JSON:
        return None, "each row is one JSON object"
    name, _, kind = rule.rpartition(":")
    if kind == "path":
        return name, f"{name} is a plain value or missing at {spec.columns.get(name)}"
    return name, f"{name} holds no error, and no formula without a stored value"


def part_fields(
    plan: RowPlan, nulls: Mapping[str, int], rows: int, spec: SourceSpec, guesses: Collection[str]
) -> tuple[PartField, ...]:
    """The columns of a part with `rows` accepted rows, of which so many are null in each column."""
    declared = declared_types(spec)
    return tuple(
        PartField(
            name=cast.name,
            dtype=cast.dtype,
            zone=cast.zone,
            empty=cast.name not in declared and (cast.empty or nulls[cast.name] == rows),
            guessed=cast.name in guesses and cast.name not in declared,
            padded=plan.padded.get(cast.name),
        )
        for cast in plan.casts
    )


def plain_fields(fields: Sequence[PartField | Cast], spec: SourceSpec) -> list[Field]:
    """The columns of a part as the language of plans has them."""
    return [
        Field(name=field.name, dtype=field.dtype, personal=field.name in spec.personal, zone=field.zone)
        for field in fields
    ]


def csv_size(frame: pl.DataFrame) -> int:
    """Bytes that `frame` would take as CSV with short ISO times, measured on evenly spaced rows."""
    if not frame.height:
        return 0
    sample = frame.gather_every(max(frame.height // _CSV_SAMPLE, 1))
    text = sample.select(pl.exclude(pl.Binary)).write_csv(datetime_format="%Y-%m-%dT%H:%M:%SZ", include_header=False)
    return round(len(text.encode()) * frame.height / sample.height)
