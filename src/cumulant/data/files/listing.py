"""The files of a source: which of them are read, and in what format."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from cumulant.core.errors import DataError, did_you_mean, join_names
from cumulant.data.spec import SourceSpec
from cumulant.ports.files import FileInfo, Files

#: names of text that is not compressed, and its format
TEXTS = {".csv": "csv", ".tsv": "csv", ".txt": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "jsonl"}
_COMPRESSIONS = (".gz", ".zst", ".bz2")
SUFFIXES = {
    ".parquet": "parquet",
    ".pq": "parquet",
    ".orc": "orc",
    ".xlsx": "excel",
    ".xlsm": "excel",
    **{f"{text}{packed}": kind for text, kind in TEXTS.items() for packed in ("", *_COMPRESSIONS)},
}
FORMATS = "parquet, orc, csv, jsonl or excel"
#: formats whose files declare the type of each column
TYPED = ("parquet", "orc")


class FileListing(NamedTuple):
    """The files of a source that are read, sorted by URL, and those in no known format (hidden ones left out)."""

    files: list[FileInfo]
    skipped: list[FileInfo]


def find_files(spec: SourceSpec, *, source: str, root: Path, files: Files) -> list[FileInfo]:
    """The files of a source that are read. Raises DataError as `list_files`."""
    return list_files(spec, source=source, root=root, files=files).files


def list_files(spec: SourceSpec, *, source: str, root: Path, files: Files) -> FileListing:
    """The files of a source; of a folder or glob, those in a known format.

    Raises:
        DataError: nothing is there, or nothing that can be read.
    """
    pattern = pattern_of(spec, source=source, root=root)
    matches = sorted(files.list(pattern), key=lambda file: file.url)
    skipped: list[FileInfo] = []
    if len(matches) > 1 and spec.format == "auto":
        visible = [file for file in matches if not file.url.rsplit("/", 1)[-1].startswith((".", "_"))]
        skipped = [file for file in visible if suffix(file.url) not in SUFFIXES]
        matches = [file for file in visible if suffix(file.url) in SUFFIXES]
    if skipped and not matches:
        raise DataError(
            f"source {source}: {spec.path} holds no file in a known format, but {names_of(skipped, root)}",
            subject=source,
            hint=f"write them as Parquet, ORC, CSV or JSON lines, or set format: {FORMATS} if they are",
        )
    if not matches:
        raise DataError(
            f"source {source}: no file matches {spec.path}",
            subject=source,
            hint=similar_name(Path(pattern)) or f"relative paths start at {root.name}/",
        )
    return FileListing(matches, skipped)


def pattern_of(spec: SourceSpec, *, source: str, root: Path) -> str:
    """The source's path as the port `files` takes it. Raises DataError where none is declared."""
    if not spec.path:
        raise DataError(f"source {source} declares no path", subject=source, hint="add path: a file, folder or glob")
    return spec.path if "://" in spec.path else str(root / Path(spec.path).expanduser())


def names_of(files: Sequence[FileInfo], root: Path) -> str:
    """The first names of files, and how many more there are."""
    return join_names([display_path(file.url, root) for file in files])


def similar_name(path: Path) -> str | None:
    """The file of nearly that name in the same folder; the suffix alone, which most files share, makes none alike."""
    try:
        names = [file.name for file in path.parent.iterdir() if file.is_file()]
    except OSError:
        return None
    return did_you_mean(path.name, [name for name in names if did_you_mean(_stem(path.name), [_stem(name)])])


def _stem(name: str) -> str:
    return name[: len(name) - len(suffix(name))]


def display_path(url: str, root: Path) -> str:
    """A file's URL as messages show it: relative to the project where it lies inside."""
    plain = url.removeprefix("file://")
    return str(Path(plain).relative_to(root)) if Path(plain).is_relative_to(root) else url


def suffix(url: str) -> str:
    name = url.rsplit("/", 1)[-1].lower()
    suffixes = re.findall(r"\.[a-z0-9]+", name)
    if len(suffixes) > 1 and suffixes[-1] in _COMPRESSIONS:
        return "".join(suffixes[-2:])
    return suffixes[-1] if suffixes else ""


def file_kind(url: str, spec: SourceSpec) -> str | None:
    """The format, as declared or by the file's name; None where it is unknown."""
    return SUFFIXES.get(suffix(url)) if spec.format == "auto" else spec.format
