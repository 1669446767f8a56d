"""Refusals that one file cannot decide: keys that repeat across files, values that another source must hold.

A part that loses rows here is written again without them, under a name of its own; the part as it was stays,
so that the next snapshot can start from it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import msgspec
import polars as pl

from cumulant.core.errors import DataError, DefinitionError, did_you_mean
from cumulant.core.ids import digest
from cumulant.core.plan import Field
from cumulant.data.arrivals import Arrival
from cumulant.data.casts import conform
from cumulant.data.parts import (
    POSITION,
    RULE,
    PartCheck,
    PartFacts,
    Workshop,
    csv_size,
    plain_fields,
    unique_sets,
)
from cumulant.data.profile import profile
from cumulant.data.repeats import later_repeats
from cumulant.data.snapshot import Snapshot, scan
from cumulant.data.sources import frame_digest

_NONE = pl.Series(POSITION, [], dtype=pl.Int64)


@dataclass(frozen=True)
class _Refusal:
    """A rule and the positions (in the part as read) of the rows that fail it."""

    rule: str
    text: str
    column: str | None
    rows: pl.Series


def refuse_dangling(
    parts: Sequence[PartFacts], fields: Sequence[Field], shop: Workshop, others: Mapping[str, Snapshot]
) -> list[PartFacts]:
    """The parts without rows whose values another source lacks.

    Raises:
        DefinitionError: a reference to a source or column that does not exist.
    """
    return [_drop(part, _dangling(part, fields, shop, others), shop) for part in parts]


def refuse_repeats(
    parts: Sequence[PartFacts], arrived: Sequence[Arrival], fields: Sequence[Field], shop: Workshop
) -> tuple[list[PartFacts], list[Arrival]]:
    """The parts without rows whose key or unique value a row of another part had first."""
    kept, moments = list(parts), list(arrived)
    if len(kept) == 1 and shop.spec.on_repeat != "latest":
        return kept, moments
    for label, text, columns in unique_sets(shop.spec, [field.name for field in fields]):
        repeats = later_repeats(kept, moments, fields, columns, shop)
        column = columns[0] if len(columns) == 1 else None
        gone = [repeats.get(index, _NONE) for index in range(len(kept))]
        kept = [_drop(part, [_Refusal(label, text, column, rows)], shop) for part, rows in zip(kept, gone, strict=True)]
        moments = [moment.without(rows) for moment, rows in zip(moments, gone, strict=True)]
    return kept, moments


def _dangling(
    part: PartFacts, fields: Sequence[Field], shop: Workshop, others: Mapping[str, Snapshot]
) -> list[_Refusal]:
    found = []
    for column, rule in shop.spec.rules.items():
        wanted = [field for field in fields if field.name == column]
        if rule.references is None or not wanted:
            continue
        held = _held(rule.references, column, shop.source, others, shop)
        values = conform(shop.tables.scan(part.rows), wanted).with_row_index(POSITION)
        try:
            lost = values.filter(pl.col(column).is_not_null()).join(held, left_on=column, right_on="held", how="anti")
            positions = lost.select(pl.col(POSITION).cast(pl.Int64)).collect().to_series()
        except pl.exceptions.PolarsError as error:
            raise DefinitionError(
                f'source {shop.source}: "{column}" and {rule.references} are of different types',
                subject=column,
                hint="declare the same `type` for both",
            ) from error
        text = f"{column} is in {rule.references}"
        found.append(_Refusal(f"{column}:references", text, column, positions))
    return found


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


def _drop(part: PartFacts, refusals: Sequence[_Refusal], shop: Workshop) -> PartFacts:
    """`part` without the rows at the positions; the first refusal of a row counts as its rule."""
    checks = list(part.checks)
    for refusal in refusals:
        checks = _counted(checks, refusal)
    part = msgspec.structs.replace(part, checks=tuple(checks))
    frames = [pl.DataFrame({POSITION: found.rows, RULE: [found.rule] * found.rows.len()}) for found in refusals]
    if not sum(frame.height for frame in frames):
        return part
    gone = pl.concat(frames).unique(POSITION, keep="first", maintain_order=True).sort(POSITION)
    name = digest([part.digest, frame_digest(gone)])
    stored = shop.stored(name)
    if stored is not None:
        return msgspec.structs.replace(stored, checks=part.checks)
    rows = shop.tables.scan(part.rows).with_row_index(POSITION).with_columns(pl.col(POSITION).cast(pl.Int64)).collect()
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
    return facts


def _counted(checks: list[PartCheck], refusal: _Refusal) -> list[PartCheck]:
    """`checks` with the failures of a refusal added to those of the same rule."""
    failed = refusal.rows.len()
    if all(check.rule != refusal.rule for check in checks):
        return [*checks, PartCheck(rule=refusal.rule, column=refusal.column, text=refusal.text, failed=failed)]
    return [
        msgspec.structs.replace(check, failed=check.failed + failed) if check.rule == refusal.rule else check
        for check in checks
    ]
