"""Rows of a file of labels, some thousands at a time, however large it is: CSV, JSON, JSON lines or Parquet."""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import IO, NamedTuple, cast

import msgspec

from cumulant.core.errors import DataError
from cumulant.data.formats.parquet_footer import refuse_encrypted, utf8_errors
from cumulant.data.formats.parquet_memory import fitting_rows, out_of_memory_error

#: rows of a batch, and bytes of a file's text after which one ends, too
ROWS, _BATCH = 20_000, 32 << 20
#: bytes of one line, and of a file that is one JSON array and so is read at once
_LINE, _ARRAY = 1 << 20, 1 << 28
_BUFFER = 1 << 20
_KINDS = {
    ".csv": "csv",
    ".tsv": "csv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
    ".parquet": "parquet",
    ".pq": "parquet",
}


def kind_of(path: Path) -> str | None:
    """`csv`, `jsonl`, `json` or `parquet` by the file's name, `.gz` apart; None where it is none of these."""
    name = path.name.lower().removesuffix(".gz")
    return _KINDS.get(Path(name).suffix)


def content_hash(path: Path) -> str:
    """The identity of a file: 32 hexadecimal digits over its bytes.

    Raises:
        DataError: it cannot be read.
    """
    with _reading_errors(path), path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()[:32]


def read_batches(path: Path) -> Iterator[list[object]]:
    """The rows as mappings, in batches; a line that is no JSON object stands as its text.

    Raises:
        DataError: the file is empty, damaged, or in no known format.
    """
    for batch in read_numbered_batches(path):
        yield batch.rows


def read_json_lines(stream: IO[bytes]) -> Iterator[list[object]]:
    """The rows of JSON lines, in batches; a line that is no JSON object stands as its text."""
    place = _Place()
    for batch in _batch_rows(_lines(b"", stream, 1, place), place):
        yield batch.rows


class _Place:
    """Of the batch that is being read: the line of each row, and the bytes or letters of their text."""

    def __init__(self) -> None:
        self.lines: list[int] = []
        self.size = 0


class NumberedRows(NamedTuple):
    """Rows of a file, each with the line in which it begins; of a format without lines with its number. Both from 1."""

    lines: Sequence[int]
    rows: list[object]


def read_numbered_batches(path: Path) -> Iterator[NumberedRows]:
    """As `read_batches`, with the place of each row.

    Raises:
        DataError: as `read_batches`.
    """
    kind = kind_of(path)
    if kind is None:
        raise DataError(
            f"{path}: its name does not show its format",
            subject=str(path),
            hint="labels are read from .csv, .json, .jsonl and .parquet, the first three also as .gz",
        )
    with _reading_errors(path):
        if path.stat().st_size == 0:
            raise DataError(f"{path} is empty (0 bytes)", subject=str(path), hint="write it again, or remove it")
        if kind == "parquet":
            yield from _parquet(path)
            return
        with _open_unpacked(path) as stream:
            place = _Place()
            yield from _batch_rows(
                _csv(stream, path, place) if kind == "csv" else _json(stream, path, kind, place), place
            )


def _batch_rows(rows: Iterator[object], place: _Place) -> Iterator[NumberedRows]:
    """`rows` in batches; whatever yields a row has put its line into `place`: a pair a row takes twice the time."""
    batch: list[object] = []
    for row in rows:
        batch.append(row)
        if len(batch) == ROWS or place.size >= _BATCH:
            yield NumberedRows(place.lines, batch)
            batch, place.lines, place.size = [], [], 0
    if batch:
        yield NumberedRows(place.lines, batch)


def number_rows(batches: Iterable[list[object]]) -> Iterator[NumberedRows]:
    """The rows of all batches, counted from 1."""
    first = 1
    for rows in batches:
        yield NumberedRows(range(first, first + len(rows)), rows)
        first += len(rows)


def _parquet(path: Path) -> Iterator[NumberedRows]:
    import pyarrow.parquet as pq

    refuse_encrypted(path, str(path))
    with utf8_errors(str(path)), pq.ParquetFile(path, buffer_size=_BUFFER) as file:
        rows = min(ROWS, fitting_rows(path, str(path), file, None))
        yield from number_rows(cast("list[object]", batch.to_pylist()) for batch in file.iter_batches(rows))


def _open_unpacked(path: Path) -> IO[bytes]:
    with path.open("rb") as stream:
        packed = stream.read(2) == b"\x1f\x8b"
    return cast("IO[bytes]", gzip.open(path, "rb")) if packed else path.open("rb")


def _csv(stream: IO[bytes], path: Path, place: _Place) -> Iterator[object]:
    separator = "\t" if ".tsv" in path.name.lower() else ","
    with io.TextIOWrapper(stream, "utf-8-sig", newline="") as text:
        yield from _records(_counted(text, place), path, separator, place)


def _counted(text: Iterable[str], place: _Place) -> Iterator[str]:
    for line in text:
        place.size += len(line)
        yield line


def _records(text: Iterator[str], path: Path, separator: str, place: _Place) -> Iterator[object]:
    reader = csv.reader(text, delimiter=separator, strict=True)
    header = next(reader, [])
    if not header or len(set(header)) != len(header):
        raise DataError(
            f"{path} has two columns of one name, or no header", subject=str(path), hint="give each column its own name"
        )
    line = reader.line_num + 1
    for fields in reader:
        if fields:
            place.lines.append(line)
            yield dict(zip(header, fields, strict=True)) if len(fields) == len(header) else separator.join(fields)
        line = reader.line_num + 1  # a quoted field may hold line ends


def _json(stream: IO[bytes], path: Path, kind: str, place: _Place) -> Iterator[object]:
    first, line = stream.read(1), 1
    while first.isspace():
        line += first == b"\n"
        first = stream.read(1)
    if first == b"[" and kind == "json":
        text = first + stream.read(_ARRAY)
        if len(text) > _ARRAY:
            raise DataError(
                f"{path} is one JSON array of over 256 MiB",
                subject=str(path),
                hint="write JSON lines: one object a line",
            )
        for number, row in enumerate(msgspec.json.decode(text, type=list[object]), 1):
            place.lines.append(number)
            yield row
        return
    yield from _lines(first, stream, line, place)


def _lines(first: bytes, stream: IO[bytes], begin: int, place: _Place) -> Iterator[object]:
    """`first` is the beginning of the line `begin`, which was read before."""
    decode = msgspec.json.Decoder().decode
    for number in count(begin):
        line, first = first + stream.readline(_LINE), b""
        if not line:
            return
        if not line.strip():
            continue
        place.lines.append(number)
        place.size += len(line)
        try:
            yield decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            yield line[:200].decode(errors="replace").strip()
        while len(line) >= _LINE and not line.endswith(b"\n"):
            line = stream.readline(_LINE)


@contextmanager
def _reading_errors(path: Path) -> Iterator[None]:
    """Errors of reading as DataErrors. Their own text is not repeated where it may quote values."""
    import pyarrow as pa

    try:
        yield
    except (EOFError, gzip.BadGzipFile) as error:
        raise DataError(f"{path} is damaged or cut off (gzip)", subject=str(path), hint="copy it again") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} is not CSV in UTF-8", subject=str(path), hint="write it again as such") from error
    except msgspec.DecodeError as error:
        raise DataError(f"{path} is not whole JSON", subject=str(path), hint="copy or write it again") from error
    except MemoryError as error:  # Arrow's own is one
        raise out_of_memory_error(str(path)) from error
    except pa.ArrowException as error:
        raise DataError(
            f"{path} is not a whole Parquet file: damaged or cut off", subject=str(path), hint="copy or write it again"
        ) from error
    except OSError as error:
        if error.errno is None:  # Arrow's own word for what stands in the file
            raise DataError(
                f"{path} is damaged or cut off", subject=str(path), hint="copy or write it again"
            ) from error
        raise DataError(
            f"{path}: {error.strerror or 'it cannot be read'}",
            subject=str(path),
            hint="check the path and its permissions",
        ) from error
