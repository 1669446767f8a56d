"""Refusals across files: keys that repeat, and values that another source must hold.

A part that loses rows is written again under a new name; the earlier part stays for the next snapshot.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import msgspec
import polars as pl

from cumulant.core.errors import DataError, DefinitionError, did_you_mean
from cumulant.core.ids import digest
from cumulant.core.plan import Field
from cumulant.data.corrections.arrivals import Arrival, without_rows
from cumulant.data.corrections.repeats import find_later_repeats
from cumulant.data.parts.pack_changes import pack_without
from cumulant.data.parts.packs import OWNER, PartBlock, blocks_of
from cumulant.data.parts.part import PartCheck, PartContext, PartFacts
from cumulant.data.parts.part_making import csv_size, plain_fields
from cumulant.data.profile import profile
from cumulant.data.row_columns import ROW, RULE
from cumulant.data.rules.unique import unique_sets
from cumulant.data.snapshot import Snapshot, frame_digest, scan


@dataclass(frozen=True)
class _Refusal:
    """A rule and the rows that fail it: the place of each one's part, and its position there."""

    rule: str
    text: str
    column: str | None
    rows: pl.DataFrame


def refuse_dangling(
    parts: Sequence[PartFacts], fields: Sequence[Field], context: PartContext, others: Mapping[str, Snapshot]
) -> list[PartFacts]:
    """The parts without rows whose values another source lacks.

    Raises:
        DefinitionError: a reference to a source or column that does not exist.
    """
    return _drop_rows(parts, list(_dangling_refusals(parts, fields, context, others)), context)


def refuse_repeats(
    parts: Sequence[PartFacts], arrived: Sequence[Arrival], fields: Sequence[Field], context: PartContext
) -> tuple[list[PartFacts], list[Arrival], list[str]]:
    """The parts without rows whose key or unique value a row of another part had first, and digests of those rows."""
    remaining, moments, digests = list(parts), list(arrived), []
    if len(remaining) == 1 and context.spec.on_repeat != "latest":
        return remaining, moments, []
    for unique in unique_sets(context.spec, [field.name for field in fields]):
        repeats = find_later_repeats(remaining, moments, fields, unique.columns, context)
        remaining = _drop_rows(remaining, [_Refusal(unique.rule, unique.text, unique.column, repeats)], context)
        moments = without_rows(moments, repeats)
        digests.append(frame_digest(repeats))
    return remaining, moments, digests


def _dangling_refusals(
    parts: Sequence[PartFacts], fields: Sequence[Field], context: PartContext, others: Mapping[str, Snapshot]
) -> Iterator[_Refusal]:
    for column, rule in context.spec.rules.items():
        wanted = [field for field in fields if field.name == column]
        if rule.references is None or not wanted:
            continue
        referenced = _referenced_values(rule.references, column, context.source, others, context)
        values = pl.concat([block.located(wanted, context) for block in blocks_of(parts)], how="vertical").lazy()
        try:
            lost = values.filter(pl.col(column).is_not_null()).join(
                referenced, left_on=column, right_on="referenced", how="anti"
            )
            rows = lost.select(OWNER, ROW).sort(OWNER, ROW).collect()
        except pl.exceptions.PolarsError as error:
            raise DefinitionError(
                f'source {context.source}: "{column}" and {rule.references} are of different types',
                subject=column,
                hint="declare the same `type` for both",
            ) from error
        yield _Refusal(f"{column}:references", f"{column} is in {rule.references}", column, rows)


def _referenced_values(
    target: str, column: str, source: str, others: Mapping[str, Snapshot], context: PartContext
) -> pl.LazyFrame:
    """The distinct values of `source.column`, as column `referenced`."""
    other, _, name = target.partition(".")
    if other not in others:
        known = did_you_mean(other, others)
        raise DefinitionError(
            f'source {source}: "{column}" references {target}, but there is no snapshot of a source "{other}"',
            subject=column,
            hint=known or "write references: source.column",
        )
    snapshot = others[other]
    name = name or column
    if all(field.name != name for field in snapshot.fields):
        raise DataError(
            f'source {source}: "{column}" references {target}, but {other} has no column "{name}"',
            subject=column,
            hint=did_you_mean(name, (field.name for field in snapshot.fields)),
        )
    return scan(snapshot, context.tables).select(pl.col(name).alias("referenced")).unique()


def _drop_rows(parts: Sequence[PartFacts], refusals: Sequence[_Refusal], context: PartContext) -> list[PartFacts]:
    """The parts without the refused rows; the first refusal of a row counts as its rule."""
    if not refusals:
        return list(parts)
    counted = list(parts)
    for refusal in refusals:
        failed = dict(refusal.rows.group_by(OWNER).len().iter_rows())
        counted = [_add_failures(part, refusal, failed.get(place, 0)) for place, part in enumerate(counted)]
    gone = pl.concat(refusal.rows.with_columns(pl.lit(refusal.rule).alias(RULE)) for refusal in refusals)
    gone = gone.unique([OWNER, ROW], keep="first", maintain_order=True).sort(OWNER, ROW)
    result = []
    for block in blocks_of(parts):
        here = gone.filter(pl.col(OWNER).is_between(block.begin, block.begin + len(block.parts) - 1))
        stripped = _without_rows(block, here, context) if here.height else block.parts
        own = counted[block.begin : block.begin + len(block.parts)]
        result += [
            msgspec.structs.replace(part, checks=counts.checks) for part, counts in zip(stripped, own, strict=True)
        ]
    return result


def _without_rows(block: PartBlock, gone: pl.DataFrame, context: PartContext) -> Sequence[PartFacts]:
    """The parts of a block without some rows, stored or new."""
    if block.pack is not None:
        return pack_without(block, gone.with_columns(pl.col(OWNER) - block.begin), context).parts
    part, gone = block.parts[0], gone.select(ROW, RULE)
    name = digest([part.digest, frame_digest(gone)])
    stored = context.find_part(name)
    if stored is not None:
        return [stored]
    rows = context.rows(part).with_row_index(ROW).with_columns(pl.col(ROW).cast(pl.Int64)).collect()
    passed = rows.join(gone, on=ROW, how="anti", maintain_order="left").drop(ROW)
    refused = gone.join(rows, on=ROW, how="left", maintain_order="left")
    refused = refused.select(RULE, ROW, pl.exclude(RULE, ROW))
    facts = msgspec.structs.replace(
        part,
        digest=name,
        rows=context.write(name, "rows", passed),
        refused=(*part.refused, context.write(name, "refused", refused)),
        profile=profile(passed, plain_fields(part.fields, context.spec)),
        csv_bytes=csv_size(passed),
    )
    context.record(facts)
    return [facts]


def _add_failures(part: PartFacts, refusal: _Refusal, failed: int) -> PartFacts:
    """The part with the failures of a refusal added to those of the same rule."""
    checks = part.checks
    if all(check.rule != refusal.rule for check in checks):
        checks = (*checks, PartCheck(rule=refusal.rule, column=refusal.column, text=refusal.text, failed=0))
    return msgspec.structs.replace(
        part,
        checks=tuple(
            msgspec.structs.replace(check, failed=check.failed + failed) if check.rule == refusal.rule else check
            for check in checks
        ),
    )
