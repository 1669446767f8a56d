"""Large files of JSON lines in pieces: a first pass infers the types of all blocks, a second one reads them.

The types of fields are inferred behind a line of the types of all earlier blocks (`json_lines.joint_types`).
"""

from __future__ import annotations

from codecs import BOM_UTF8
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path

import polars as pl

from cumulant.core.errors import DataError, UsageError
from cumulant.core.progress import Progress
from cumulant.data.column_paths import paths_of
from cumulant.data.files.blocks import FINDING_TYPES, READING, read_blocks, report_progress
from cumulant.data.files.file_pieces import PieceError, Pieces
from cumulant.data.files.reading import reading_errors, refuse_expansion
from cumulant.data.formats.json_faults import NOT_JSON, RemainingLines, set_aside
from cumulant.data.formats.json_limits import UNORDERED, Fields, deep_lines, lines_of
from cumulant.data.formats.json_lines import build_table, is_array, is_cut, objects_of, read_lines, split_paths
from cumulant.data.formats.nested_paths import kinds_of, replace_roots, type_of
from cumulant.data.spec import SourceSpec
from cumulant.data.text.csv_text import FileTable

#: bytes of text of a piece; names of fields make JSON lines longer than those of CSV
_BYTES = 64 << 20
#: values at paths are Python objects here, so that pieces have so many times fewer rows
_OBJECTS = 4


def json_line_pieces(path: Path, url: str, spec: SourceSpec, *, rows: int, progress: Progress) -> Pieces | None:
    """The pieces, of about `rows` rows; None where only the whole file decides how it is read, or what is wrong."""

    def contents(text: str) -> Iterator[bytes]:
        size = 0
        step = max(1, rows // _OBJECTS) if spec.columns else rows
        with reading_errors(url):
            blocks = report_progress(
                read_blocks(path, rows=step, most=_BYTES, csv=False), path, f"{text} {url}", progress
            )
            for number, block in enumerate(blocks):
                size += len(block.content)
                refuse_expansion(path, url, size)
                yield block.content if number else block.content.removeprefix(BOM_UTF8)

    try:
        lines = _Lines(url, spec, paths_of(spec.columns))
        with reading_errors(url):
            if not lines.infer_types(contents(FINDING_TYPES)):
                return None
    except (DataError, UsageError):
        return None

    def tables() -> Iterator[FileTable]:
        first_row = first_line = 0
        for content, bad in zip(contents(READING), lines.faults, strict=True):
            remaining = set_aside(content, bad, first_row=first_row, first_line=first_line)
            try:
                with reading_errors(url):
                    table, count = lines.table(remaining, first_row)
            except DataError as error:
                raise PieceError from error
            yield table
            first_row += count + len(bad)
            first_line += content.count(b"\n")

    return Pieces(lines.schema, tables, frozenset(lines.schema), may_fail=True)


class _Lines:
    """The types of all lines of a file, and which of them are set aside."""

    def __init__(self, url: str, spec: SourceSpec, paths: Mapping[str, tuple[str, ...]]) -> None:
        self._url, self._paths = url, paths
        self._fields = Fields(url, spec.memory_bytes)
        #: of fields that no path leads through
        self._types = pl.Schema()
        self._kinds: dict[str, set[str]] = defaultdict(set)
        self._rows = self._refused = 0
        #: of each content, the lines that are set aside, by their numbers (from 0), with the rules that they break
        self.faults: list[dict[int, str]] = []

    @property
    def _leaves(self) -> dict[str, pl.DataType]:
        return {name: type_of(self._kinds[name]) for name in self._paths if name in self._kinds}

    @property
    def schema(self) -> pl.Schema:
        return pl.Schema([*self._types.items(), *self._leaves.items()])

    def infer_types(self, contents: Iterator[bytes]) -> bool:
        """Infer the types from the pieces; False where they need all lines at once.

        Raises:
            DataError: there are too many fields.
        """
        for number, content in enumerate(contents):
            if not number and is_array(content):
                return False
            bad = deep_lines(content)
            if not (self._add_paths if self._paths else self._add)(content, bad) or is_cut(content, bad):
                return False
            self.faults.append(bad)
        if len(self._types) > UNORDERED:
            self._types = pl.Schema({name: self._types[name] for name in self._fields.names})
        named = {"", *self._leaves}
        if self._paths and (not self._rows or self._refused == self._rows):
            return False
        return bool(self._types or self._leaves) and not named & self._types.keys()

    def _add(self, content: bytes, bad: dict[int, str]) -> bool:
        """Add the fields of these lines, and to `bad` those that are no objects; False where the types stay unknown."""
        remaining = set_aside(content, bad).content
        for before, lines in lines_of(remaining, self._url):
            schema, numbers = objects_of(lines, self._types)
            if schema is None:
                return False
            self._types = schema
            bad |= dict.fromkeys((before + place for place in numbers), NOT_JSON)
            self._fields.add(schema, lines)
        self._fields.refuse_missing(remaining)
        return True

    def _add_paths(self, content: bytes, bad: dict[int, str]) -> bool:
        """As `_add`, and the kinds of the values at the paths."""
        objects = split_paths(set_aside(content, bad).content, self._paths)
        bad |= objects.faults
        if objects.rest.strip(b"{}\n"):
            others: dict[int, str] = {}
            if not self._add(objects.rest, others):
                return False
            if others:
                bad |= others
                objects = split_paths(set_aside(content, bad).content, self._paths)
        for name, values in objects.leaves.values.items():
            if self._paths[name][0] in objects.roots:
                self._kinds[name] |= kinds_of(values)
        self._rows, self._refused = self._rows + objects.rows, self._refused + len(objects.leaves.refused)
        return True

    def table(self, remaining: RemainingLines, first_row: int) -> tuple[FileTable, int]:
        """The remaining lines as a table, and their number; they begin in this row of their file.

        Raises:
            polars.PolarsError: a value is not of its type.
        """
        if not self._paths:
            rows = self._read(remaining.content)
            return FileTable(rows, refused=remaining.refused), rows.height
        objects, types = split_paths(remaining.content, self._paths), self._leaves
        rows = self._read(objects.rest) if self._types else pl.DataFrame()
        table = replace_roots(rows, objects.roots, {}, objects.leaves.of(types), self._url, types=types)
        return build_table(*table, remaining, first_row), objects.rows

    def _read(self, lines: bytes) -> pl.DataFrame:
        return read_lines(lines, self._types) if lines.strip() else pl.DataFrame(schema=self._types)
