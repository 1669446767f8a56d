"""Reading a source's files through the port `files`, or a frame. Faults of a file are a DataError that names it."""

from __future__ import annotations

import csv
import gzip
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import polars as pl

from cumulant.core.errors import DataError
from cumulant.data.files.blocks import open_unpacked
from cumulant.data.files.listing import FORMATS, file_kind, suffix
from cumulant.data.formats.arrow_errors import arrow_errors
from cumulant.data.formats.excel import read_excel
from cumulant.data.formats.json_faults import NOT_JSON
from cumulant.data.formats.json_limits import DEPTH, MOST_LEVELS
from cumulant.data.formats.json_lines import read_jsonl
from cumulant.data.formats.nested_paths import with_nested
from cumulant.data.formats.orc_file import read_orc
from cumulant.data.formats.parquet_footer import utf8_errors
from cumulant.data.formats.parquet_memory import refuse_large
from cumulant.data.row_columns import ROW, RULE
from cumulant.data.spec import SourceSpec
from cumulant.data.text.csv_records import LINE
from cumulant.data.text.csv_text import DialectError, FileTable, read_csv

_COMPRESSIONS = {"zst": "Zstandard", "bz2": "bzip2"}
#: a compressed text may be this many times as long as its file; below `_SMALL` bytes any number of times. A line counts
#: as so many bytes more, which its row takes at least
EXPANSION, _SMALL, _LINE = 200, 256 << 20, 60
_BLOCK = 4 << 20


def read(path: Path, url: str, spec: SourceSpec, *, texts: Collection[str] = ()) -> pl.DataFrame:
    """One file. `url` names it in errors; CSV columns in `texts` are not numbers.

    Raises:
        DataError: as `read_table`, and where a row of a CSV file has other fields than its header.
    """
    table = read_table(path, url, spec, texts=texts)
    refuse_malformed(table, url)
    return table.rows


def refuse_malformed(table: FileTable, url: str) -> None:
    """Raise DataError where a row has other fields than the header, or no plain value at a declared path."""
    if table.refused is not None:
        raise DataError(
            f"{url}: {describe_refused(table)}",
            subject=url,
            hint="fix the rows; see the page on file formats for what each format can hold",
        )
    if table.malformed is None:
        return
    raise DataError(
        f"{url}: {describe_malformed(table)}",
        subject=url,
        hint="write the file again: a missing value is an empty field, and a field with the separator is in quotes",
    )


def describe_malformed(table: FileTable) -> str:
    """How many rows are malformed, and where the first begins; lines are counted from 1, with the header."""
    if table.malformed is None:
        return "every row has the fields of its header"
    count, line = table.malformed.height, table.malformed.item(0, LINE)
    rows = "1 row has" if count == 1 else f"{count:,} rows have"
    return f"{rows} fewer or more fields than the header ({'' if count == 1 else 'the first is '}line {line:,})"


def with_absent(table: FileTable, spec: SourceSpec) -> FileTable:
    """`table` with a column of nulls for each declared path that it does not have."""
    absent = [name for name in spec.columns if name not in table.rows.columns]
    return table._replace(rows=table.rows.with_columns(pl.lit(None).alias(name) for name in absent))


def describe_refused(table: FileTable) -> str:
    """The number of malformed rows, and the place of the first."""
    if table.refused is None:
        return "every row can be read"
    count, first = table.refused.height, table.refused.row(0, named=True)
    if first[RULE] == DEPTH:
        rows = "1 row is" if count == 1 else f"{count:,} rows are"
        return f"{rows} nested more than {MOST_LEVELS} levels deep (line {first[LINE]:,})"
    if first[RULE] == NOT_JSON:
        return f"{'1 row is' if count == 1 else f'{count:,} rows are'} no JSON object (line {first[LINE]:,})"
    column = str(first[RULE]).rpartition(":")[0]
    rows = "1 row has" if count == 1 else f"{count:,} rows have"
    what = "an error or a formula without a value" if str(first[RULE]).endswith(":cell") else "a list or an object"
    return f"{rows} {what} in place of a value ({column} in row {first[ROW] + 1:,})"


def read_table(path: Path, url: str, spec: SourceSpec, *, texts: Collection[str] = ()) -> FileTable:
    """One file, with its malformed rows apart.

    Raises:
        DataError: it is empty, cut off, damaged, not UTF-8, or in another format than its name has.
    """
    kind = file_kind(url, spec)
    with reading_errors(url):
        if path.stat().st_size == 0:
            raise DataError(f"{url} is empty (0 bytes)", subject=url, hint="write it again, or remove it")
        if kind == "parquet":
            with arrow_errors(f"{url} is not a whole Parquet file: damaged or cut off", url):
                refuse_large(path, url, spec.memory_bytes)
            with utf8_errors(url):
                table = FileTable(pl.read_parquet(path, glob=False))
        elif kind == "orc":
            table = FileTable(read_orc(path, url, spec.memory_bytes))
        elif kind == "excel":
            table = read_excel(path, url, spec)
        elif kind == "csv":
            table = _csv_table(_content(path, url), url, spec, texts)
        elif kind == "jsonl":
            table = read_jsonl(_content(path, url), url, spec.columns, spec.memory_bytes)
        else:
            raise DataError(
                f"{url}: its name does not show its format",
                subject=url,
                hint=f"save it as CSV or Parquet, or set format: {FORMATS} in the source's declaration",
            )
    if not table.rows.width:
        raise DataError(f"{url} has no columns", subject=url, hint="write it again, or remove it")
    return table if kind == "jsonl" else with_nested_columns(table, spec, url)


def with_nested_columns(table: FileTable, spec: SourceSpec, url: str) -> FileTable:
    """`table` with the declared columns in place of structs and JSON texts. Raises DataError as `with_nested`."""
    if not spec.columns:
        return table
    rows, refused = with_nested(table.rows, spec.columns, url)
    frames = [frame for frame in (table.refused, refused) if frame is not None]
    return table._replace(rows=rows, refused=pl.concat(frames, how="diagonal_relaxed") if frames else None)


def read_any(path: Path, url: str, spec: SourceSpec) -> tuple[FileTable, SourceSpec]:
    """One file, and `spec` with its own separator and encoding.

    Raises:
        DataError: as `read_table`, where no other separator or encoding helps.
    """
    try:
        return read_table(path, url, spec), spec
    except DialectError as error:
        fitting = msgspec.structs.replace(spec, **error.declare)
        if fitting == spec:
            raise
    return read_any(path, url, fitting)


def text_table(content: bytes, url: str, spec: SourceSpec) -> pl.DataFrame:
    """The rows of a CSV or JSON lines text, as `read` gives those of a file. Raises DataError as `read`."""
    with reading_errors(url):
        if file_kind(url, spec) == "jsonl":
            table = read_jsonl(content, url, spec.columns, spec.memory_bytes)
        else:
            table = with_nested_columns(_csv_table(content, url, spec, ()), spec, url)
    refuse_malformed(table, url)
    return table.rows


@contextmanager
def reading_errors(url: str) -> Iterator[None]:
    """Engine and system errors while reading, as DataErrors with what to do."""
    try:
        yield
    except (EOFError, gzip.BadGzipFile) as error:
        raise _broken_compression(url) from error
    except csv.Error as error:
        raise DataError(f"{url} is not CSV", subject=url, hint="write it again, or set its `format`") from error
    except (UnicodeError, LookupError) as error:
        raise DataError(
            f"{url} is not text in the declared encoding", subject=url, hint="set encoding: latin-1 (or its own)"
        ) from error
    except OSError as error:
        if error.errno is None:  # of what unpacks, not of the system
            raise _broken_compression(url) from error
        reason = error.strerror or "it cannot be read"
        raise DataError(f"{url}: {reason}", subject=url, hint="check the path and its permissions") from error
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
        raise _engine_error(url, str(error)) from error


def _broken_compression(url: str) -> DataError:
    kind = _COMPRESSIONS.get(suffix(url).rpartition(".")[2], "gzip")
    return DataError(f"{url} is damaged or cut off ({kind})", subject=url, hint="copy or write it again")


def _engine_error(url: str, text: str) -> DataError:
    """What an engine's message means. Its own text is not repeated, for it may quote values."""
    if "utf-8" in text:
        return DialectError(
            f"{url} is not UTF-8 text",
            subject=url,
            hint="set encoding: latin-1 (or its own), or convert the file to UTF-8",
            declare={"encoding": "latin-1"},  # which reads every byte
        )
    for sign, problem, hint in (
        ("more fields", "has a row with more fields than its header", "quote fields that hold the separator"),
        ("parquet", "is not a whole Parquet file: damaged or cut off", "copy or write it again"),
        ("empty CSV", "holds no table", "write it again, or remove it"),
        ("could not parse", "has a quoted field that does not end, or fields of changing type", "fix the quotes"),
        ("Syntax", "has a line that is not JSON: damaged or cut off", "each line must be one JSON object"),
        ("supertype", "holds values of different types in one field", "write each field with one type"),
        ("Tape", "has a line that is not JSON: damaged or cut off", "each line must be one JSON object"),
        ("cannot parse", "holds values of different types in one field", "write each field with one type"),
    ):
        if sign in text:
            return DataError(f"{url} {problem}", subject=url, hint=hint)
    return DataError(f"{url} cannot be read: damaged, or not in its format", subject=url, hint="write it again")


def _content(path: Path, url: str) -> bytes:
    with path.open("rb") as raw, open_unpacked(raw) as stream:
        if stream is raw:
            return raw.read()
        content, lines = bytearray(), 0
        while block := stream.read(_BLOCK):
            content += block
            lines += block.count(b"\n")
            refuse_expansion(path, url, len(content) + _LINE * lines)
    return bytes(content)


def refuse_expansion(path: Path, url: str, size: int) -> None:
    """Raises DataError where a file's text is longer than its bytes let expect."""
    if size > max(_SMALL, EXPANSION * path.stat().st_size):
        raise DataError(
            f"{url} expands to more than {EXPANSION} times its size",
            subject=url,
            hint="if its content is right, unpack it and give the unpacked file",
        )


def _csv_table(content: bytes, url: str, spec: SourceSpec, texts: Collection[str]) -> FileTable:
    return read_csv(content, url, spec, texts, separator=separator_of(url, spec))


def separator_of(url: str, spec: SourceSpec) -> str:
    return "\t" if suffix(url).startswith(".tsv") else spec.separator
