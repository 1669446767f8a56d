"""The files of a source: which of them are read, and in what format."""

from __future__ import annotations

import re
from pathlib import Path

from cumulant.core.errors import DataError, did_you_mean
from cumulant.data.spec import SourceSpec
from cumulant.ports.files import FileInfo, Files

SUFFIXES = {
    ".parquet": "parquet", ".pq": "parquet",
    ".csv": "csv", ".csv.gz": "csv", ".tsv": "csv", ".tsv.gz": "csv", ".txt": "csv", ".txt.gz": "csv",
    ".jsonl": "jsonl", ".jsonl.gz": "jsonl", ".ndjson": "jsonl", ".ndjson.gz": "jsonl",
    ".json": "jsonl", ".json.gz": "jsonl",
}  # fmt: skip


def find(spec: SourceSpec, *, source: str, root: Path, files: Files) -> list[FileInfo]:
    """The files of a source, sorted by URL. Of a folder, those in a known format.

    Raises:
        DataError: nothing is there.
    """
    if not spec.path:
        raise DataError(f"source {source} declares no path", subject=source, hint="add path: a file, folder or glob")
    pattern = spec.path if "://" in spec.path or Path(spec.path).is_absolute() else str(root / spec.path)
    found = sorted(files.list(pattern), key=lambda file: file.url)
    if len(found) > 1 and spec.format == "auto":
        found = [file for file in found if suffix(file.url) in SUFFIXES and not _hidden(file.url)]
    if not found:
        raise DataError(
            f"source {source}: no file matches {spec.path}",
            subject=source,
            hint=_neighbour(Path(pattern)) or f"relative paths start at {root.name}/",
        )
    return found


def _neighbour(path: Path) -> str | None:
    """The file of nearly that name in the same folder."""
    try:
        return did_you_mean(path.name, [one.name for one in path.parent.iterdir() if one.is_file()])
    except OSError:
        return None


def shown(url: str, root: Path) -> str:
    """A file's URL as people know it: relative to the project where it lies inside."""
    plain = url.removeprefix("file://")
    return str(Path(plain).relative_to(root)) if Path(plain).is_relative_to(root) else url


def suffix(url: str) -> str:
    name = url.rsplit("/", 1)[-1].lower()
    suffixes = re.findall(r"\.[a-z0-9]+", name)
    if suffixes and suffixes[-1] == ".gz" and len(suffixes) > 1:
        return "".join(suffixes[-2:])
    return suffixes[-1] if suffixes else ""


def _hidden(url: str) -> bool:
    return url.rsplit("/", 1)[-1].startswith((".", "_"))


def file_kind(url: str, spec: SourceSpec) -> str | None:
    """`parquet`, `csv` or `jsonl`, as declared or as the file's name says; None where neither does."""
    return SUFFIXES.get(suffix(url)) if spec.format == "auto" else spec.format
