"""Making packs: many small files are read one by one, and prepared, checked by common types, and stored together."""

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
from cumulant.data.files.inputs import SourceInput
from cumulant.data.files.unreadable_files import UnreadableFileError
from cumulant.data.parts.cuts import cut
from cumulant.data.parts.packs import OWNER, load_pack, stack_frames
from cumulant.data.parts.part import (
    Pack,
    PackedFile,
    PackFacts,
    PackGroup,
    PartCheck,
    PartContext,
    PartFacts,
    PartField,
    declared_types,
)
from cumulant.data.parts.part_making import csv_size, misshapen_rows, part_fields, plain_fields, shape_checks
from cumulant.data.parts.row_sorting import SortedRows, sort_rows
from cumulant.data.profile import Profile, profile
from cumulant.data.row_columns import ROW, RULE
from cumulant.data.rules.prepare_check import check_row_wise
from cumulant.data.rules.row_checks import check_columns
from cumulant.data.schema import fields_of
from cumulant.data.spec import SourceSpec
from cumulant.data.text.casts import conform, texts_with_limits
from cumulant.data.text.csv_text import FileTable

#: a file of at most so many bytes is packed with others; a run that reads fewer such files packs none
SMALL, FEWEST = 1 << 20, 16
#: a pack has at least so many files (but for the last), one in so many more ends it, and at most so many
_LEAST, _ONE_IN, _MOST = 512, 512, 4096
#: bytes of the files of a pack, and of their rows in memory before they are checked
_BYTES, _ROWS_BYTES = 64 << 20, 256 << 20


def split_into_packs(inputs: Sequence[SourceInput]) -> Iterator[list[SourceInput]]:
    """Small files in their order as those of one pack each, cut by content so that one change leaves the others."""
    return cut(
        inputs,
        lambda item: item.content,
        least=_LEAST,
        one_in=_ONE_IN,
        most=_MOST,
        weight=lambda item: item.bytes,
        capacity=_BYTES,
    )


class PackedParts(NamedTuple):
    """The parts of files by their places, and the files that could not be read."""

    parts: dict[int, PartFacts]
    failed: dict[int, UnreadableFileError]


def pack_files(
    files: Sequence[SourceInput], declaration: str, texts: Collection[str], context: PartContext
) -> PackedParts:
    """The pack of the files that can be read, stored or new; of the first of them where memory is short.

    Raises:
        DataError, DefinitionError, UserCodeError, StorageError: as `part_making.build_part`.
    """
    if (pack := load_pack(_name(files, declaration, texts), context)) is not None:
        return PackedParts(dict(enumerate(pack.parts)), {})
    failed: dict[int, UnreadableFileError] = {}
    reads = list(_read_within_memory(files, texts, context, failed))
    if not reads:
        return PackedParts({}, failed)
    readable = [place for place in range(len(files)) if place not in failed]
    name = _name([files[place] for place in readable], declaration, texts)
    pack = load_pack(name, context) or _build_pack(name, reads, context)
    return PackedParts(dict(zip(readable, pack.parts, strict=False)), failed)


def _name(files: Sequence[SourceInput], declaration: str, texts: Collection[str]) -> str:
    return digest(["pack", declaration, sorted(texts), [item.content for item in files]])


class _ReadFile(NamedTuple):
    item: SourceInput
    table: FileTable
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


def _build_pack(name: str, reads: Sequence[_ReadFile], context: PartContext) -> Pack:
    content = PackContent()
    for places in _group_alike_files(reads):
        group = [reads[place] for place in places]
        if not group[0].table.rows.height:  # of a file without rows nothing is known
            content.files |= dict.fromkeys(places, PackedFile(content.group((), ()), 0, 0, 0, {}))
            continue
        if context.prepare is not None:
            raw, rows = (
                pl.concat(frames) for frames in zip(*((file.table.rows, file.rows) for file in group), strict=True)
            )
            check_row_wise(context.prepare, raw, rows, name=context.prepare.name)
        check_columns(context.spec, group[0].rows.columns, source=context.source, url=group[0].item.url)
        _add_files(content, places, group, context)
    return store_pack(name, content, context)


def _read_within_memory(
    files: Sequence[SourceInput], texts: Collection[str], context: PartContext, failed: dict[int, UnreadableFileError]
) -> Iterator[_ReadFile]:
    """The files that can be read; the others are put into `failed`."""
    size = 0
    for place, item in enumerate(files):
        try:
            table = item.rows(texts)
        except UnreadableFileError as error:
            failed[place] = error
            continue
        rows = context.apply_prepare(table.rows) if table.rows.height else table.rows
        yield _ReadFile(item, table, rows)
        size += int(rows.estimated_size()) + (0 if context.prepare is None else int(table.rows.estimated_size()))
        if size > _ROWS_BYTES:
            return


def _group_alike_files(reads: Sequence[_ReadFile]) -> list[list[int]]:
    """The places of files that have the same columns and types."""
    groups: dict[object, list[int]] = {}
    for place, read in enumerate(reads):
        raw = tuple(read.table.rows.schema.items()) if read.table.rows.height else ()
        rows = tuple(read.rows.schema.items()) if raw else ()
        named = (raw, rows, read.item.guessed, read.table.partitions)
        groups.setdefault(named, []).append(place)
    return list(groups.values())


def _add_files(content: PackContent, places: Sequence[int], group: Sequence[_ReadFile], context: PartContext) -> None:
    """Sort out the rows of files that are alike."""
    if len(group) > 1 and texts_with_limits(group[0].rows.schema, context.spec):
        _add_one_by_one(content, places, group, context)
        return
    heights = [read.rows.height for read in group]
    owners = pl.Series(OWNER, np.repeat(np.arange(len(group)), heights), dtype=pl.Int64)
    sorted_out = sort_rows(pl.concat([read.rows for read in group]), context, owners)
    if len(group) > 1 and any(width is not None for width in sorted_out.plan.padded.values()):
        _add_one_by_one(content, places, group, context)
        return
    where = pl.Series(places, dtype=pl.Int64)
    passed, refused = owners.filter(sorted_out.rule.is_null()), owners.filter(sorted_out.rule.is_not_null())
    begins = pl.Series(np.cumsum([0, *heights[:-1]]), dtype=pl.Int64)
    content.passed.append(sorted_out.passed.with_columns(where.gather(passed).alias(OWNER)))
    if refused.len():
        content.refused.append(
            sorted_out.refused.with_columns(
                (pl.col(ROW) - begins.gather(refused)).alias(ROW), where.gather(refused).alias(OWNER)
            )
        )
    for place, read in zip(places, group, strict=True):
        shapes = misshapen_rows(read.table).values()
        content.refused += [frame.with_columns(pl.lit(place, pl.Int64).alias(OWNER)) for frame in shapes]
    for place, file in zip(places, _files(content, group, sorted_out, owners, context), strict=True):
        content.files[place] = file


def _add_one_by_one(
    content: PackContent, places: Sequence[int], group: Sequence[_ReadFile], context: PartContext
) -> None:
    """Columns whose other values in the file decide how one is read: text with leading zeros, or mostly numbers."""
    for place, read in zip(places, group, strict=True):
        _add_files(content, [place], [read], context)


def _files(
    content: PackContent, group: Sequence[_ReadFile], sorted_out: SortedRows, owners: pl.Series, context: PartContext
) -> Iterator[PackedFile]:
    """What the pack knows of each file of a group."""
    fields, checks = _shared_facts(group, sorted_out, context)
    number = content.group(fields, checks)
    refused = _refused_rules(group, sorted_out, owners, context.spec)
    failed = _failures_by_file(sorted_out, owners, len(group))
    passed = owners.filter(sorted_out.rule.is_null())
    rows = np.bincount(passed.to_numpy(), minlength=len(group))
    values = values_of(sorted_out.passed, passed, plain_fields(fields, context.spec), len(group))
    declared, empty = declared_types(context.spec), {cast.name for cast in sorted_out.plan.casts if cast.empty}
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


def _shared_facts(
    group: Sequence[_ReadFile], sorted_out: SortedRows, context: PartContext
) -> tuple[tuple[PartField, ...], tuple[PartCheck, ...]]:
    """The fields and checks of all files of a group; last those of rows that were refused before they were read."""
    guesses = {*group[0].rows.columns} if group[0].item.guessed else group[0].table.partitions
    nulls = {column.name: column.null_count() for column in sorted_out.passed}
    fields = part_fields(sorted_out.plan, nulls, sorted_out.passed.height, context.spec, guesses)
    shapes = {check.rule: check for read in group for check in shape_checks(read.table, context.spec)}
    checks = [*sorted_out.checks, *shapes.values()]
    return (
        tuple(msgspec.structs.replace(field, empty=False) for field in fields),
        tuple(msgspec.structs.replace(check, failed=0) for check in checks),
    )


def _refused_rules(
    group: Sequence[_ReadFile], sorted_out: SortedRows, owners: pl.Series, spec: SourceSpec
) -> list[dict[str, int]]:
    """Of each file its refused rows by rule."""
    result = [{check.rule: check.failed for check in shape_checks(read.table, spec) if check.failed} for read in group]
    rules = pl.DataFrame([owners, sorted_out.rule.alias(RULE)]).drop_nulls()
    for owner, rule, count in rules.group_by(OWNER, RULE, maintain_order=True).len().iter_rows():
        result[owner][rule] = count
    return result


def _failures_by_file(
    sorted_out: SortedRows, owners: pl.Series, count: int
) -> list[np.ndarray[tuple[int], np.dtype[np.int64]]]:
    """Of each check how many rows of each file fail it."""
    owner = owners.to_numpy()
    result = [np.bincount(owner[mark.to_numpy()], minlength=count) for mark in sorted_out.marks]
    repeats = (sorted_out.rule == check.rule for check in sorted_out.checks[len(result) :])
    result += [np.bincount(owner[rows.fill_null(value=False).to_numpy()], minlength=count) for rows in repeats]
    return result


class FileValues(NamedTuple):
    """Of each field: nulls by file, and of whole numbers the extremes of each file."""

    nulls: list[np.ndarray[tuple[int], np.dtype[np.int64]]]
    extremes: list[dict[int, tuple[int, int]]]


def values_of(passed: pl.DataFrame, owners: pl.Series, fields: Sequence[Field], count: int) -> FileValues:
    """What is known of the values of each file; of a personal column no extremes."""
    owner = owners.to_numpy()
    nulls = [np.bincount(owner[passed[field.name].is_null().to_numpy()], minlength=count) for field in fields]
    extremes: list[dict[int, tuple[int, int]]] = []
    for column in fields:
        bounds_by_file = {}
        if column.dtype == "int" and not column.personal:
            value = pl.col(column.name)
            numbers = pl.DataFrame([owners, passed[column.name]]).drop_nulls()
            bounds = numbers.group_by(OWNER).agg(value.min().alias("low"), value.max().alias("high"))
            bounds_by_file = {place: (low, high) for place, low, high in bounds.iter_rows()}
        extremes.append(bounds_by_file)
    return FileValues(nulls, extremes)


def store_pack(name: str, content: PackContent, context: PartContext) -> Pack:
    """A pack, stored under its name; the facts last. Raises StorageError: it cannot be written."""
    if content.passed:
        rows = stack_frames([frame.select(pl.exclude(OWNER), OWNER) for frame in content.passed])
        rows = rows.sort(OWNER, maintain_order=True).drop(OWNER)
    else:
        rows = pl.DataFrame(schema={RULE: pl.String})  # a table has at least one column
    facts = PackFacts(
        digest=name,
        rows=context.write(name, "rows", rows),
        refused=_write_refused(name, content.refused, context),
        groups=tuple(content.groups),
        files=tuple(content.files[place] for place in range(len(content.files))),
        profile=Profile(rows.height),
        csv_bytes=0,
    )
    fields: tuple[Field, ...] = fields_of(Pack.of(facts).parts, context.policy, None)
    typed = conform(rows.lazy(), fields).collect()
    facts = msgspec.structs.replace(facts, profile=profile(typed, fields), csv_bytes=csv_size(typed))
    context.record(facts)
    context.packs[name] = Pack.of(facts)
    return context.packs[name]


def _write_refused(name: str, frames: Sequence[pl.DataFrame], context: PartContext) -> tuple[TableRef, ...]:
    """Refused rows as they are: a table for each set of columns and types."""
    tables: dict[object, list[pl.DataFrame]] = {}
    for frame in frames:
        if frame.height:
            tables.setdefault(tuple(frame.schema.items()), []).append(frame)
    return tuple(
        context.write(name, f"refused-{number}", pl.concat(alike).sort(OWNER, maintain_order=True))
        for number, alike in enumerate(tables.values())
    )
