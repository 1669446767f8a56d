"""Reading a source: its files through the port `files`, or a frame that was handed over.

Whatever is wrong with a file is a DataError that names it; no engine's own error leaves this module.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import json
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import msgspec
import polars as pl

from cumulant.core.errors import DataError, did_you_mean
from cumulant.data.blocks import opened, record_count
from cumulant.data.parquet_footer import utf8
from cumulant.data.parquet_memory import no_memory, refuse_large
from cumulant.data.records import POSITION as ROW
from cumulant.data.records import open_quote, short_records
from cumulant.data.spec import SourceSpec
from cumulant.ports.files import FileInfo, Files

_SUFFIXES = {
    ".parquet": "parquet", ".pq": "parquet",
    ".csv": "csv", ".csv.gz": "csv", ".tsv": "csv", ".tsv.gz": "csv", ".txt": "csv", ".txt.gz": "csv",
    ".jsonl": "jsonl", ".jsonl.gz": "jsonl", ".ndjson": "jsonl", ".ndjson.gz": "jsonl",
    ".json": "jsonl", ".json.gz": "jsonl",
}  # fmt: skip
_TAIL = 1 << 16
#: byte order marks of UTF-16, which no other text begins with
_WIDE_MARKS = (b"\xff\xfe", b"\xfe\xff")
_SEPARATORS = (";", "\t", "|", ",")
#: a text in gzip may be this many times as long as its file; below `_SMALL` bytes any number of times
_EXPANSION, _SMALL = 200, 256 << 20
_BLOCK = 4 << 20
#: fields that a table of text may have whatever its length, and for each byte: a whole row has one for each separator
_CELLS, _CELLS_PER_BYTE = 20_000_000, 2


class DialectError(DataError):
    """A CSV file that is written otherwise than declared; `declare` are the attributes of a SourceSpec that fit."""

    def __init__(self, message: str, *, subject: str, hint: str, declare: Mapping[str, str]) -> None:
        super().__init__(message, subject=subject, hint=hint)
        self.declare = dict(declare)


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
        found = [file for file in found if _suffix(file.url) in _SUFFIXES and not _hidden(file.url)]
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


def _suffix(url: str) -> str:
    name = url.rsplit("/", 1)[-1].lower()
    suffixes = re.findall(r"\.[a-z0-9]+", name)
    if suffixes and suffixes[-1] == ".gz" and len(suffixes) > 1:
        return "".join(suffixes[-2:])
    return suffixes[-1] if suffixes else ""


def _hidden(url: str) -> bool:
    return url.rsplit("/", 1)[-1].startswith((".", "_"))


class Table(NamedTuple):
    """The rows of a file. `short` are CSV rows with fewer fields than the header, as text, with `__row`."""

    rows: pl.DataFrame
    short: pl.DataFrame | None = None


def read(path: Path, url: str, spec: SourceSpec, *, texts: Collection[str] = ()) -> pl.DataFrame:
    """One file as it is. `url` names it in errors; CSV columns in `texts` are not taken for numbers.

    Raises:
        DataError: as `read_table`, and where a row of a CSV file has fewer fields than its header.
    """
    table = read_table(path, url, spec, texts=texts)
    refuse_short(table, url)
    return table.rows


def refuse_short(table: Table, url: str) -> None:
    """Raises DataError where a row has fewer fields than the header: nothing says which of them are missing."""
    if table.short is None:
        return
    raise DataError(
        f"{url}: {said_of_short(table)}",
        subject=url,
        hint="write the file again: a missing value is an empty field, between two separators",
    )


def said_of_short(table: Table) -> str:
    """How many rows are short, and where the first stands; rows are counted from 1, without the header."""
    if table.short is None:
        return "every row has all its fields"
    count, first = table.short.height, table.short.item(0, ROW) + 1
    said = "1 row has" if count == 1 else f"{count:,} rows have"
    return f"{said} fewer fields than the header ({'' if count == 1 else 'the first is '}row {first:,})"


def read_table(path: Path, url: str, spec: SourceSpec, *, texts: Collection[str] = ()) -> Table:
    """One file as it is, with the rows apart that have too few fields.

    Raises:
        DataError: it is empty, cut off, damaged, not UTF-8, or in another format than it says.
    """
    short = None
    kind = file_kind(url, spec)
    with readable(url):
        if path.stat().st_size == 0:
            raise DataError(f"{url} is empty (0 bytes)", subject=url, hint="write it again, or remove it")
        if kind == "parquet":
            with whole_parquet(f"{url} is not a whole Parquet file: damaged or cut off", url):
                refuse_large(path, url, spec.memory)
            with utf8(url):
                frame = pl.read_parquet(path, glob=False)
        elif kind == "csv":
            frame, short = _read_csv(_content(path, url), url, spec, texts)
        elif kind == "jsonl":
            frame = _read_jsonl(_content(path, url), url)
        else:
            raise DataError(
                f"{url}: cannot tell its format from its name",
                subject=url,
                hint="save it as CSV or Parquet, or set format: parquet, csv or jsonl in the source's declaration",
            )
    if not frame.width:
        raise DataError(f"{url} has no columns", subject=url, hint="write it again, or remove it")
    return Table(frame, short)


def read_any(path: Path, url: str, spec: SourceSpec) -> tuple[Table, SourceSpec]:
    """One file as it is, and `spec` with the separator and encoding that turned out to be its own.

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
    with readable(url):
        if file_kind(url, spec) == "jsonl":
            return _read_jsonl(content, url)
        table = _read_csv(content, url, spec, ())
    refuse_short(table, url)
    return table.rows


def file_kind(url: str, spec: SourceSpec) -> str | None:
    """`parquet`, `csv` or `jsonl`, as declared or as the file's name says; None where neither does."""
    return _SUFFIXES.get(_suffix(url)) if spec.format == "auto" else spec.format


@contextmanager
def readable(url: str) -> Iterator[None]:
    """Engine and system errors while reading, as DataErrors with what to do."""
    try:
        yield
    except (EOFError, gzip.BadGzipFile) as error:
        raise DataError(f"{url} is damaged or cut off (gzip)", subject=url, hint="copy or write it again") from error
    except csv.Error as error:
        raise DataError(f"{url} is not CSV", subject=url, hint="write it again, or set its `format`") from error
    except (UnicodeError, LookupError) as error:
        raise DataError(
            f"{url} is not text in the declared encoding", subject=url, hint="set encoding: latin-1 (or its own)"
        ) from error
    except OSError as error:
        reason = error.strerror or "it cannot be read"
        raise DataError(f"{url}: {reason}", subject=url, hint="check the path and its permissions") from error
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
        raise _damage(url, str(error)) from error


@contextmanager
def whole_parquet(said: str, url: str) -> Iterator[None]:
    """What pyarrow raises for bytes that it cannot read, as a DataError that says `said`."""
    import pyarrow as pa

    try:
        yield
    except pa.ArrowMemoryError as error:
        raise no_memory(url) from error
    except (pa.ArrowException, OSError) as error:
        raise DataError(said, subject=url, hint="copy or write it again") from error


def _damage(url: str, text: str) -> DataError:
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
        ("could not parse", "has a quoted field that does not end, or fields of changing type", "mend the quotes"),
        ("Syntax", "has a line that is not JSON: damaged or cut off", "each line must be one JSON object"),
        ("Tape", "has a line that is not JSON: damaged or cut off", "each line must be one JSON object"),
        ("cannot parse", "holds values of different types in one field", "write each field with one type"),
    ):
        if sign in text:
            return DataError(f"{url} {problem}", subject=url, hint=hint)
    return DataError(f"{url} cannot be read: damaged, or not in its format", subject=url, hint="write it again")


def _content(path: Path, url: str) -> bytes:
    with path.open("rb") as raw, opened(raw) as stream:
        if stream is raw:
            return raw.read()
        limit, content = max(_SMALL, _EXPANSION * path.stat().st_size), bytearray()
        while block := stream.read(_BLOCK):
            content += block
            if len(content) > limit:
                raise DataError(
                    f"{url} expands to more than {_EXPANSION} times its size",
                    subject=url,
                    hint="if its content is right, unpack it and give the unpacked file",
                )
    return bytes(content)


def _read_csv(content: bytes, url: str, spec: SourceSpec, texts: Collection[str]) -> Table:
    separator = "\t" if _suffix(url).startswith(".tsv") else spec.separator
    if spec.encoding.lower().replace("-", "") != "utf8":
        content = content.decode(spec.encoding).encode()
    elif content.startswith(_WIDE_MARKS):
        raise DialectError(
            f"{url} is not UTF-8 text but UTF-16",
            subject=url,
            hint="set encoding: utf-16, or convert the file to UTF-8",
            declare={"encoding": "utf-16"},
        )
    if b"\n" not in content:  # lines that end with a carriage return alone, as some spreadsheets write them
        content = content.replace(b"\r", b"\n")
    header = _first_record(content, separator)
    _refuse_other_separator(header, content, url, separator)
    repeated = sorted({name for name in header if header.count(name) > 1})
    if repeated:
        raise DataError(
            f"{url} has two columns named {', '.join(repeated)}", subject=url, hint="give each column its own name"
        )
    _refuse_open_quote(content, url, separator)
    _refuse_missing_fields(content, url, len(header))
    _refuse_cut_line(content, url, separator, len(header))
    # In a number format of its own `1.234` may be 1234, which an engine would read as 1.234.
    declared = {name for name, rule in spec.rules.items() if rule.type == "str"} | spec.number_formats.keys()
    # The engine leaves doubled quotes in a header as they are; what it calls a column is set right afterwards.
    engine = {name: name.replace('"', '""') for name in header}
    kept = {engine[name]: pl.String() for name in header if name in declared or name in texts}
    right = {raw: name for name, raw in engine.items() if raw != name}

    def parsed(text: bytes) -> pl.DataFrame:
        frame = pl.read_csv(
            io.BytesIO(text),
            separator=separator,
            infer_schema_length=None,
            null_values=spec.missing or None,
            schema_overrides=kept or None,
        )
        return frame.rename(right, strict=False)

    frame = parsed(content)
    # A row with too few fields lacks the last one, so there is nothing to look for where that is never null.
    if frame.width < 2 or not frame[:, -1].null_count():
        return Table(frame)
    found = short_records(content, separator, frame.columns, records=frame.height)
    if found is None:
        return Table(frame)
    frame = parsed(found.content)
    short = found.short if found.short.height else None
    if short is not None and not frame.height:
        raise DataError(
            f"{url}: none of its {short.height:,} rows has all the {frame.width} fields of the header",
            subject=url,
            hint="look at its separator and header, and write it again",
        )
    return Table(frame, short)


def _refuse_open_quote(content: bytes, url: str, separator: str) -> None:
    line = open_quote(content, separator)
    if line is not None:
        raise DataError(
            f"{url} has a quoted field that does not end, in the row that begins in line {line:,}",
            subject=url,
            hint="copy the file again, for it may be cut off there; or close the quotes",
        )


def _refuse_missing_fields(content: bytes, url: str, width: int) -> None:
    """Rows that lack most of the header's fields take more memory than their text by any factor."""
    limit = _CELLS + _CELLS_PER_BYTE * len(content)
    if content.count(b"\n") * width <= limit or (count := record_count(content)) * width <= limit:
        return
    raise DataError(
        f"{url}: the header has {width:,} fields, which most of its {count:,} rows lack",
        subject=url,
        hint="look at its separator and header, and write it again",
    )


def _first_record(content: bytes, separator: str) -> list[str]:
    text = io.StringIO(content[:_TAIL].decode("utf-8-sig", errors="replace"), newline="")
    return next(csv.reader(text, delimiter=separator), [])


def _refuse_other_separator(header: Sequence[str], content: bytes, url: str, separator: str) -> None:
    """A header that is one field, but several with another sign, which its first row has as often."""
    lines = content[:_TAIL].splitlines()[:2]
    if len(header) != 1 or len(lines) < 2:
        return
    for sign in _SEPARATORS:
        if sign != separator and lines[0].count(sign.encode()) == lines[1].count(sign.encode()) > 0:
            written = json.dumps(sign)
            raise DialectError(
                f'{url}: its fields are separated by {written}, not by "{separator}"',
                subject=url,
                hint=f"set separator: {written} in the source's declaration",
                declare={"separator": sign},
            )


def _refuse_cut_line(content: bytes, url: str, separator: str, width: int) -> None:
    """A last line without its end and with too few fields was cut off; an engine would fill it with nulls."""
    if content.endswith((b"\n", b"\r")):
        return
    last = content[-_TAIL:].rsplit(b"\n", 1)[-1].decode("utf-8", errors="replace")
    fields = next(csv.reader(io.StringIO(last, newline=""), delimiter=separator), [])
    if last.count('"') % 2 == 0 and 0 < len(fields) < width:
        raise DataError(
            f"{url} is cut off: its last line has {len(fields)} of {width} fields",
            subject=url,
            hint="copy or write it again",
        )


def _read_jsonl(content: bytes, url: str) -> pl.DataFrame:
    if content.lstrip()[:1] == b"[":
        raise DataError(
            f"{url} is one JSON array", subject=url, hint="write JSON lines: one object a line, without commas between"
        )
    return pl.read_ndjson(io.BytesIO(content), infer_schema_length=None)


def frame_digest(frame: pl.DataFrame) -> str:
    """SHA-256 of a frame's content and column types."""
    buffer = io.BytesIO()
    frame.rechunk().write_ipc(buffer, compression="uncompressed")
    return hashlib.sha256(buffer.getbuffer()).hexdigest()
