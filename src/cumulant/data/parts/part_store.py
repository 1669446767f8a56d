"""The parts of a source's files: reused where stored, read where new, packed if small.

Small parts in a row become one pack, and packs larger ones, so that no row is rewritten more than a few times.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from typing import NamedTuple

from cumulant.core.errors import DataError, DefinitionError, UsageError
from cumulant.core.ids import digest
from cumulant.core.progress import Progress, silent
from cumulant.core.system.memory import raise_limit
from cumulant.data.files.inputs import SourceInput
from cumulant.data.files.unreadable_files import UnreadableFileError, refuse_all
from cumulant.data.parts.file_differences import add_file_names
from cumulant.data.parts.large_parts import build_part_in_pieces
from cumulant.data.parts.pack_changes import combine_blocks
from cumulant.data.parts.pack_making import FEWEST, SMALL, pack_files, split_into_packs
from cumulant.data.parts.packs import PartBlock, blocks_of, load_part
from cumulant.data.parts.part import PartContext, PartFacts
from cumulant.data.parts.part_making import build_part
from cumulant.data.snapshot import SourceFile, UnreadableFile, pack_name

#: how many times its bytes a text takes where it is read whole (measured: 5.5 for CSV of seven columns, 4 for the XML
#: of workbooks), and with declared paths into JSON (8.7)
_TIMES_TEXT, _TIMES_PATHS = 5, 9
_GIB = 1 << 30
#: so many neighbours of one size become a pack; a size is so many times as many files as the one before
_FAN = 16
_SIZES = (_FAN, _FAN**2, _FAN**3)
#: the most bytes of a pack that becomes part of another, and of the pack that comes of it
_PACKED_BYTES, _PACK_BYTES = 16 << 20, 64 << 20


class ReadFiles(NamedTuple):
    """The files that could be read with their parts, in the order of the files, and those that could not."""

    inputs: list[SourceInput]
    parts: list[PartFacts]
    unreadable: tuple[UnreadableFile, ...]


def load_parts(
    inputs: Sequence[SourceInput],
    known: Sequence[SourceFile],
    context: PartContext,
    declaration: str,
    progress: Progress,
    *,
    unreadable: Sequence[UnreadableFile] = (),
) -> ReadFiles:
    """The parts of the files. `known`: the files of the last snapshot, under the same declaration.

    `unreadable`: those that it could not read; not tried again while the files and the memory limit are the same.

    Raises:
        DataError: no file can be read.
        DataError, DefinitionError, UserCodeError, StorageError: as `part_making.build_part`.
    """
    parts = _find_stored_parts(inputs, known, context)
    failed: dict[int, UnreadableFileError] = {}
    tried = {
        (file.url, file.content): file for file in unreadable if file.sha256 and file.memory == context.spec.memory
    }
    earlier = {
        place: tried[item.url, item.content]
        for place, item in enumerate(inputs)
        if place not in parts and (item.url, item.content) in tried
    }
    new = [place for place in range(len(inputs)) if place not in parts and place not in earlier]
    small = [place for place in new if inputs[place].bytes <= SMALL]
    if len(small) >= FEWEST:
        places = iter(small)
        for window in split_into_packs([inputs[place] for place in small]):
            progress(f"{context.source}: reading {window[0].url} and others", 0.9 * len(parts) / len(inputs))
            try:
                pack = pack_files(window, declaration, (), context)
            except (DataError, DefinitionError) as error:
                raise add_file_names(error, inputs, context) from error
            taken = [next(places) for _ in window]
            parts |= {taken[place]: part for place, part in pack.parts.items()}
            failed |= {taken[place]: error for place, error in pack.failed.items()}
    for place in new:
        item = inputs[place]
        if place not in parts and place not in failed:
            progress(f"{context.source}: reading {item.url}", 0.9 * len(parts) / len(inputs))
            name = digest([item.content, declaration])
            within = _progress_within(progress, context.source, done=len(parts) / len(inputs), own=1 / len(inputs))
            try:
                parts[place] = context.find_part(name) or build_file_part(context, name, item, (), within)
            except UnreadableFileError as error:
                failed[place] = error
            except (DataError, DefinitionError) as error:
                raise add_file_names(error, inputs, context, known=item.url) from error
    if not parts:
        refuse_all(context.source, [failed[place] for place in sorted(failed)], list(earlier.values()))
    gone = earlier | {place: _unreadable(inputs[place], error, context) for place, error in failed.items()}
    places_read = sorted(parts)
    return ReadFiles(
        [inputs[place] for place in places_read],
        [parts[place] for place in places_read],
        tuple(gone[place] for place in sorted(gone)),
    )


def _progress_within(progress: Progress, source: str, *, done: float, own: float) -> Progress:
    """Progress within a file, of which there are others: `done` of all of them, and its `own` part."""

    def within(text: str, share: float | None = None) -> None:
        progress(f"{source}: {text}", 0.9 * (done + own * (share or 0.0)))

    return within


def _unreadable(item: SourceInput, error: UnreadableFileError, context: PartContext) -> UnreadableFile:
    return UnreadableFile(
        url=item.url,
        sha256=item.sha256,
        bytes=item.bytes,
        stamp=item.stamp,
        reason=error.message,
        partition=item.partition,
        memory=context.spec.memory,
    )


def build_file_part(
    context: PartContext, name: str, item: SourceInput, texts: Collection[str], progress: Progress = silent
) -> PartFacts:
    """A part of its own; `progress` of a large file.

    Raises:
        UsageError: it takes more memory than it may; others as `part_making.build_part`.
    """
    pieces = item.pieces(texts, progress)
    part = None if pieces is None else build_part_in_pieces(context, name, pieces, url=item.url)
    if part is not None:
        return part
    _refuse_above_memory(item, context)
    return build_part(context, name, item.rows(texts), url=item.url, guessed=item.guessed)


def _refuse_above_memory(item: SourceInput, context: PartContext) -> None:
    """Raise UsageError for a text or workbook that is read whole and takes more memory than it may."""
    needed = item.text_bytes() * (_TIMES_PATHS if context.spec.columns else _TIMES_TEXT) if item.guessed else 0
    if needed > context.budget.memory:
        raise UsageError(
            f"{item.url} is read whole, which takes about {needed / _GIB:.1f} GiB, more than resources.memory allows",
            subject="resources.memory",
            hint=f"{raise_limit(needed)}, or write the file as Parquet, which is read in parts",
        )


def read_as_text(
    parts: Sequence[PartFacts],
    inputs: Sequence[SourceInput],
    texts: Sequence[tuple[str, ...]],
    context: PartContext,
    progress: Progress = silent,
) -> list[PartFacts]:
    """The parts, with those read again (or their whole packs) whose columns `texts` were read as numbers."""
    result = list(parts)
    packs: dict[str, list[int]] = {}
    for place, part in enumerate(parts):
        if part.first is not None:
            packs.setdefault(pack_name(part.digest), []).append(place)
        elif texts[place]:
            name = digest([part.digest, "text", texts[place]])
            within = _progress_within(progress, context.source, done=0.0, own=1.0)
            result[place] = context.find_part(name) or build_file_part(
                context, name, inputs[place], texts[place], within
            )
    for name, places in packs.items():
        columns = sorted({column for place in places for column in texts[place]})
        if columns:
            files = [inputs[place] for place in places]
            again = pack_files(files, digest([name, "text"]), columns, context).parts
            for number, (place, item) in enumerate(zip(places, files, strict=True)):
                own = digest([item.content, name, "text", columns])
                result[place] = (
                    again.get(number) or context.find_part(own) or build_file_part(context, own, item, columns)
                )
    return result


def _find_stored_parts(
    inputs: Sequence[SourceInput], known: Sequence[SourceFile], context: PartContext
) -> dict[int, PartFacts]:
    """The stored parts of files by place. A part of a pack is of one file, also where others have its content."""
    places = {(item.url, item.content): place for place, item in enumerate(inputs)}
    free: dict[str, list[int]] = {}
    for place, item in enumerate(inputs):
        free.setdefault(item.content, []).append(place)
    result: dict[int, PartFacts] = {}

    def claim(file: SourceFile, place: int) -> None:
        part = load_part(file.parts[0], context)
        free[file.content].remove(place)
        if part is not None:
            result[place] = part

    for file in known:
        if (file.url, file.content) in places:
            claim(file, places[file.url, file.content])
    for file in known:  # those that were moved
        if (file.url, file.content) not in places and free.get(file.content):
            claim(file, free[file.content][0])
    return result


def compact_parts(parts: Sequence[PartFacts], context: PartContext) -> list[PartFacts]:
    """The same parts, neighbours put together where they are many; no pack is left of which a file is missing."""
    result: list[PartFacts] = []
    for blocks in _group_blocks(blocks_of(parts)):
        result += blocks[0].parts if len(blocks) == 1 else combine_blocks(blocks, context).parts
    present = Counter(pack_name(part.digest) for part in result if part.first is not None)
    whole = [
        block.parts
        if block.pack is None or present[block.pack] == len(context.packs[block.pack].parts)
        else combine_blocks([block], context).parts
        for block in blocks_of(result)
    ]
    return [part for block in whole for part in block]


def _group_blocks(blocks: Sequence[PartBlock]) -> list[list[PartBlock]]:
    """The blocks in their order, those together that become one pack."""
    for size in _SIZES:
        run: list[PartBlock] = []
        result: list[list[PartBlock]] = []
        for block in blocks:
            fits = len(block.parts) < size and block.range.bytes <= (SMALL if len(block.parts) == 1 else _PACKED_BYTES)
            if run and not (fits and sum(member.range.bytes for member in run) + block.range.bytes <= _PACK_BYTES):
                result += _together(run)
                run = []
            if fits:
                run.append(block)
            else:
                result.append([block])
        result += _together(run)
        if len(result) < len(blocks):
            return result
    return [[block] for block in blocks]


def _together(run: list[PartBlock]) -> list[list[PartBlock]]:
    return [run] if len(run) >= _FAN else [[block] for block in run]
