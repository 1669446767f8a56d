"""Large files in pieces of rows, all under the types that the file has as a whole.

Parquet and ORC declare the types; those of CSV and JSON lines are inferred in a first pass over the blocks.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path

import polars as pl

from cumulant.core.errors import DataError
from cumulant.core.progress import Progress, silent
from cumulant.data.column_paths import paths_of
from cumulant.data.files.blocks import FINDING_TYPES, READING, open_unpacked, read_blocks, report_progress
from cumulant.data.files.file_pieces import Pieces
from cumulant.data.files.large_json_lines import json_line_pieces
from cumulant.data.files.listing import TEXTS, file_kind, suffix
from cumulant.data.files.reading import EXPANSION, reading_errors, refuse_expansion, separator_of, with_nested_columns
from cumulant.data.files.streaming import ParquetFile
from cumulant.data.formats.arrow_errors import arrow_errors
from cumulant.data.formats.orc_file import OrcFile, frame_of
from cumulant.data.formats.parquet_footer import utf8_errors
from cumulant.data.formats.parquet_memory import allowed_memory, refuse_above, refuse_large
from cumulant.data.row_columns import ROW
from cumulant.data.spec import SourceSpec
from cumulant.data.text.csv_records import LINE
from cumulant.data.text.csv_text import FileTable, read_csv

#: rows, and bytes of text, that a file has at least; smaller ones are read whole
LARGE_ROWS, LARGE_TEXT = 1_000_000, 64 << 20
#: of a Parquet file that may have so many rows; how much more text a compressed file is taken to hold
_LARGE_BYTES, PACKED = 1 << 20, 8
#: rows, and bytes of text, of a piece
_ROWS, _BYTES = 262_144, 32 << 20
#: encodings in which a line end is one byte that nothing else has
_LINES = ("utf8", "ascii", "latin1", "iso88591", "iso885915", "cp1252", "windows1252")
_HEAD = 1 << 16


def pieces_of(
    path: Path, url: str, spec: SourceSpec, texts: Collection[str], progress: Progress = silent
) -> Pieces | None:
    """The pieces of a large file; None where it is small, or its types need the whole file.

    `progress` is reported each time that the file is read.

    Raises:
        DataError: a Parquet or ORC file is damaged, or takes more memory than it may.
    """
    kind, size = file_kind(url, spec), path.stat().st_size
    if kind in _READERS and size >= _LARGE_BYTES:
        pieces = _READERS[kind](path, url, spec, progress)
        return pieces if pieces is None or not spec.columns else _with_paths(pieces, spec, url)
    if size * (1 if suffix(url) in TEXTS else PACKED) >= LARGE_TEXT:
        if kind == "csv" and not spec.columns:
            return _csv(path, url, spec, frozenset(texts), progress)
        if kind == "jsonl":
            return json_line_pieces(path, url, spec, rows=_ROWS, progress=progress)
    return None


def _parquet(path: Path, url: str, spec: SourceSpec, progress: Progress) -> Pieces | None:
    with reading_errors(url):
        with arrow_errors(f"{url} is not a whole Parquet file: damaged or cut off", url):
            # What is read in pieces may be larger than the memory, but not out of all proportion to its bytes.
            refuse_large(path, url, spec.memory_bytes, least=EXPANSION * path.stat().st_size)
        file = ParquetFile(path, url)
        if file.rows < LARGE_ROWS:
            return None
        with utf8_errors(url):
            schema = pl.Schema(pl.read_parquet_schema(path))
    if "" in schema:  # which gets a name where the whole is read
        return None
    try:
        pl.DataFrame(schema=schema)
    except pl.exceptions.PolarsError:  # a type that no frame holds; reading the whole file reports it
        return None

    def tables() -> Iterator[FileTable]:
        done = 0
        with reading_errors(url):
            for piece in file.pieces(_ROWS, None, skip=0):
                yield FileTable(piece.rows if piece.rows.schema == schema else piece.rows.cast(schema))
                done += piece.rows.height
                progress(f"{READING} {url}, {done:,} of {file.rows:,} rows", done / file.rows)

    return Pieces(schema, tables)


def _orc(path: Path, url: str, spec: SourceSpec, progress: Progress) -> Pieces | None:
    with reading_errors(url):
        file = OrcFile(path, url)
        if file.rows < LARGE_ROWS or "" in file.schema.names:  # as of Parquet
            return None
        schema = frame_of(file.schema.empty_table()).schema
        most = allowed_memory(spec.memory_bytes, EXPANSION * path.stat().st_size)

    def tables() -> Iterator[FileTable]:
        needed = done = 0
        with reading_errors(url):
            for piece in file.pieces(rows=_ROWS, most=_BYTES):
                needed += piece.nbytes
                refuse_above(needed, most, url)
                rows = frame_of(piece)
                yield FileTable(rows if rows.schema == schema else rows.cast(schema))
                done += piece.num_rows
                progress(f"{READING} {url}, {done:,} of {file.rows:,} rows", done / file.rows)

    return Pieces(schema, tables)


_READERS = {"parquet": _parquet, "orc": _orc}


def _with_paths(pieces: Pieces, spec: SourceSpec, url: str) -> Pieces | None:
    """The pieces with declared columns in place of their structs; None where that needs the whole file."""
    if any(pieces.schema.get(path[0]) == pl.String() for path in paths_of(spec.columns).values()):
        return None

    def taken(table: FileTable) -> FileTable:
        return with_nested_columns(table, spec, url)

    try:
        schema = taken(FileTable(pl.DataFrame(schema=pieces.schema))).rows.schema
    except DataError:
        return None  # reading the whole file reports it
    tables = pieces.tables
    return pieces._replace(schema=schema, tables=lambda: map(taken, tables()))


def _csv(path: Path, url: str, spec: SourceSpec, texts: frozenset[str], progress: Progress) -> Pieces | None:
    with reading_errors(url), path.open("rb") as raw, open_unpacked(raw) as stream:
        head = stream.read(_HEAD)
    encoding = spec.encoding.lower().replace("-", "").replace("_", "")
    if encoding not in _LINES or b"\n" not in head or head.startswith((b"\xff\xfe", b"\xfe\xff")):
        return None
    if head.removeprefix(b"\xef\xbb\xbf").startswith((b"\n", b"\r")):  # a block's header would be the blank line
        return None
    try:
        first, schema = _joint_types(_blocks(path, url, spec, texts, progress=progress))
    except DataError:
        return None  # reading the whole raises the error, if there is one
    if len(schema) == 1:  # of which a blank line is a row
        return None
    # Quotes mark an identifier only where another column of the file has numbers without.
    if b'"' in head and any(first[name].is_numeric() != dtype.is_numeric() for name, dtype in schema.items()):
        return None
    as_text = texts | {name for name, dtype in schema.items() if dtype == pl.String}

    def tables() -> Iterator[FileTable]:
        for table in _blocks(path, url, spec, as_text, progress=progress, types=schema):
            yield table._replace(rows=table.rows.cast(schema))

    return Pieces(schema, tables, frozenset(schema))


def _blocks(
    path: Path,
    url: str,
    spec: SourceSpec,
    texts: frozenset[str],
    *,
    progress: Progress,
    types: pl.Schema | None = None,
) -> Iterator[FileTable]:
    """The blocks of a CSV file, each under its own types where `types`, those of all blocks, are not known yet."""
    rows = lines = size = 0
    text = f"{FINDING_TYPES if types is None else READING} {url}"
    with reading_errors(url):
        blocks = report_progress(read_blocks(path, rows=_ROWS, most=_BYTES, csv=True), path, text, progress)
        for number, block in enumerate(blocks):
            table = read_csv(
                block.content, url, spec, texts, separator=separator_of(url, spec), begin=not number, types=types
            )
            texts |= table.quoted
            size += len(block.content)
            refuse_expansion(path, url, size)
            height = table.rows.height
            if table.malformed is not None:
                height += table.malformed.height
                table = table._replace(malformed=table.malformed.with_columns(pl.col(ROW) + rows, pl.col(LINE) + lines))
            yield table
            rows += height
            lines += block.content.count(b"\n", block.header)


def _joint_types(tables: Iterator[FileTable]) -> tuple[pl.Schema, pl.Schema]:
    """The types of the first block, and of each column in all blocks: of numbers the wider one, else text."""
    dtypes: dict[str, pl.DataType] = {}
    first = pl.Schema()
    for table in tables:
        first = first or table.rows.schema
        for column in table.rows:
            if column.null_count() < column.len() or column.name in table.quoted:
                before = dtypes.setdefault(column.name, column.dtype)
                dtypes[column.name] = _wider_type(before, column.dtype)
    return first, pl.Schema({name: dtypes.get(name, pl.String()) for name in first})


def _wider_type(dtype: pl.DataType, other: pl.DataType) -> pl.DataType:
    if dtype == other:
        return dtype
    if not (dtype.is_numeric() and other.is_numeric()):
        return pl.String()
    if dtype.is_float() or other.is_float():
        return pl.Float64()
    return pl.Int128()
