"""Packs: parts of many small files as one stored table, in the order of the files, with one record of facts.

A part's name is the pack's and its place in it (`PACK#7`). A column of several types is stored once per type
(`casts.stored_columns`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import NamedTuple

import numpy as np
import polars as pl

from cumulant.core.plan import Field
from cumulant.data.parts.part import Pack, PackFacts, PartContext, PartFacts
from cumulant.data.profile import Profile, profile
from cumulant.data.row_columns import ROW
from cumulant.data.schema import fields_of
from cumulant.data.snapshot import PACKED, RowRange, pack_name
from cumulant.data.text.casts import conform, stored_columns, type_prefix

#: the place of a row's file in its pack
OWNER = "__part"
_FRAME_ROWS = 1_000_000


def place_in_pack(part: PartFacts) -> int:
    return int(part.digest.partition(PACKED)[2])


def load_part(name: str, context: PartContext) -> PartFacts | None:
    """The facts of a complete part of either kind, or None."""
    digest, sign, place = name.partition(PACKED)
    if not sign:
        return context.find_part(name)
    pack = load_pack(digest, context)
    return None if pack is None else pack.parts[int(place)]


def load_pack(digest: str, context: PartContext) -> Pack | None:
    """A complete pack, or None."""
    if digest not in context.packs:
        facts = context.find_facts(digest, PackFacts)
        if facts is None:
            return None
        context.packs[digest] = Pack.of(facts)
    return context.packs[digest]


@dataclass(frozen=True)
class PartBlock:
    """Parts that follow each other whose rows do so too, in one table. `begin`: the place of the first part."""

    begin: int
    parts: Sequence[PartFacts]

    @property
    def range(self) -> RowRange:
        first = self.parts[0]
        rows, size = sum(part.rows.rows for part in self.parts), sum(part.rows.bytes for part in self.parts)
        return RowRange(first.rows.key, rows, size, first.first)

    @property
    def pack(self) -> str | None:
        """The name of the pack that they are of."""
        first = self.parts[0]
        return None if first.first is None else pack_name(first.digest)

    def owners(self) -> pl.Series:
        """Of each accepted row the place of its part, from `begin` on."""
        rows = np.repeat(np.arange(len(self.parts)), [part.rows.rows for part in self.parts])
        return pl.Series(OWNER, rows + self.begin, dtype=pl.Int64)

    def scan(self, context: PartContext) -> pl.LazyFrame:
        return self.range.scan(context.tables)

    def located(
        self, fields: Sequence[Field], context: PartContext, exact: Mapping[str, pl.DataType] | None = None
    ) -> pl.DataFrame:
        """These columns of the accepted rows, with the place of each row's part (`__part`) and its position there.

        `exact`: as `conform`.
        """
        return self.with_places(conform(self.scan(context), fields, exact).collect())

    def located_frames(
        self, fields: Sequence[Field], context: PartContext, exact: Mapping[str, pl.DataType] | None = None
    ) -> Iterator[pl.DataFrame]:
        """`located`, some rows at a time where the block is one part, which may have any number."""
        if len(self.parts) > 1 or self.range.rows <= _FRAME_ROWS:
            yield self.located(fields, context, exact)
            return
        rows = conform(self.scan(context), fields, exact)
        for first in range(0, self.range.rows, _FRAME_ROWS):
            frame = rows.slice(first, _FRAME_ROWS).collect()
            position = pl.int_range(first, first + frame.height, eager=True).alias(ROW)
            yield frame.with_columns(pl.lit(self.begin, pl.Int64).alias(OWNER), position)

    def with_places(self, rows: pl.DataFrame) -> pl.DataFrame:
        """All rows of the block, with `__part` and `__row`."""
        starts = pl.Series([start for start, _ in self.slices()], dtype=pl.Int64)
        owners = self.owners()
        positions = pl.int_range(owners.len(), eager=True) - starts.gather(owners - self.begin)
        return rows.with_columns(owners, positions.alias(ROW))

    def slices(self) -> list[tuple[int, int]]:
        """Of each part where its rows begin among the block's, and how many there are."""
        rows = [part.rows.rows for part in self.parts]
        return list(zip(accumulate(rows, initial=0), rows, strict=False))


def blocks_of(parts: Sequence[PartFacts]) -> list[PartBlock]:
    """The parts as blocks, in their order; a part with a table of its own is one by itself."""
    cuts = [0, *(index for index, pair in enumerate(pairwise(parts), 1) if not _follows(*pair)), len(parts)]
    return [PartBlock(begin, parts[begin:end]) for begin, end in pairwise(cuts) if end > begin]


def exact_types(blocks: Sequence[PartBlock], fields: Sequence[Field], context: PartContext) -> dict[str, pl.DataType]:
    """Columns that hold decimals, and no floats, and the type that keeps all their digits: text where several do."""
    schemas = [block.scan(context).collect_schema() for block in blocks]
    columns = [(schema, stored_columns(schema)) for schema in schemas]
    result: dict[str, pl.DataType] = {}
    for field in fields:
        dtypes = {schema[name] for schema, stored in columns for name in stored.get(field.name, ())}
        types = [dtype for dtype in dtypes if dtype.is_numeric() or dtype == pl.Boolean]
        decimals = [dtype for dtype in types if dtype.is_decimal()]
        if field.dtype == "float" and decimals and all(dtype.is_decimal() or dtype.is_integer() for dtype in types):
            result[field.name] = types[0] if len(types) == 1 else pl.String()
    return result


def _follows(before: PartFacts, after: PartFacts) -> bool:
    if before.first is None or after.first is None or before.rows.key != after.rows.key:
        return False
    return pack_name(before.digest) == pack_name(after.digest) and place_in_pack(before) + 1 == place_in_pack(after)


def profiles_of(parts: Sequence[PartFacts], context: PartContext) -> list[Profile]:
    """The profiles of the parts: of a whole pack its own, of some files of one that of their rows."""
    profiles, packs = [], _by_pack(parts)
    for named, members in packs.items():
        pack = context.packs[named]
        if len(members) == len(pack.parts):
            profiles.append(pack.facts.profile)
        else:
            profiles += [profile_of(block, context) for block in blocks_of(members)]
    return [*(part.profile for part in parts if part.first is None), *profiles]


def _by_pack(parts: Iterable[PartFacts]) -> Mapping[str, list[PartFacts]]:
    packs: dict[str, list[PartFacts]] = {}
    for part in parts:
        if part.first is not None:
            packs.setdefault(pack_name(part.digest), []).append(part)
    return packs


def profile_of(block: PartBlock, context: PartContext) -> Profile:
    fields = fields_of(block.parts, context.policy, None)
    return profile(conform(block.scan(context), fields).collect(), fields)


def refused_rows(parts: Sequence[PartFacts], context: PartContext) -> list[pl.DataFrame]:
    """The refused rows of the parts as they are stored, each with the place of its part among them (`__part`)."""
    frames: list[pl.DataFrame] = []
    packs: dict[str, dict[int, int]] = {}
    for place, part in enumerate(parts):
        frames += [
            context.tables.scan(ref).collect().with_columns(pl.lit(place, pl.Int64).alias(OWNER))
            for ref in part.refused
        ]
        if part.refused_rules:
            packs.setdefault(pack_name(part.digest), {})[place_in_pack(part)] = place
    for named, places in packs.items():
        for ref in context.packs[named].facts.refused:
            rows = context.tables.scan(ref).filter(pl.col(OWNER).is_in(list(places))).collect()
            frames.append(rows.with_columns(pl.col(OWNER).replace_strict(places, return_dtype=pl.Int64)))
    return frames


class _Column(NamedTuple):
    name: str
    dtype: pl.DataType


def stack_frames(frames: Sequence[pl.DataFrame]) -> pl.DataFrame:
    """Frames below each other, with a column for each type that a column has in them. Columns of nulls are left out."""
    types: dict[str, pl.DataType] = {}
    renamed = []
    frames = [frame for frame in frames if frame.height] or frames[:1]
    if not frames[0].height:
        return frames[0]
    for frame in frames:
        names = {}
        for place, (column, values) in enumerate((_column(series), series) for series in frame):
            if place and values.null_count() == values.len():
                continue
            if types.setdefault(column.name, column.dtype) == column.dtype:
                names[values.name] = column.name
            else:
                names[values.name] = type_prefix(column.dtype) + column.name
        renamed.append(frame.select(pl.col(old).alias(new) for old, new in names.items()))
    return pl.concat(renamed, how="diagonal")


def unstack_frame(frame: pl.DataFrame) -> list[pl.DataFrame]:
    """The rows as they were before they were stacked: in frames that have one type for each column."""
    columns: dict[str, list[str]] = {}
    for series in frame:
        columns.setdefault(_column(series).name, []).append(series.name)
    several = {name: stored for name, stored in columns.items() if len(stored) > 1}
    if not several:
        return [frame]
    names_of_values = [
        pl.coalesce(
            [pl.when(pl.col(column).is_not_null()).then(pl.lit(column)) for column in stored] + [pl.lit(stored[0])]
        )
        for stored in several.values()
    ]
    groups = frame.group_by(
        [expr.alias(f"held:{place}") for place, expr in enumerate(names_of_values)], maintain_order=True
    )
    frames = []
    for chosen, rows in groups:
        names = dict(zip(several, chosen, strict=True))
        chosen_names = {name: str(names.get(name, stored[0])) for name, stored in columns.items()}
        frames.append(rows.select(pl.col(stored).alias(name) for name, stored in chosen_names.items()))
    return frames


def _column(series: pl.Series) -> _Column:
    """The column of the files that a stored one holds values of."""
    return _Column(series.name.removeprefix(type_prefix(series.dtype)), series.dtype)
