"""What a source is made of: its files, or a frame that was handed over, each with its content's hash and its rows."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from cumulant.core.errors import DataError
from cumulant.core.ids import file_digest
from cumulant.data.csv_text import Table
from cumulant.data.large_files import Pieces
from cumulant.data.listed_file import ListedFile, listed_files
from cumulant.data.listing import TYPED, Listing, file_kind
from cumulant.data.partitions import Partition
from cumulant.data.snapshot import Snapshot, content_digest
from cumulant.data.sources import frame_digest, nested, with_absent
from cumulant.data.spec import SourceSpec
from cumulant.data.user_frames import to_polars
from cumulant.ports.files import Files


@dataclass(frozen=True)
class Input:
    """One file (or the frame handed over): its name, content hash, and how to get its rows."""

    url: str
    sha256: str
    bytes: int
    stamp: str
    guessed: bool
    rows: Callable[[Collection[str]], Table]
    partition: Partition = ()
    #: the rows of a large file in pieces; None of one that is read whole
    pieces: Callable[[Collection[str]], Pieces | None] = lambda _: None

    @property
    def content(self) -> str:
        return content_digest(self.sha256, self.partition)


def of_frame(frame: object, spec: SourceSpec, name: str) -> Input:
    """A frame as the one input of source `name`. Raises DataError where it has no columns."""
    rows = to_polars(frame, source=name)
    if not rows.width:
        raise DataError(f"source {name}: the frame has no columns", subject=name, hint="give a frame with rows")
    table = with_absent(nested(Table(rows), spec, "frame"), spec)
    sha256 = frame_digest(rows)
    return Input("frame", sha256, int(rows.estimated_size()), sha256, guessed=False, rows=lambda _: table)


def of_files(listing: Listing, spec: SourceSpec, root: Path, files: Files, previous: Snapshot | None) -> list[Input]:
    """The source's files. One whose stamp is as last time is not opened."""
    known = {(file.url, file.stamp): file for file in previous.files} if previous else {}
    inputs = []
    for file in listed_files(listing, spec, root=root, files=files):
        seen = known.get((file.url, file.info.stamp))
        sha256 = seen.sha256 if seen is not None else file_digest(file.fetch())
        guessed = file_kind(file.url, spec) not in TYPED
        rows, pieces = partial(_rows, file, spec), partial(_pieces, file, spec)
        inputs.append(Input(file.url, sha256, file.info.bytes, file.info.stamp, guessed, rows, file.partition, pieces))
    return inputs


def _rows(file: ListedFile, spec: SourceSpec, texts: Collection[str]) -> Table:
    return file.read(spec, texts=texts)


def _pieces(file: ListedFile, spec: SourceSpec, texts: Collection[str]) -> Pieces | None:
    return file.pieces(spec, texts=texts)
