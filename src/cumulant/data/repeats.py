"""Which row of a repeated key or unique value was accepted first: by arrival, then known time, then place.

A row that was accepted is never refused for one that arrives later, whatever their files are called.
"""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from cumulant.core.plan import Field
from cumulant.data.arrivals import ARRIVED, Arrival
from cumulant.data.casts import conform
from cumulant.data.parts import POSITION, PartFacts, Workshop, repeats_of
from cumulant.data.spec import SourceSpec

PART, KNOWN = "__part", "__known"


def later_repeats(
    parts: Sequence[PartFacts],
    arrived: Sequence[Arrival],
    fields: Sequence[Field],
    columns: Sequence[str],
    shop: Workshop,
) -> dict[int, pl.Series]:
    """Part to the positions of its rows whose values of `columns` another row had first."""
    wanted = {*columns, *shop.spec.known_times, *(shop.spec.keys if shop.spec.on_repeat == "latest" else ())}
    rows = located(parts, arrived, [field for field in fields if field.name in wanted], shop)
    if shop.spec.known_times or any(one.rows is not None for one in arrived):
        frame = pl.concat(rows, how="vertical_relaxed").sort(ARRIVED, KNOWN, PART, POSITION, nulls_last=True)
    else:
        order = sorted(range(len(parts)), key=lambda index: arrived[index].moment)
        frame = pl.concat((rows[index] for index in order), how="vertical_relaxed")
    found = frame.filter(repeats_of(columns, shop.spec)).select(PART, POSITION).collect()
    return {int(str(part)): group[POSITION] for (part,), group in found.group_by(PART)}


def located(
    parts: Sequence[PartFacts], arrived: Sequence[Arrival], fields: Sequence[Field], shop: Workshop
) -> list[pl.LazyFrame]:
    """These fields of each part, with the part, the position in it, arrival, and known time.

    Decimals have all their digits, so that a column of them may be float in another part.
    """
    return [
        conform(shop.tables.scan(part.rows), fields, exact=True)
        .with_row_index(POSITION)
        .with_columns(
            pl.col(POSITION).cast(pl.Int64), pl.lit(index, pl.Int32).alias(PART), arrival.column, known_time(shop.spec)
        )
        for index, (part, arrival) in enumerate(zip(parts, arrived, strict=True))
    ]


def known_time(spec: SourceSpec) -> pl.Expr:
    """The latest known time of a row's columns, in microseconds; null where none is declared, or none stands."""
    times = [pl.col(column).cast(pl.Int64) for column in spec.known_times]
    return (pl.max_horizontal(times) if times else pl.lit(None, pl.Int64)).alias(KNOWN)
