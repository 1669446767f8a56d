"""The files whose rows are answered, each read in pieces."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from cumulant import data
from cumulant.core.progress import Progress
from cumulant.runtime.batch.models import Model, files

if TYPE_CHECKING:
    from cumulant.data import ListedFile, Stream


class Input(NamedTuple):
    """One file."""

    file: ListedFile
    path: Path
    #: share of all bytes before this file, and of this file
    before: float
    share: float


def list_inputs(model: Model, source: str, progress: Progress) -> list[Input]:
    """The files that `source` names: a file, folder, glob or URL. What is skipped there is a warning.

    Raises:
        DataError: nothing is there.
    """
    spec = msgspec.structs.replace(model.reading, path=source)
    place = files()
    listing = data.list_files(spec, source=Path(source).name, root=Path.cwd(), files=place)
    for warning in data.skipped_warnings(listing, Path.cwd()):
        progress(f"warning: {warning}")
    total, before = sum(info.bytes for info in listing.files) or 1, 0
    found: list[Input] = []
    for file in data.listed_files(listing, spec, root=Path.cwd(), files=place):
        found.append(Input(file, file.fetch(), before / total, file.info.bytes / total))
        before += file.info.bytes
    return found


def open_stream(model: Model, one: Input, rows: int) -> Stream:
    """What reads a file in pieces of `rows` rows."""
    return data.Stream(one.path, one.file.info.url, model.reading, rows=rows, partition=one.file.partition)
