"""When rows arrived: the moment of the run that accepted them first. The names of files say nothing of that.

A file is known by its content, so that renaming it changes nothing. Of a file whose content changed, rows that equal
one of its accepted rows keep the moment of that row; all others arrive now.
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
from cumulant.data.checks.batches import is_as_wide, is_grown
from cumulant.data.files.inputs import Input
from cumulant.data.files.reading import frame_digest
from cumulant.data.parts.packs import OWNER, stored_part
from cumulant.data.parts.part import POSITION, PartFacts, Workshop
from cumulant.data.snapshot import Snapshot, SourceFile
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

    def stored(self, part: PartFacts, shop: Workshop) -> TableRef | None:
        """The moments of the single rows as a table; None where all are one."""
        if self.rows is None:
            return None
        frame = pl.DataFrame({ARRIVED: self.rows})
        key = shop.key(digest([part.digest, frame_digest(frame)]), "arrived")
        return shop.tables.write(key, frame)


def arrivals(
    inputs: Sequence[Input],
    parts: Sequence[PartFacts],
    fields: Sequence[Field],
    shop: Workshop,
    *,
    previous: Snapshot | None,
    now: datetime,
) -> list[Arrival]:
    """The arrival of each part; what `previous` does not hold arrives `now`."""
    if previous is None or not (shop.spec.keys or any(rule.unique for rule in shop.spec.rules.values())):
        return [Arrival(to_micros(now)) for _ in parts]
    by_content = {file.content: file for file in reversed(previous.files)}
    by_url = {file.url: file for file in previous.files}
    found = []
    for item, part in zip(inputs, parts, strict=True):
        file = by_content.get(item.content, by_url.get(item.url))
        if file is None:
            found.append(Arrival(to_micros(now)))
        elif file.content == item.content and file.arrivals is None:
            found.append(Arrival(_moment(file)))
        elif len(parts) == 1 and shop.spec.on_repeat != "latest":
            found.append(Arrival(_moment(file)))  # there is no other file whose rows could come first
        else:
            late = _moment(file) if file.content == item.content else to_micros(now)
            found.append(_by_row(file, part, fields, shop, late))
    return found


def in_order(arrived: Sequence[Arrival]) -> bool:
    """Whether the rows arrived in the order of the parts."""
    moments = [one.moment for one in arrived]
    return moments == sorted(moments) and all(one.rows is None for one in arrived)


def without(arrived: Sequence[Arrival], gone: pl.DataFrame) -> list[Arrival]:
    """The arrivals of the parts without some rows, by the place of the part and the position in it."""
    lost = {int(str(place)): rows[POSITION] for (place,), rows in gone.group_by(OWNER)}
    result = []
    for place, one in enumerate(arrived):
        if one.rows is None or place not in lost:
            result.append(one)
            continue
        stays = ~pl.int_range(one.rows.len(), dtype=pl.Int64, eager=True).is_in(lost[place].implode())
        result.append(replace(one, rows=one.rows.filter(stays)))
    return result


def _moment(file: SourceFile) -> int:
    return EARLIEST if file.arrived is None else to_micros(file.arrived)


def _by_row(file: SourceFile, part: PartFacts, fields: Sequence[Field], shop: Workshop, late: int) -> Arrival:
    """The arrival of each row by the accepted rows of the file; of one that is not among them, `late`."""
    earlier, moment = stored_part(file.parts[-1], shop), _moment(file)
    if earlier is None or not is_as_wide(part, earlier):
        return Arrival(late)
    if file.arrivals is None:
        known = pl.repeat(moment, earlier.rows.rows, dtype=pl.Int64, eager=True)
    else:
        known = shop.tables.scan(file.arrivals).collect()[ARRIVED]
    if is_grown(part, earlier, fields, shop):
        added = part.rows.rows - known.len()
        moments = pl.concat([known, pl.repeat(late, added, dtype=pl.Int64, eager=True)])
    else:
        names = [field.name for field in fields]
        count = pl.int_range(pl.len()).over(names).alias(_COUNT)  # of equal rows each has its own moment
        before = conform(shop.rows(earlier), fields).with_columns(pl.lit(known).alias(ARRIVED), count)
        rows = conform(shop.rows(part), fields).with_columns(count)
        joined = rows.join(before, on=[*names, _COUNT], how="left", nulls_equal=True, maintain_order="left")
        moments = joined.select(pl.col(ARRIVED).fill_null(late)).collect()[ARRIVED]
    return Arrival(moment) if bool((moments == moment).all()) else Arrival(moment, moments.alias(ARRIVED))
