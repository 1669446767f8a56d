"""When rows arrived: the moment of the run that accepted them first.

A file is identified by its content. Rows of a changed file that equal an accepted row keep that row's moment.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

import polars as pl

from cumulant.core.ids import digest
from cumulant.core.plan import Field
from cumulant.core.refs import TableRef
from cumulant.core.units import from_micros, to_micros
from cumulant.data.files.inputs import SourceInput
from cumulant.data.parts.packs import OWNER, load_part
from cumulant.data.parts.part import PartContext, PartFacts, is_as_wide, is_grown
from cumulant.data.row_columns import ROW
from cumulant.data.snapshot import Snapshot, SourceFile, frame_digest
from cumulant.data.text.casts import conform

ARRIVED, _COUNT = "__arrived", "__count"
#: before every run: of files that were accepted when no moment was recorded
EARLIEST = -(2**62)


@dataclass(frozen=True)
class Arrival:
    """When the rows of a part arrived, in microseconds: all at `moment`, or each at its own of `rows`."""

    moment: int
    rows: pl.Series | None = None

    def of(self, rows: int) -> pl.Series:
        """The moment of each of the part's rows."""
        return pl.repeat(self.moment, rows, dtype=pl.Int64, eager=True) if self.rows is None else self.rows

    @property
    def accepted(self) -> datetime | None:
        """When the first of the rows was accepted; None where that is unknown."""
        return None if self.moment == EARLIEST else from_micros(self.moment)

    def store(self, part: PartFacts, context: PartContext) -> TableRef | None:
        """The moments of the single rows as a table; None where all are one."""
        if self.rows is None:
            return None
        frame = pl.DataFrame({ARRIVED: self.rows})
        key = context.key(digest([part.digest, frame_digest(frame)]), "arrived")
        return context.tables.write(key, frame)


def find_arrivals(
    inputs: Sequence[SourceInput],
    parts: Sequence[PartFacts],
    fields: Sequence[Field],
    context: PartContext,
    *,
    previous: Snapshot | None,
    now: datetime,
) -> list[Arrival]:
    """The arrival of each part; what `previous` does not hold arrives `now`."""
    if previous is None or not (context.spec.keys or any(rule.unique for rule in context.spec.rules.values())):
        return [Arrival(to_micros(now)) for _ in parts]
    by_content = {file.content: file for file in reversed(previous.files)}
    by_url = {file.url: file for file in previous.files}
    result = []
    for item, part in zip(inputs, parts, strict=True):
        file = by_content.get(item.content, by_url.get(item.url))
        if file is None:
            result.append(Arrival(to_micros(now)))
        elif file.content == item.content and file.arrivals is None:
            result.append(Arrival(_moment(file)))
        elif len(parts) == 1 and context.spec.on_repeat != "latest":
            result.append(Arrival(_moment(file)))  # there is no other file whose rows could come first
        else:
            late = _moment(file) if file.content == item.content else to_micros(now)
            result.append(_arrival_by_row(file, part, fields, context, late))
    return result


def is_in_order(arrived: Sequence[Arrival]) -> bool:
    """Whether the rows arrived in the order of the parts."""
    moments = [arrival.moment for arrival in arrived]
    return moments == sorted(moments) and all(arrival.rows is None for arrival in arrived)


def without_rows(arrived: Sequence[Arrival], gone: pl.DataFrame) -> list[Arrival]:
    """The arrivals of the parts without some rows, by the place of the part and the position in it."""
    lost = {int(str(place)): rows[ROW] for (place,), rows in gone.group_by(OWNER)}
    result = []
    for place, arrival in enumerate(arrived):
        if arrival.rows is None or place not in lost:
            result.append(arrival)
            continue
        stays = ~pl.int_range(arrival.rows.len(), dtype=pl.Int64, eager=True).is_in(lost[place].implode())
        result.append(replace(arrival, rows=arrival.rows.filter(stays)))
    return result


def _moment(file: SourceFile) -> int:
    return EARLIEST if file.arrived is None else to_micros(file.arrived)


def _arrival_by_row(
    file: SourceFile, part: PartFacts, fields: Sequence[Field], context: PartContext, late: int
) -> Arrival:
    """The arrival of each row by the accepted rows of the file; of one that is not among them, `late`."""
    earlier, moment = load_part(file.parts[-1], context), _moment(file)
    if earlier is None or not is_as_wide(part, earlier):
        return Arrival(late)
    if file.arrivals is None:
        known = pl.repeat(moment, earlier.rows.rows, dtype=pl.Int64, eager=True)
    else:
        known = context.tables.scan(file.arrivals).collect()[ARRIVED]
    if is_grown(part, earlier, fields, context):
        added = part.rows.rows - known.len()
        moments = pl.concat([known, pl.repeat(late, added, dtype=pl.Int64, eager=True)])
    else:
        names = [field.name for field in fields]
        count = pl.int_range(pl.len()).over(names).alias(_COUNT)  # of equal rows each has its own moment
        before = conform(context.rows(earlier), fields).with_columns(pl.lit(known).alias(ARRIVED), count)
        rows = conform(context.rows(part), fields).with_columns(count)
        joined = rows.join(before, on=[*names, _COUNT], how="left", nulls_equal=True, maintain_order="left")
        moments = joined.select(pl.col(ARRIVED).fill_null(late)).collect()[ARRIVED]
    return Arrival(moment) if bool((moments == moment).all()) else Arrival(moment, moments.alias(ARRIVED))
