"""Refusals that one file cannot decide: keys that repeat across files, values that another source must hold.

A part that loses rows here is written again without them, under a name of its own; the part as it was stays,
so that the next snapshot can start from it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import msgspec
import polars as pl

from cumulant.core.errors import DataError, DefinitionError, did_you_mean
from cumulant.core.ids import digest
from cumulant.core.plan import Field
from cumulant.data.checks.repeats import later_repeats
from cumulant.data.checks.unique import unique_sets
from cumulant.data.corrections.arrivals import Arrival, without
from cumulant.data.files.reading import frame_digest
from cumulant.data.parts.pack_changes import pack_without
from cumulant.data.parts.packs import OWNER, Block, blocks_of
from cumulant.data.parts.part import POSITION, RULE, PartCheck, PartFacts, Workshop
from cumulant.data.parts.part_making import csv_size, plain_fields
from cumulant.data.profile import profile
from cumulant.data.snapshot import Snapshot, scan


@dataclass(frozen=True)
class _Refusal:
    """A rule and the rows that fail it: the place of each one's part, and its position there."""

    rule: str
    text: str
    column: str | None
    rows: pl.DataFrame


def refuse_dangling(
    parts: Sequence[PartFacts], fields: Sequence[Field], shop: Workshop, others: Mapping[str, Snapshot]
) -> list[PartFacts]:
    """The parts without rows whose values another source lacks.

    Raises:
        DefinitionError: a reference to a source or column that does not exist.
    """
    return _drop(parts, list(_dangling(parts, fields, shop, others)), shop)


def refuse_repeats(
    parts: Sequence[PartFacts], arrived: Sequence[Arrival], fields: Sequence[Field], shop: Workshop
) -> tuple[list[PartFacts], list[Arrival], list[str]]:
    """The parts without rows whose key or unique value a row of another part had first, and digests of those rows."""
    kept, moments, digests = list(parts), list(arrived), []
    if len(kept) == 1 and shop.spec.on_repeat != "latest":
        return kept, moments, []
    for unique in unique_sets(shop.spec, [field.name for field in fields]):
        repeats = later_repeats(kept, moments, fields, unique.columns, shop)
        kept = _drop(kept, [_Refusal(unique.rule, unique.text, unique.column, repeats)], shop)
        moments = without(moments, repeats)
        digests.append(frame_digest(repeats))
    return kept, moments, digests


def _dangling(
    parts: Sequence[PartFacts], fields: Sequence[Field], shop: Workshop, others: Mapping[str, Snapshot]
) -> Iterator[_Refusal]:
    for column, rule in shop.spec.rules.items():
        wanted = [field for field in fields if field.name == column]
        if rule.references is None or not wanted:
            continue
        held = _held(rule.references, column, shop.source, others, shop)
        values = pl.concat([block.located(wanted, shop) for block in blocks_of(parts)], how="vertical").lazy()
        try:
            lost = values.filter(pl.col(column).is_not_null()).join(held, left_on=column, right_on="held", how="anti")
            rows = lost.select(OWNER, POSITION).sort(OWNER, POSITION).collect()
        except pl.exceptions.PolarsError as error:
            raise DefinitionError(
                f'source {shop.source}: "{column}" and {rule.references} are of different types',
                subject=column,
                hint="declare the same `type` for both",
            ) from error
        yield _Refusal(f"{column}:references", f"{column} is in {rule.references}", column, rows)


def _held(target: str, column: str, source: str, others: Mapping[str, Snapshot], shop: Workshop) -> pl.LazyFrame:
    """The distinct values of `source.column`, as column `held`."""
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
    return scan(snapshot, shop.tables).select(pl.col(name).alias("held")).unique()


def _drop(parts: Sequence[PartFacts], refusals: Sequence[_Refusal], shop: Workshop) -> list[PartFacts]:
    """The parts without the refused rows; the first refusal of a row counts as its rule."""
    if not refusals:
        return list(parts)
    counted = list(parts)
    for refusal in refusals:
        failed = dict(refusal.rows.group_by(OWNER).len().iter_rows())
        counted = [_counted(part, refusal, failed.get(place, 0)) for place, part in enumerate(counted)]
    gone = pl.concat(refusal.rows.with_columns(pl.lit(refusal.rule).alias(RULE)) for refusal in refusals)
    gone = gone.unique([OWNER, POSITION], keep="first", maintain_order=True).sort(OWNER, POSITION)
    result = []
    for block in blocks_of(parts):
        here = gone.filter(pl.col(OWNER).is_between(block.begin, block.begin + len(block.parts) - 1))
        left = _without(block, here, shop) if here.height else block.parts
        own = counted[block.begin : block.begin + len(block.parts)]
        result += [msgspec.structs.replace(part, checks=one.checks) for part, one in zip(left, own, strict=True)]
    return result


def _without(block: Block, gone: pl.DataFrame, shop: Workshop) -> Sequence[PartFacts]:
    """The parts of a block without some rows, found or made."""
    if block.pack is not None:
        return pack_without(block, gone.with_columns(pl.col(OWNER) - block.begin), shop).parts
    part, gone = block.parts[0], gone.select(POSITION, RULE)
    name = digest([part.digest, frame_digest(gone)])
    stored = shop.stored(name)
    if stored is not None:
        return [stored]
    rows = shop.rows(part).with_row_index(POSITION).with_columns(pl.col(POSITION).cast(pl.Int64)).collect()
    passed = rows.join(gone, on=POSITION, how="anti", maintain_order="left").drop(POSITION)
    refused = gone.join(rows, on=POSITION, how="left", maintain_order="left")
    refused = refused.select(RULE, POSITION, pl.exclude(RULE, POSITION))
    facts = msgspec.structs.replace(
        part,
        digest=name,
        rows=shop.tables.write(shop.key(name, "rows"), passed),
        refused=(*part.refused, shop.tables.write(shop.key(name, "refused"), refused)),
        profile=profile(passed, plain_fields(part.fields, shop.spec)),
        csv_bytes=csv_size(passed),
    )
    shop.record(facts)
    return [facts]


def _counted(part: PartFacts, refusal: _Refusal, failed: int) -> PartFacts:
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
