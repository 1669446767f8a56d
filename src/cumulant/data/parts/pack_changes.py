"""Packs that are made of other parts: several put together, or one without rows that are refused late."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import accumulate

import msgspec
import polars as pl

from cumulant.core.ids import digest
from cumulant.data.parts.pack_making import PackContent, store_pack, values_of
from cumulant.data.parts.packs import OWNER, PartBlock, load_pack, refused_rows, unstack_frame
from cumulant.data.parts.part import Pack, PackedFile, PackGroup, PartContext, PartFacts
from cumulant.data.row_columns import ROW, RULE
from cumulant.data.schema import fields_of
from cumulant.data.snapshot import frame_digest
from cumulant.data.text.casts import conform


def combine_blocks(blocks: Sequence[PartBlock], context: PartContext) -> Pack:
    """The parts of the blocks as one pack, stored or new. Raises StorageError: it cannot be written."""
    parts = [part for block in blocks for part in block.parts]
    name = digest(["combined", [part.digest for part in parts]])
    pack = load_pack(name, context)
    if pack is not None:
        return pack
    content = PackContent(refused=refused_rows(parts, context))
    begins = accumulate((len(block.parts) for block in blocks), initial=0)
    for block, begin in zip(blocks, begins, strict=False):
        owners = replace(block, begin=begin).owners()
        content.passed.append(block.scan(context).collect().with_columns(owners))
    for place, (part, rules) in enumerate(zip(parts, _by_rule(parts, content.refused), strict=True)):
        content.files[place] = _packed_file(part, rules, content)
    return store_pack(name, content, context)


def _by_rule(parts: Sequence[PartFacts], refused: Sequence[pl.DataFrame]) -> Iterator[dict[str, int]]:
    """Of each part its refused rows by rule."""
    counts: dict[int, dict[str, int]] = {}
    for frame in refused:
        for place, rule, count in frame.group_by(OWNER, RULE, maintain_order=True).len().iter_rows():
            rules = counts.setdefault(place, {})
            rules[rule] = rules.get(rule, 0) + count
    return (counts.get(place, {}) for place in range(len(parts)))


def _packed_file(part: PartFacts, refused: dict[str, int], content: PackContent) -> PackedFile:
    """What a pack knows of a part, whose group is added to the content."""
    fields = tuple(msgspec.structs.replace(field, empty=False) for field in part.fields)
    checks = tuple(msgspec.structs.replace(check, failed=0) for check in part.checks)
    columns = [part.profile[field.name] for field in fields]
    whole = [column if column.dtype == "int" else None for column in columns]
    return PackedFile(
        group=content.group(fields, checks),
        rows_in=part.rows_in,
        rows_dropped=part.rows_dropped,
        rows=part.rows.rows,
        refused=refused,
        failed=tuple(check.failed for check in part.checks),
        empty=tuple(place for place, field in enumerate(part.fields) if field.empty),
        nulls=tuple(column.nulls for column in columns),
        low=tuple(None if column is None else column.min for column in whole),
        high=tuple(None if column is None else column.max for column in whole),
        notes=part.notes,
    )


def pack_without(block: PartBlock, gone: pl.DataFrame, context: PartContext) -> Pack:
    """The pack of a block's files without the rows `gone` (`__part`, counted from 0, `__row` and `__rule`)."""
    name = digest(["without", [part.digest for part in block.parts], frame_digest(gone.select(OWNER, ROW, RULE))])
    pack = load_pack(name, context)
    if pack is not None:
        return pack
    rows = replace(block, begin=0).with_places(block.scan(context).collect())
    passed = rows.join(gone, on=[OWNER, ROW], how="anti", maintain_order="left").drop(ROW)
    refused = gone.join(rows, on=[OWNER, ROW], how="left", maintain_order="left")
    refused = refused.select(RULE, ROW, pl.exclude(RULE, ROW))
    content = PackContent(passed=[passed], refused=[*refused_rows(block.parts, context), *unstack_frame(refused)])
    rules = _by_rule(block.parts, content.refused)
    files = [_packed_file(part, by_rule, content) for part, by_rule in zip(block.parts, rules, strict=True)]
    content.files = dict(enumerate(_recount(files, passed, list(content.groups), block, context)))
    return store_pack(name, content, context)


def _recount(
    files: Sequence[PackedFile],
    passed: pl.DataFrame,
    groups: Sequence[PackGroup],
    block: PartBlock,
    context: PartContext,
) -> list[PackedFile]:
    """The files with the rows and values that are left."""
    fields = fields_of(block.parts, context.policy, None)
    owners = passed[OWNER]
    values = values_of(conform(passed.lazy(), fields).collect(), owners, fields, len(files))
    places = {field.name: place for place, field in enumerate(fields)}
    rows = dict(passed.group_by(OWNER).len().iter_rows())
    result = []
    for number, file in enumerate(files):
        own = [places[field.name] for field in groups[file.group].fields]
        bounds = [values.extremes[place].get(number, (None, None)) for place in own]
        result.append(
            msgspec.structs.replace(
                file,
                rows=rows.get(number, 0),
                nulls=tuple(int(values.nulls[place][number]) for place in own),
                low=tuple(low for low, _ in bounds),
                high=tuple(high for _, high in bounds),
            )
        )
    return result
