"""The accepted one of the rows of a repeated key or unique value: by arrival, then (`first`) known time, then place."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import polars as pl

from cumulant.core.plan import Field
from cumulant.data.corrections.arrivals import ARRIVED, Arrival, is_in_order
from cumulant.data.parts.group_repeats import find_repeats
from cumulant.data.parts.packs import OWNER, blocks_of, exact_types
from cumulant.data.parts.part import PartContext, PartFacts
from cumulant.data.row_columns import ROW
from cumulant.data.rules.unique import ordering_times
from cumulant.data.spec import SourceSpec

KNOWN = "__known"


def find_later_repeats(
    parts: Sequence[PartFacts],
    arrived: Sequence[Arrival],
    fields: Sequence[Field],
    columns: Sequence[str],
    context: PartContext,
) -> pl.DataFrame:
    """The rows (place of the part, position in it) whose values of `columns` another row had first."""
    wanted = {*columns, *context.spec.known_times, *(context.spec.keys if context.spec.on_repeat == "latest" else ())}
    chosen = [field for field in fields if field.name in wanted]
    known = [KNOWN] if ordering_times(context.spec) else []
    repeats = find_repeats(
        lambda: located_frames(parts, arrived, chosen, context),
        columns,
        [ARRIVED, *known, OWNER, ROW],
        context.spec,
        rows=sum(part.rows.rows for part in parts),
        budget=context.budget,
        in_order=not known and is_in_order(arrived),
    )
    return repeats.select(OWNER, ROW)


def located_frames(
    parts: Sequence[PartFacts], arrived: Sequence[Arrival], fields: Sequence[Field], context: PartContext
) -> Iterator[pl.DataFrame]:
    """These fields of all rows in order, in frames, with their part's place, position, arrival and known time."""
    blocks = blocks_of(parts)
    exact = exact_types(blocks, fields, context)
    for block in blocks:
        own = arrived[block.begin : block.begin + len(block.parts)]
        moments = pl.concat([arrival.of(part.rows.rows) for arrival, part in zip(own, block.parts, strict=True)])
        for frame in block.located_frames(fields, context, exact):
            yield frame.with_columns(moments.head(frame.height).alias(ARRIVED), known_time(context.spec))
            moments = moments.slice(frame.height)


def known_time(spec: SourceSpec) -> pl.Expr:
    """The latest known time of a row's columns, in microseconds; null where none is declared or present."""
    times = [pl.col(column).cast(pl.Int64) for column in spec.known_times]
    return (pl.max_horizontal(times) if times else pl.lit(None, pl.Int64)).alias(KNOWN)
