"""A text file in blocks of whole records, each with the file's header."""

from __future__ import annotations

import bz2
import gzip
import io
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple

from cumulant.core.errors import DataError, missing_part
from cumulant.core.progress import Progress
from cumulant.data.text.csv_records import record_ends

_SAMPLE = 1 << 16
#: a record longer than this is no record: a quoted field does not end
_LONGEST = 64 << 20
#: what compressed files begin with
_GZIP, _BZIP2, _ZSTD = b"\x1f\x8b", b"BZh", b"\x28\xb5\x2f\xfd"
_WIDE_MARKS = (b"\xff\xfe", b"\xfe\xff")
_MB = 1e6
#: why a file is read, for its progress
FINDING_TYPES, READING = "finding the types of", "reading"


class TextBlock(NamedTuple):
    """Whole records, after a header of `header` bytes; `share` of the file's bytes is read with them."""

    content: bytes
    share: float
    header: int = 0


def read_blocks(path: Path, *, rows: int, most: int, csv: bool) -> Iterator[TextBlock]:
    """The file, unpacked, in blocks of about `rows` records and at most about `most` bytes; UTF-16 is one block.

    Raises:
        DataError: a record is longer than 64 MiB.
    """
    size = max(1, path.stat().st_size)
    with path.open("rb") as raw, open_unpacked(raw) as stream:
        begin = stream.read(_SAMPLE)
        if begin.startswith(_WIDE_MARKS):
            yield TextBlock(begin + stream.read(), 1.0)
            return
        step = min(most, max(1, rows * (len(begin) // max(1, begin.count(b"\n")) + 1)))
        header, rest = _header(begin) if csv else (b"", begin)
        sent = False
        for content in _records(stream, rest, step, csv=csv, name=str(path)):
            sent = True
            yield TextBlock(header + content, min(1.0, raw.tell() / size), len(header))
        if header and not sent:
            yield TextBlock(header, 1.0, len(header))


def report_progress(blocks: Iterator[TextBlock], path: Path, text: str, progress: Progress) -> Iterator[TextBlock]:
    """The blocks of a file; after each, how much of its bytes is read."""
    size = path.stat().st_size / _MB
    for block in blocks:
        yield block
        progress(f"{text}, {block.share * size:,.0f} of {size:,.0f} MB", block.share)


def open_unpacked(raw: IO[bytes]) -> IO[bytes]:
    """The stream itself, or its content where it is gzip, bzip2 or Zstandard.

    Raises:
        MissingPartError: it is Zstandard, and PyArrow is not installed.
    """
    begin = raw.read(len(_ZSTD))
    raw.seek(0)
    if begin.startswith(_GZIP):
        return gzip.GzipFile(fileobj=raw)  # type: ignore[return-value]
    if begin.startswith(_BZIP2) and begin[-1:].isdigit():  # a header of text may begin with BZh too
        return io.BufferedReader(_Bzip2(raw))
    if begin != _ZSTD:
        return raw
    try:
        import pyarrow as pa
    except ModuleNotFoundError as error:
        raise missing_part(error.name or "pyarrow", "serve") from None
    return pa.CompressedInputStream(pa.PythonFile(raw, "r"), "zstd")  # type: ignore[no-any-return]


class _Bzip2(io.RawIOBase):
    """Streams of bzip2 behind each other, unpacked; `bz2.BZ2File` takes bytes after them for nothing."""

    def __init__(self, raw: IO[bytes]) -> None:
        self._raw, self._inner, self._rest = raw, bz2.BZ2Decompressor(), b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        """Raises OSError for bytes that are not bzip2, and EOFError where the last stream does not end."""
        while True:
            if self._inner.eof:
                self._rest = self._inner.unused_data or self._raw.read(_SAMPLE)
                if not self._rest:
                    return 0
                self._inner = bz2.BZ2Decompressor()
            elif self._inner.needs_input and not self._rest:
                self._rest = self._raw.read(_SAMPLE)
                if not self._rest:
                    raise EOFError
            content, self._rest = self._inner.decompress(self._rest, len(buffer)), b""
            if content:
                buffer[: len(content)] = content
                return len(content)


def _header(begin: bytes) -> tuple[bytes, bytes]:
    end = _first_end(begin)
    return begin[:end], begin[end:]


def _first_end(text: bytes) -> int:
    ends = record_ends(text, quoted=True)
    return int(ends[0]) + 1 if len(ends) else len(text)


def _records(stream: IO[bytes], rest: bytes, step: int, *, csv: bool, name: str) -> Iterator[bytes]:
    ended, blank = False, b""
    while not ended or rest:
        while len(rest) < step and not ended:
            more = stream.read(max(_SAMPLE, step - len(rest)))
            rest, ended = rest + more, not more
        # The end of the file stays with the text before it, so that a truncated line is recognized.
        cut = len(rest) if ended and len(rest) <= step else _cut(rest, step, csv=csv)
        if cut is None and not ended:
            if len(rest) > _LONGEST:
                raise DataError(f"{name} has a quoted field that does not end", subject=name, hint="close the quotes")
            step = 2 * len(rest)
            continue
        if cut is None:
            cut = len(rest)
        text, rest = rest[:cut], rest[cut:]
        if text.strip():
            yield blank + text
            blank = b""
        else:  # lines are counted, so that they stay with what follows
            blank += text


def _cut(text: bytes, step: int, *, csv: bool) -> int | None:
    """After the last whole record in the first `step` bytes; None where there is none."""
    ends = record_ends(text[:step], quoted=csv)
    return int(ends[-1]) + 1 if len(ends) else None
