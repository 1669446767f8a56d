"""Making packs: many small files are read one by one, and prepared, checked and stored together.

Files whose columns have the same types are checked in one pass, by file where a rule is about the rows of one file.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import msgspec
import numpy as np
import polars as pl

from cumulant.core.ids import digest
from cumulant.core.plan import Field
from cumulant.core.refs import TableRef
from cumulant.data.checks.rowwise import check_row_wise
from cumulant.data.checks.rules import check_columns
from cumulant.data.files.inputs import Input
from cumulant.data.files.unreadable_files import UnreadableFileError
from cumulant.data.parts.cuts import cut
from cumulant.data.parts.packs import OWNER, Pack, PackedFile, PackFacts, PackGroup, stacked, stored_pack
from cumulant.data.parts.part import POSITION, RULE, PartCheck, PartFacts, PartField, Workshop, declared_types
from cumulant.data.parts.part_making import csv_size, part_fields, plain_fields, shape_checks, shape_refused
from cumulant.data.parts.row_sorting import SortedOut, sort_out
from cumulant.data.profile import Profile, profile
from cumulant.data.schema import fields_of
from cumulant.data.spec import SourceSpec
from cumulant.data.text.casts import conform, texts_with_limits
from cumulant.data.text.csv_text import Table

#: a file of at most so many bytes is packed with others; a run that reads fewer such files packs none
SMALL, FEWEST = 1 << 20, 16
#: a pack has at least so many files (but for the last), one in so many more ends it, and at most so many
_LEAST, _ONE_IN, _MOST = 512, 512, 4096
#: bytes of the files of a pack, and of their rows in memory before they are checked
_BYTES, _ROWS_BYTES = 64 << 20, 256 << 20


def windows(inputs: Sequence[Input]) -> Iterator[list[Input]]:
    """Small files in their order as those of one pack each.

    The contents of files decide where a pack ends, so that one changed file leaves the other packs as they are.
    """
    return cut(
        inputs,
        lambda item: item.content,
        least=_LEAST,
        one_in=_ONE_IN,
        most=_MOST,
        taken=lambda item: item.bytes,
        room=_BYTES,
    )


class Packed(NamedTuple):
    """The parts of files by their places, and the files that could not be read."""

    parts: dict[int, PartFacts]
    failed: dict[int, UnreadableFileError]


def packed(files: Sequence[Input], declaration: str, texts: Collection[str], shop: Workshop) -> Packed:
    """The pack of the files that can be read, found or made. Where their rows take too much memory it has the first of
    them only.

    Raises:
        DataError, DefinitionError, UserCodeError, StorageError: as `part_making.made`.
    """
    if (pack := stored_pack(_name(files, declaration, texts), shop)) is not None:
        return Packed(dict(enumerate(pack.parts)), {})
    failed: dict[int, UnreadableFileError] = {}
    reads = list(_within_memory(files, texts, shop, failed))
    if not reads:
        return Packed({}, failed)
    left = [place for place in range(len(files)) if place not in failed]
    name = _name([files[place] for place in left], declaration, texts)
    pack = stored_pack(name, shop) or _made(name, reads, shop)
    return Packed(dict(zip(left, pack.parts, strict=False)), failed)


def _name(files: Sequence[Input], declaration: str, texts: Collection[str]) -> str:
    return digest(["pack", declaration, sorted(texts), [item.content for item in files]])


class _Read(NamedTuple):
    item: Input
    table: Table
    rows: pl.DataFrame


@dataclass
class PackContent:
    """What a pack will hold; frames have the place of each row's file (`__part`)."""

    groups: dict[PackGroup, int] = field(default_factory=dict)
    files: dict[int, PackedFile] = field(default_factory=dict)
    passed: list[pl.DataFrame] = field(default_factory=list)
    refused: list[pl.DataFrame] = field(default_factory=list)

    def group(self, fields: tuple[PartField, ...], checks: tuple[PartCheck, ...]) -> int:
        """The number of a group, which is added where there is none."""
        return self.groups.setdefault(PackGroup(fields, checks), len(self.groups))


def _made(name: str, reads: Sequence[_Read], shop: Workshop) -> Pack:
    content = PackContent()
    for places in _alike_files(reads):
        group = [reads[place] for place in places]
        if not group[0].table.rows.height:  # of a file without rows nothing is known
            content.files |= dict.fromkeys(places, PackedFile(content.group((), ()), 0, 0, 0, {}))
            continue
        if shop.prepare is not None:
            raw, rows = (
                pl.concat(frames) for frames in zip(*((one.table.rows, one.rows) for one in group), strict=True)
            )
            check_row_wise(shop.prepare, raw, rows, name=shop.prepare.name)
        check_columns(shop.spec, group[0].rows.columns, source=shop.source, url=group[0].item.url)
        _add(content, places, group, shop)
    return stored(name, content, shop)


def _within_memory(
    files: Sequence[Input], texts: Collection[str], shop: Workshop, failed: dict[int, UnreadableFileError]
) -> Iterator[_Read]:
    """The files that can be read; the others are put into `failed`."""
    size = 0
    for place, item in enumerate(files):
        try:
            table = item.rows(texts)
        except UnreadableFileError as error:
            failed[place] = error
            continue
        rows = shop.prepared(table.rows) if table.rows.height else table.rows
        yield _Read(item, table, rows)
        size += int(rows.estimated_size()) + (0 if shop.prepare is None else int(table.rows.estimated_size()))
        if size > _ROWS_BYTES:
            return


def _alike_files(reads: Sequence[_Read]) -> list[list[int]]:
    """The places of files that have the same columns and types."""
    groups: dict[object, list[int]] = {}
    for place, read in enumerate(reads):
        raw = tuple(read.table.rows.schema.items()) if read.table.rows.height else ()
        rows = tuple(read.rows.schema.items()) if raw else ()
        named = (raw, rows, read.item.guessed, read.table.partitions)
        groups.setdefault(named, []).append(place)
    return list(groups.values())


def _add(content: PackContent, places: Sequence[int], group: Sequence[_Read], shop: Workshop) -> None:
    """Sort out the rows of files that are alike."""
    if len(group) > 1 and texts_with_limits(group[0].rows.schema, shop.spec):
        _add_one_by_one(content, places, group, shop)
        return
    heights = [read.rows.height for read in group]
    owners = pl.Series(OWNER, np.repeat(np.arange(len(group)), heights), dtype=pl.Int64)
    sorted_out = sort_out(pl.concat([read.rows for read in group]), shop, owners)
    if len(group) > 1 and any(width is not None for width in sorted_out.plan.padded.values()):
        _add_one_by_one(content, places, group, shop)
        return
    where = pl.Series(places, dtype=pl.Int64)
    rows, left = owners.filter(sorted_out.rule.is_null()), owners.filter(sorted_out.rule.is_not_null())
    begins = pl.Series(np.cumsum([0, *heights[:-1]]), dtype=pl.Int64)
    content.passed.append(sorted_out.passed.with_columns(where.gather(rows).alias(OWNER)))
    if left.len():
        content.refused.append(
            sorted_out.refused.with_columns(
                (pl.col(POSITION) - begins.gather(left)).alias(POSITION), where.gather(left).alias(OWNER)
            )
        )
    for place, read in zip(places, group, strict=True):
        shapes = shape_refused(read.table).values()
        content.refused += [frame.with_columns(pl.lit(place, pl.Int64).alias(OWNER)) for frame in shapes]
    for place, file in zip(places, _files(content, group, sorted_out, owners, shop), strict=True):
        content.files[place] = file


def _add_one_by_one(content: PackContent, places: Sequence[int], group: Sequence[_Read], shop: Workshop) -> None:
    """For columns whose other values in the file say how one is read: text with leading zeros, or of mostly numbers."""
    for place, read in zip(places, group, strict=True):
        _add(content, [place], [read], shop)


def _files(
    content: PackContent, group: Sequence[_Read], sorted_out: SortedOut, owners: pl.Series, shop: Workshop
) -> Iterator[PackedFile]:
    """What the pack knows of each file of a group."""
    fields, checks = _shared(group, sorted_out, shop)
    number = content.group(fields, checks)
    refused = _refused_rules(group, sorted_out, owners, shop.spec)
    failed = _failed(sorted_out, owners, len(group))
    kept = owners.filter(sorted_out.rule.is_null())
    rows = np.bincount(kept.to_numpy(), minlength=len(group))
    values = values_of(sorted_out.passed, kept, plain_fields(fields, shop.spec), len(group))
    declared, empty = declared_types(shop.spec), {cast.name for cast in sorted_out.plan.casts if cast.empty}
    for place, read in enumerate(group):
        raw, counts = read.table.rows.height, [int(failures[place]) for failures in failed]
        unread = [refused[place].get(check.rule, 0) for check in checks[len(counts) :]]
        nulls = tuple(int(missing[place]) for missing in values.nulls)
        yield PackedFile(
            group=number,
            rows_in=raw + sum(unread),
            rows_dropped=raw - read.rows.height,
            rows=int(rows[place]),
            refused=refused[place],
            failed=(*counts, *unread),
            empty=tuple(
                index
                for index, field in enumerate(fields)
                if field.name not in declared and (field.name in empty or nulls[index] == rows[place])
            ),
            nulls=nulls,
            low=tuple(extremes.get(place, (None, None))[0] for extremes in values.extremes),
            high=tuple(extremes.get(place, (None, None))[1] for extremes in values.extremes),
            notes=read.table.notes,
        )


def _shared(
    group: Sequence[_Read], sorted_out: SortedOut, shop: Workshop
) -> tuple[tuple[PartField, ...], tuple[PartCheck, ...]]:
    """The fields and checks of all files of a group; last those of rows that were refused before they were read."""
    guesses = {*group[0].rows.columns} if group[0].item.guessed else group[0].table.partitions
    nulls = {column.name: column.null_count() for column in sorted_out.passed}
    fields = part_fields(sorted_out.plan, nulls, sorted_out.passed.height, shop.spec, guesses)
    shapes = {check.rule: check for read in group for check in shape_checks(read.table, shop.spec)}
    checks = [*sorted_out.checks, *shapes.values()]
    return (
        tuple(msgspec.structs.replace(one, empty=False) for one in fields),
        tuple(msgspec.structs.replace(check, failed=0) for check in checks),
    )


def _refused_rules(
    group: Sequence[_Read], sorted_out: SortedOut, owners: pl.Series, spec: SourceSpec
) -> list[dict[str, int]]:
    """Of each file its refused rows by rule."""
    result = [{check.rule: check.failed for check in shape_checks(read.table, spec) if check.failed} for read in group]
    rules = pl.DataFrame([owners, sorted_out.rule.alias(RULE)]).drop_nulls()
    for owner, rule, count in rules.group_by(OWNER, RULE, maintain_order=True).len().iter_rows():
        result[owner][rule] = count
    return result


def _failed(sorted_out: SortedOut, owners: pl.Series, count: int) -> list[np.ndarray[tuple[int], np.dtype[np.int64]]]:
    """Of each check how many rows of each file fail it."""
    owner = owners.to_numpy()
    result = [np.bincount(owner[mark.to_numpy()], minlength=count) for mark in sorted_out.marks]
    repeats = (sorted_out.rule == check.rule for check in sorted_out.checks[len(result) :])
    result += [np.bincount(owner[rows.fill_null(value=False).to_numpy()], minlength=count) for rows in repeats]
    return result


class Values(NamedTuple):
    """Of each field: nulls by file, and of whole numbers the extremes of each file."""

    nulls: list[np.ndarray[tuple[int], np.dtype[np.int64]]]
    extremes: list[dict[int, tuple[int, int]]]


def values_of(passed: pl.DataFrame, owners: pl.Series, fields: Sequence[Field], count: int) -> Values:
    """What is known of the values of each file; of a personal column no extremes."""
    owner = owners.to_numpy()
    nulls = [np.bincount(owner[passed[field.name].is_null().to_numpy()], minlength=count) for field in fields]
    extremes: list[dict[int, tuple[int, int]]] = []
    for column in fields:
        found = {}
        if column.dtype == "int" and not column.personal:
            value = pl.col(column.name)
            numbers = pl.DataFrame([owners, passed[column.name]]).drop_nulls()
            bounds = numbers.group_by(OWNER).agg(value.min().alias("low"), value.max().alias("high"))
            found = {place: (low, high) for place, low, high in bounds.iter_rows()}
        extremes.append(found)
    return Values(nulls, extremes)


def stored(name: str, content: PackContent, shop: Workshop) -> Pack:
    """A pack, stored under its name; the facts last. Raises StorageError: it cannot be written."""
    if content.passed:
        rows = stacked([frame.select(pl.exclude(OWNER), OWNER) for frame in content.passed])
        rows = rows.sort(OWNER, maintain_order=True).drop(OWNER)
    else:
        rows = pl.DataFrame(schema={RULE: pl.String})  # a table has at least one column
    facts = PackFacts(
        digest=name,
        rows=shop.tables.write(shop.key(name, "rows"), rows),
        refused=_refused(name, content.refused, shop),
        groups=tuple(content.groups),
        files=tuple(content.files[place] for place in range(len(content.files))),
        profile=Profile(rows.height),
        csv_bytes=0,
    )
    fields: tuple[Field, ...] = fields_of(Pack.of(facts).parts, shop.spec, None)
    typed = conform(rows.lazy(), fields).collect()
    facts = msgspec.structs.replace(facts, profile=profile(typed, fields), csv_bytes=csv_size(typed))
    shop.record(facts)
    shop.packs[name] = Pack.of(facts)
    return shop.packs[name]


def _refused(name: str, frames: Sequence[pl.DataFrame], shop: Workshop) -> tuple[TableRef, ...]:
    """Refused rows as they are: a table for each set of columns and types."""
    tables: dict[object, list[pl.DataFrame]] = {}
    for frame in frames:
        if frame.height:
            tables.setdefault(tuple(frame.schema.items()), []).append(frame)
    return tuple(
        shop.tables.write(shop.key(name, f"refused-{number}"), pl.concat(alike).sort(OWNER, maintain_order=True))
        for number, alike in enumerate(tables.values())
    )
