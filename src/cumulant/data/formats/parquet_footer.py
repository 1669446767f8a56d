"""The column chunks of a Parquet file by its footer, without pyarrow, which aborts on damaged or encrypted ones."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, NamedTuple

import polars as pl

from cumulant.core.errors import DataError
from cumulant.data.formats.thrift import Compact

_TAIL, _MAGIC, _ENCRYPTED_MAGIC = 8, b"PAR1", b"PARE"
_CODECS = ("UNCOMPRESSED", "SNAPPY", "GZIP", "LZO", "BROTLI", "LZ4", "ZSTD", "LZ4")
_MOST = 1 << 62


class ColumnChunk(NamedTuple):
    """One column chunk. `column` is the number of its column in the schema's leaves."""

    group: int
    column: int
    compression: str = "UNCOMPRESSED"
    num_values: int = 0
    total_compressed_size: int = 0
    data_page_offset: int = 0
    dictionary_page_offset: int = 0
    encrypted: bool = False


def refuse_encrypted(path: Path, url: str) -> None:
    """Raises DataError where the footer itself is encrypted, OSError where the file cannot be read."""
    with path.open("rb") as stream:
        if _tail(stream).endswith(_ENCRYPTED_MAGIC):
            raise encrypted_file_error(f"{url} is encrypted", url)


def chunks(stream: IO[bytes], url: str) -> Iterator[ColumnChunk]:
    """The column chunks of every row group, in order.

    Raises:
        DataError: the footer is damaged.
    """
    try:
        yield from _chunks(Compact(_footer(stream), 0))
    except (ValueError, IndexError, KeyError, TypeError) as error:
        raise damaged_file_error(url) from error


def damaged_file_error(url: str) -> DataError:
    problem = f"{url} is not a whole Parquet file: damaged or cut off"
    return DataError(problem, subject=url, hint="copy or write it again")


def encrypted_file_error(message: str, url: str) -> DataError:
    return DataError(message, subject=url, hint="write it again without encryption: no keys can be given here")


@contextmanager
def utf8_errors(url: str) -> Iterator[None]:
    """What engines raise for names and texts in another encoding, as a DataError: none can be set for Parquet."""
    try:
        yield
    except (UnicodeDecodeError, pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
        if not isinstance(error, UnicodeDecodeError) and "utf-8" not in str(error).lower():
            raise
        problem = f"{url} has a column name or a text that is not UTF-8"
        raise DataError(problem, subject=url, hint="write it again with names and texts in UTF-8") from error


def _tail(stream: IO[bytes]) -> bytes:
    """The length of the footer, and the magic bytes."""
    stream.seek(max(0, stream.seek(0, os.SEEK_END) - _TAIL))
    return stream.read(_TAIL)


def footer_bytes(stream: IO[bytes]) -> int:
    """The length of the footer; 0 where the file does not end with one."""
    tail = _tail(stream)
    length = int.from_bytes(tail[:4], "little")
    return length if tail[4:] == _MAGIC and length <= stream.tell() - _TAIL else 0


def _footer(stream: IO[bytes]) -> bytes:
    length = footer_bytes(stream)
    if not length:
        raise ValueError("no footer")
    stream.seek(-length - _TAIL, os.SEEK_END)
    return stream.read(length)


def _chunks(reader: Compact) -> Iterator[ColumnChunk]:
    read = False
    for number, kind in reader.fields():
        if number != 4:
            reader.value(kind)
            continue
        if read:
            raise ValueError("row groups that come twice")
        read = True
        for group in reader.structs(kind):
            yield from _group(reader, group)


def _group(reader: Compact, group: int) -> Iterator[ColumnChunk]:
    for number, kind in reader.fields():
        if number != 1:
            reader.value(kind)
            continue
        for column in reader.structs(kind):
            yield _chunk(reader.struct(), group, column)


def _chunk(fields: dict[int, Any], group: int, column: int) -> ColumnChunk:
    if 8 in fields:
        return ColumnChunk(group, column, encrypted=True)
    described = fields[3]
    codec, values, stored, start = (_number(described, number) for number in (4, 5, 7, 9))
    dictionary = _number(described, 11) if 11 in described else 0
    if values < 0 or not 0 <= codec < len(_CODECS):
        raise ValueError("no such number of values, or no such codec")
    return ColumnChunk(group, column, _CODECS[codec], values, stored, start, dictionary)


def _number(fields: dict[int, Any], number: int) -> int:
    value = fields[number]
    if type(value) is not int or abs(value) > _MOST:
        raise ValueError("no number of 62 bits")
    return value
