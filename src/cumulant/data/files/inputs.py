"""Inputs of a source: its files, or a frame that was passed, each with its content's hash and its rows."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NoReturn

from cumulant.core.errors import DataError
from cumulant.core.ids import file_digest
from cumulant.core.progress import Progress
from cumulant.data.files.file_pieces import Pieces
from cumulant.data.files.hive_columns import Partition
from cumulant.data.files.listed_file import ListedFile, listed_files
from cumulant.data.files.listing import TYPED, FileListing, file_kind
from cumulant.data.files.reading import reading_errors, with_absent, with_nested_columns
from cumulant.data.files.unreadable_files import UnreadableFileError, reading_file
from cumulant.data.files.user_frames import to_polars
from cumulant.data.snapshot import Snapshot, SourceFile, UnreadableFile, content_digest, frame_digest
from cumulant.data.spec import SourceSpec
from cumulant.data.text.csv_text import FileTable
from cumulant.ports.files import Files


@dataclass(frozen=True)
class SourceInput:
    """One file or frame: its name, content hash, and how to read its rows.

    `sha256` is empty where its bytes cannot be read. `rows` and `pieces` raise UnreadableFileError.
    """

    url: str
    sha256: str
    bytes: int
    stamp: str
    guessed: bool
    rows: Callable[[Collection[str]], FileTable]
    partition: Partition = ()
    #: the rows of a large file in pieces, with progress each time; None of one that is read whole
    pieces: Callable[[Collection[str], Progress], Pieces | None] = lambda *_: None
    #: the bytes of text that are read of it where it is read whole
    text_bytes: Callable[[], int] = lambda: 0

    @property
    def content(self) -> str:
        return content_digest(self.sha256, self.partition)


def frame_input(frame: object, spec: SourceSpec, name: str) -> SourceInput:
    """A frame as the one input of source `name`. Raises DataError where it has no columns."""
    rows = to_polars(frame, source=name)
    if not rows.width:
        raise DataError(f"source {name}: the frame has no columns", subject=name, hint="give a frame with rows")
    table = with_absent(with_nested_columns(FileTable(rows), spec, "frame"), spec)
    sha256 = frame_digest(rows)
    return SourceInput("frame", sha256, int(rows.estimated_size()), sha256, guessed=False, rows=lambda _: table)


def file_inputs(
    listing: FileListing, spec: SourceSpec, root: Path, files: Files, previous: Snapshot | None
) -> list[SourceInput]:
    """The source's files. One whose stamp is as last time is not opened."""
    seen: list[SourceFile | UnreadableFile] = [*previous.files, *previous.unreadable] if previous else []
    known = {(file.url, file.stamp): file.sha256 for file in seen}
    inputs = []
    for file in listed_files(listing, spec, root=root, files=files):
        rows: Callable[[Collection[str]], FileTable] = partial(_rows, file, spec)
        pieces: Callable[[Collection[str], Progress], Pieces | None] = partial(_pieces, file, spec)
        try:
            sha256 = known.get((file.url, file.info.stamp)) or _digest(file)
        except UnreadableFileError as error:
            sha256, rows, pieces = "", partial(_refuse, error), partial(_refuse, error)
        guessed = file_kind(file.url, spec) not in TYPED
        text_bytes = partial(file.text_bytes, spec)
        inputs.append(
            SourceInput(
                file.url, sha256, file.info.bytes, file.info.stamp, guessed, rows, file.partition, pieces, text_bytes
            )
        )
    return inputs


def _digest(file: ListedFile) -> str:
    with reading_file(), reading_errors(file.url):
        return file_digest(file.fetch())


def _refuse(error: UnreadableFileError, *_: object) -> NoReturn:
    raise error


def _rows(file: ListedFile, spec: SourceSpec, texts: Collection[str]) -> FileTable:
    with reading_file():
        return file.read(spec, texts=texts)


def _pieces(file: ListedFile, spec: SourceSpec, texts: Collection[str], progress: Progress) -> Pieces | None:
    with reading_file():
        pieces = file.pieces(spec, texts=texts, progress=progress)
    return None if pieces is None else pieces._replace(tables=partial(_tables, pieces))


def _tables(pieces: Pieces) -> Iterator[FileTable]:
    with reading_file():
        yield from pieces.tables()
