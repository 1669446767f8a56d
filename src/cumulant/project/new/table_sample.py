"""The rows from which a new project is proposed: those of one file, or of some files of a folder or glob."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from cumulant.core.errors import DataError, join_names
from cumulant.ports.plugins import Drivers
from cumulant.project.sources import RoutedFiles

if TYPE_CHECKING:
    import polars as pl

    from cumulant.data.files.listed_file import ListedFile
    from cumulant.data.spec import SourceSpec
    from cumulant.data.text.csv_text import FileTable

#: characters of a pattern of files
_GLOB = frozenset("*?[")
#: of a folder or glob at most so many files are read, and beside the last one at most so many bytes
_MOST_FILES, _MOST_BYTES = 20, 256 << 20
#: a field is no column where this share of the rows has a list or an object there
_MOST_REFUSED = 0.005
_LISTED = 8


class TableSample(NamedTuple):
    """The rows, what had to be declared to read them, columns whose quotes say that digits are text, and notes.

    `whole`: every file was read.
    """

    rows: pl.DataFrame
    spec: SourceSpec
    quoted: frozenset[str]
    notes: list[str]
    whole: bool = True


def read_sample(file: str, drivers: Drivers, *, sheet: str | None = None) -> TableSample:
    """Rows of `file`, a path, folder, glob or URL.

    Raises:
        DataError: nothing is there, or a file cannot be read.
    """
    import polars as pl

    from cumulant.data.checks.file_checks import skipped_warnings
    from cumulant.data.files.listed_file import listed_files
    from cumulant.data.files.listing import list_files, similar_name
    from cumulant.data.formats.nested_paths import columns_of
    from cumulant.data.spec import SourceSpec

    here = Path.cwd()
    place = Path(file).expanduser()
    if "://" not in file and not _GLOB & set(file) and not place.exists():
        otherwise = "check the path" if place.is_absolute() else f"the path is relative to {here}"
        raise DataError(f"there is no file {file}", subject=file, hint=similar_name(here / place) or otherwise)
    files = RoutedFiles(here, lambda url: drivers.client(url, "files"))
    spec = SourceSpec(path=str(Path(file).expanduser()) if "://" not in file else file, sheet=sheet)
    listing = list_files(spec, source=Path(file).name or file, root=here, files=files)
    every = listed_files(listing, spec, root=here, files=files)
    chosen = spread(every)
    tables, spec = _tables(chosen, spec)
    notes = [f"warning: {warning}" for warning in skipped_warnings(listing, here)]
    try:
        rows = _joined(tables)
    except pl.exceptions.PolarsError:  # no type holds the values of a column in all of them
        notes.append("warning: the files differ in the types of their columns")
        chosen, tables, rows = chosen[-1:], tables[-1:], tables[-1].rows
    columns, left_out = columns_of(rows.schema)
    if columns:
        tables, spec, mixed = _with_fields(chosen, msgspec.structs.replace(spec, columns=columns))
        rows = _joined(tables)
        notes += fields_notes(spec.columns, left_out, mixed)
    quoted = frozenset.union(*(table.quoted for table in tables))
    sample_notes = [*_files_note(every, chosen), *notes, *_notes(tables, chosen, spec)]
    return TableSample(rows, spec, quoted, sample_notes, whole=len(chosen) == len(every))


def fields_notes(columns: Mapping[str, str], lists: Sequence[str], mixed: Sequence[str] = ()) -> list[str]:
    """What became of the fields of structs: columns, or not."""
    names = [f"{name} ({path})" for name, path in columns.items()]
    notes = [f"fields of structs are columns: {join_names(names, _LISTED)}"] if names else []
    if lists:
        notes.append(
            f"not used by the model: {join_names(lists, _LISTED)}: lists, of which `prepare` can take parts as new "
            "columns"
        )
    if mixed:
        notes.append(
            f"warning: not used by the model: {join_names(mixed, _LISTED)}: rows have lists or objects there beside "
            "values"
        )
    return notes


def _tables(files: Sequence[ListedFile], spec: SourceSpec) -> tuple[list[FileTable], SourceSpec]:
    """The files as they are, and how the last one is read."""
    from cumulant.data.files.unreadable_files import read_each

    def read(file: ListedFile) -> FileTable:
        nonlocal spec
        table, spec = file.read_any(spec)
        return table

    return read_each(files, read), spec


def _with_fields(files: Sequence[ListedFile], spec: SourceSpec) -> tuple[list[FileTable], SourceSpec, list[str]]:
    """The files with the fields of structs as columns, without those that would refuse too many rows: their paths."""
    from cumulant.data.row_columns import RULE

    every = spec.columns
    while True:
        tables, spec = _tables(files, spec)
        rows = sum(table.rows.height for table in tables)
        refused = Counter(rule for table in tables if table.refused is not None for rule in table.refused[RULE])
        mixed = {rule.rpartition(":")[0] for rule, count in refused.items() if count > _MOST_REFUSED * rows}
        if not mixed:
            return tables, spec, [path for name, path in every.items() if name not in spec.columns]
        columns = {name: path for name, path in spec.columns.items() if name not in mixed}
        spec = msgspec.structs.replace(spec, columns=columns)


def _joined(tables: Sequence[FileTable]) -> pl.DataFrame:
    import polars as pl

    return pl.concat([table.rows for table in tables], how="diagonal_relaxed")


def spread(files: Sequence[ListedFile]) -> list[ListedFile]:
    """The last file, and others evenly spaced among all, as many as the limits allow; in their order."""
    count = min(len(files), _MOST_FILES)
    places = {round(index * (len(files) - 1) / max(count - 1, 1)) for index in range(count)}
    chosen, total = [len(files) - 1], 0
    for place in sorted(places - {len(files) - 1}, reverse=True):
        total += files[place].info.bytes
        if total <= _MOST_BYTES:
            chosen.append(place)
    return [files[place] for place in sorted(chosen)]


def _files_note(files: Sequence[ListedFile], chosen: Sequence[ListedFile]) -> list[str]:
    if len(files) == 1:
        return []
    if len(chosen) == 1:
        return [f"of {len(files):,} files the last one was read: {chosen[0].url}"]
    count = "all" if len(chosen) == len(files) else f"{len(chosen)}"
    return [f"of {len(files):,} files {count} were read, from {chosen[0].url} to {chosen[-1].url}"]


def _notes(tables: Sequence[FileTable], chosen: Sequence[ListedFile], spec: SourceSpec) -> list[str]:
    from cumulant.data.files.reading import describe_malformed
    from cumulant.data.row_columns import RULE

    notes = []
    if spec.separator != ",":
        notes.append(f"fields are separated by {json.dumps(spec.separator)}")
    if spec.encoding != "utf-8":
        notes.append(f"the text is not UTF-8 and is read as {spec.encoding}")
    for table, file in zip(tables, chosen, strict=True):
        notes += [f"warning: {file.url}: {note}" for note in table.notes]
        if table.malformed is not None:
            place = f"{file.url}: " if len(chosen) > 1 else ""
            notes.append(f"warning: {place}{describe_malformed(table)} and will go to quarantine")
    refused = sum((Counter(table.refused[RULE]) for table in tables if table.refused is not None), Counter[str]())
    if refused:
        rules = join_names([f"{rule} ({count:,})" for rule, count in refused.most_common()], _LISTED)
        rows = "1 row goes" if refused.total() == 1 else f"{refused.total():,} rows go"
        notes.append(f"warning: {rows} to quarantine, by the rules {rules}")
    return notes
