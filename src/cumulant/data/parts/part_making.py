"""What becomes of a file that is read whole: prepared, read, checked and stored as a part."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence

import polars as pl

from cumulant.core.plan import Field
from cumulant.data.checks.rowwise import check_row_wise
from cumulant.data.checks.rules import check_columns
from cumulant.data.formats.json_faults import NOT_JSON
from cumulant.data.formats.json_limits import DEPTH, MOST_LEVELS
from cumulant.data.parts.part import (
    MALFORMED,
    POSITION,
    RULE,
    PartCheck,
    PartFacts,
    PartField,
    Workshop,
    declared_types,
)
from cumulant.data.parts.row_sorting import RowPlan, sort_out
from cumulant.data.profile import Profile, profile
from cumulant.data.spec import SourceSpec
from cumulant.data.text.casts import Cast
from cumulant.data.text.csv_text import Table

_CSV_SAMPLE = 5000


def made(shop: Workshop, digest: str, table: Table, *, url: str, guessed: bool) -> PartFacts:
    """Prepare, read, check and store the rows of one file. `guessed`: its types were inferred from text.

    Malformed rows are refused, and not shown to `prepare`.

    Raises:
        DataError: the file lacks a declared column, or its values have no place in a table.
        DefinitionError: `prepare` is not row-wise, or a rule cannot be applied.
        UserCodeError: `prepare` raised.
        StorageError: the parts cannot be written.
    """
    raw = table.rows
    if not raw.height:
        return _empty(shop, digest, raw)
    rows = prepared(raw, shop)
    check_columns(shop.spec, rows.columns, source=shop.source, url=url)
    sorted_out = sort_out(rows, shop)
    guesses = {*rows.columns} if guessed else table.partitions
    nulls = {column.name: column.null_count() for column in sorted_out.passed}
    fields = part_fields(sorted_out.plan, nulls, sorted_out.passed.height, shop.spec, guesses)
    unread = shape_refused(table)
    refused = {"refused": sorted_out.refused, **unread}
    written = shop.tables.write(shop.key(digest, "rows"), sorted_out.passed)
    facts = PartFacts(
        digest=digest,
        rows_in=raw.height + sum(frame.height for frame in unread.values()),
        rows_dropped=raw.height - rows.height,
        rows=written,
        refused=tuple(
            shop.tables.write(shop.key(digest, place), frame) for place, frame in refused.items() if frame.height
        ),
        fields=fields,
        checks=(*sorted_out.checks, *shape_checks(table, shop.spec)),
        profile=profile(sorted_out.passed, plain_fields(fields, shop.spec)),
        csv_bytes=csv_size(sorted_out.passed),
        notes=table.notes,
    )
    shop.record(facts)
    return facts


def prepared(raw: pl.DataFrame, shop: Workshop) -> pl.DataFrame:
    """What `prepare` makes of rows. Raises DefinitionError where it does not treat them one by one."""
    rows = shop.prepared(raw)
    if shop.prepare is not None:
        check_row_wise(shop.prepare, raw, rows, name=shop.prepare.name)
    return rows


def _empty(shop: Workshop, digest: str, raw: pl.DataFrame) -> PartFacts:
    """A file with a header and no rows says nothing about columns and is not shown to `prepare`."""
    facts = PartFacts(
        digest=digest,
        rows_in=0,
        rows_dropped=0,
        rows=shop.tables.write(shop.key(digest, "rows"), raw.select(pl.all().cast(pl.String, strict=False))),
        refused=(),
        fields=(),
        checks=(),
        profile=Profile(0),
        csv_bytes=0,
    )
    shop.record(facts)
    return facts


def shape_refused(table: Table) -> dict[str, pl.DataFrame]:
    """The rows that were refused before they were read: by their fields, and by declared paths."""
    found = {}
    if table.malformed is not None:  # nobody can say which of their values belongs to which column
        found["malformed"] = table.malformed.select(pl.lit(MALFORMED).alias(RULE), POSITION, pl.exclude(POSITION))
    if table.refused is not None:
        found["paths"] = table.refused
    return found


def shape_checks(table: Table, spec: SourceSpec) -> list[PartCheck]:
    """The checks of `shape_refused`."""
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
    """The column of a rule that refuses rows before they are read, and what it asks."""
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
