"""Refusals that one file cannot decide: keys that repeat across files, values that another source must hold.

A part that loses rows here is written again without them, under a name of its own; the part as it was stays,
so that the next snapshot can start from it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec
import polars as pl

from cumulant.core.errors import DataError, DefinitionError, did_you_mean
from cumulant.core.ids import digest
from cumulant.core.plan import Field
from cumulant.data.casts import conform
from cumulant.data.parts import (
    POSITION,
    RULE,
    PartCheck,
    PartFacts,
    Workshop,
    csv_size,
    plain_fields,
    repeats_of,
    unique_sets,
)
from cumulant.data.profile import profile
from cumulant.data.snapshot import Snapshot, scan

_PART = "__part"


def refuse_late(
    parts: Sequence[PartFacts], fields: Sequence[Field], shop: Workshop, others: Mapping[str, Snapshot]
) -> list[PartFacts]:
    """The parts without rows that fail against another source or repeat an earlier part's key.

    Raises:
        DefinitionError: a reference to a source or column that does not exist.
    """
    names = [field.name for field in fields]
    kept = [_drop(part, _dangling(part, fields, shop, others), shop) for part in parts]
    if len(kept) == 1:
        return kept
    for label, text, columns in unique_sets(shop.spec, names):
        repeats = _repeats(kept, fields, columns, shop)
        kept = [
            _drop(part, [(label, text, columns[0] if len(columns) == 1 else None, repeats.get(index))], shop)
            for index, part in enumerate(kept)
        ]
    return kept


_Refusals = list[tuple[str, str, str | None, "pl.Series | None"]]


def _repeats(
    parts: Sequence[PartFacts], fields: Sequence[Field], columns: tuple[str, ...], shop: Workshop
) -> dict[int, pl.Series]:
    """Part to the positions of its rows whose values came in an earlier part."""
    wanted = [field for field in fields if field.name in columns]
    frames = [
        conform(shop.tables.scan(part.rows), wanted)
        .with_row_index(POSITION)
        .with_columns(pl.lit(index, pl.Int32).alias(_PART))
        for index, part in enumerate(parts)
    ]
    found = pl.concat(frames, how="vertical").filter(repeats_of(columns)).select(_PART, POSITION).collect()
    return {int(str(part)): group[POSITION] for (part,), group in found.group_by(_PART)}


def _dangling(part: PartFacts, fields: Sequence[Field], shop: Workshop, others: Mapping[str, Snapshot]) -> _Refusals:
    found: _Refusals = []
    for column, rule in shop.spec.rules.items():
        wanted = [field for field in fields if field.name == column]
        if rule.references is None or not wanted:
            continue
        held = _held(rule.references, column, shop.source, others, shop)
        values = conform(shop.tables.scan(part.rows), wanted).with_row_index(POSITION)
        try:
            lost = values.filter(pl.col(column).is_not_null()).join(held, left_on=column, right_on="held", how="anti")
            positions = lost.select(POSITION).collect().to_series()
        except pl.exceptions.PolarsError as error:
            raise DefinitionError(
                f'source {shop.source}: "{column}" and {rule.references} are of different types',
                subject=column,
                hint="declare the same `type` for both",
            ) from error
        found.append((f"{column}:references", f"{column} is in {rule.references}", column, positions))
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


def _drop(part: PartFacts, refusals: _Refusals, shop: Workshop) -> PartFacts:
    """`part` without the rows at the positions; the first refusal of a row counts as its rule."""
    checks = list(part.checks)
    rules: dict[int, str] = {}
    for rule, text, column, positions in refusals:
        rows = [] if positions is None else positions.to_list()
        for row in rows:
            rules.setdefault(row, rule)
        checks = _counted(checks, PartCheck(rule=rule, column=column, text=text, failed=len(rows)))
    if not rules:
        return msgspec.structs.replace(part, checks=tuple(checks))
    name = digest([part.digest, sorted(rules.items())])
    stored = shop.stored(name)
    if stored is not None:
        return stored
    rows_in = shop.tables.scan(part.rows).collect()
    position = pl.Series(POSITION, sorted(rules), dtype=pl.Int64)
    refused = rows_in[position.to_list()].select(
        pl.Series(RULE, [rules[row] for row in position]), position, *(pl.col(column) for column in rows_in.columns)
    )
    passed = rows_in.filter(~pl.int_range(rows_in.height, eager=True).is_in(position.implode()))
    facts = msgspec.structs.replace(
        part,
        digest=name,
        rows=shop.tables.write(shop.key(name, "rows"), passed),
        refused=(*part.refused, shop.tables.write(shop.key(name, "refused"), refused)),
        checks=tuple(checks),
        profile=profile(passed, plain_fields(part.fields, shop.spec)),
        csv_bytes=csv_size(passed),
    )
    shop.record(facts)
    return facts


def _counted(checks: list[PartCheck], more: PartCheck) -> list[PartCheck]:
    """`checks` with the failures of `more` added to those of the same rule."""
    if all(check.rule != more.rule for check in checks):
        return [*checks, more]
    return [
        msgspec.structs.replace(check, failed=check.failed + more.failed) if check.rule == more.rule else check
        for check in checks
    ]
