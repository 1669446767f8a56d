"""Pages of a Parquet column chunk from their own headers (Thrift, compact protocol), which decide about memory.

Of the bodies only the prefix lengths of DELTA_BYTE_ARRAY are decoded.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import IO, Any, NamedTuple

from cumulant.data.formats.parquet_footer import ColumnChunk
from cumulant.data.formats.thrift import Compact

_DATA, _DICTIONARY, _DATA_V2 = 0, 2, 3
_DICTIONARY_ENCODINGS, _DELTA_BYTE_ARRAY, _BIT_PACKED = (2, 8), 7, 4
_MOST_BLOCK, _MOST_LENGTH = 1 << 16, 1 << 31
_HEADER, _MOST_HEADER = 4096, 16 << 20


class Page(NamedTuple):
    """One page. `size` bytes when decompressed; `levels` bytes of them are stored uncompressed before the values.

    `bit_packed`: repetition and definition levels are in a deprecated encoding without a length.
    """

    start: int
    stored: int
    size: int
    values: int
    dictionary: bool
    refers: bool
    prefixed: bool
    levels: int | None
    compressed: bool
    bit_packed: tuple[bool, bool]


def pages(stream: IO[bytes], chunk: ColumnChunk) -> Iterator[Page]:
    """The pages of a column chunk, dictionary included.

    Raises:
        ArrowInvalid: a header is damaged; raised after the pages before it.
    """
    import pyarrow as pa

    start, values = chunk.data_page_offset, 0
    dictionary = chunk.dictionary_page_offset or 0
    if 0 < dictionary < start or not start:  # a chunk without values may have no data page
        start = dictionary
    end = start + chunk.total_compressed_size
    while start < end or values < chunk.num_values:
        try:
            page = _page(stream, start)
        except (ValueError, IndexError, KeyError, TypeError, AttributeError) as error:
            if values >= chunk.num_values:  # some writers leave bytes after the last page
                break
            raise pa.ArrowInvalid(f"the header of a page at byte {start} is damaged") from error
        yield page
        values += page.values
        start = page.start + page.stored
    if dictionary > chunk.data_page_offset > 0:
        raise pa.ArrowInvalid("a dictionary after its data: engines differ in which pages they read then")


def prefix_bytes(stream: IO[bytes], page: Page, codec: str, described: Any) -> tuple[int, int] | None:
    """Bytes that all texts of a DELTA_BYTE_ARRAY page, and the longest, repeat of the text before; None: unknown.

    Raises:
        ArrowException, OSError: the page is damaged.
    """
    import pyarrow as pa

    most_levels = (described.max_repetition_level, described.max_definition_level)
    if any(most and packed for most, packed in zip(most_levels, page.bit_packed, strict=True)):
        return None
    stream.seek(page.start)
    body, levels = stream.read(page.stored), page.levels or 0
    content, packed = body[:levels], body[levels:]
    if codec != "UNCOMPRESSED" and page.compressed:
        if codec == "LZ4" or not pa.Codec.is_available(codec.lower()):
            return None
        packed = pa.Codec(codec.lower()).decompress(packed, page.size - levels, asbytes=True)
    content, at = content + packed, levels
    try:
        if page.levels is None:
            for most in most_levels:
                at += 4 + int.from_bytes(content[at : at + 4], "little") if most else 0
        return _deltas(Compact(content, at)) if at < len(content) else (0, 0)  # (0, 0): every value is missing
    except (ValueError, IndexError, OverflowError) as error:
        raise pa.ArrowInvalid(f"the page at byte {page.start} is damaged") from error


def _page(stream: IO[bytes], start: int) -> Page:
    length = _HEADER
    while True:
        stream.seek(start)
        data = stream.read(length)
        reader = Compact(data, 0)
        try:
            header = reader.struct()
            break
        except IndexError:
            if len(data) < length or length >= _MOST_HEADER:
                raise
            length *= 16
    kind, size, stored = header[1], header[2], header[3]
    described = header.get({_DATA: 5, _DICTIONARY: 7, _DATA_V2: 8}.get(kind, 0), {})
    second = kind == _DATA_V2
    encoding = described.get(4 if second else 2)
    values = described[1] if kind in (_DATA, _DATA_V2) else 0
    levels = described[5] + described[6] if second else None
    if min(size, stored, values, levels or 0) < 0 or (levels or 0) > min(size, stored):
        raise ValueError("a negative size")
    return Page(
        start=start + reader.at,
        stored=stored,
        size=size,
        values=values,
        dictionary=kind == _DICTIONARY,
        refers=values > 0 and encoding in _DICTIONARY_ENCODINGS,
        prefixed=values > 0 and encoding == _DELTA_BYTE_ARRAY,
        levels=levels,
        compressed=bool(described.get(7, True)) if second else True,
        bit_packed=(not second and described.get(4) == _BIT_PACKED, not second and described.get(3) == _BIT_PACKED),
    )


def _deltas(reader: Compact) -> tuple[int, int]:
    """The sum and the largest of numbers in DELTA_BINARY_PACKED."""
    import numpy as np

    block, parts, count, last = reader.unsigned(), reader.unsigned(), reader.unsigned(), reader.signed()
    if not parts or block % parts or (block // parts) % 8 or not 0 < block <= _MOST_BLOCK:
        raise ValueError("no such blocks")
    if not 0 <= last < _MOST_LENGTH:
        raise ValueError("a length of more than 31 bits")
    size, total, largest, remaining = block // parts, last if count else 0, last if count else 0, count - 1
    while remaining > 0:
        least = reader.signed()
        if abs(least) > _MOST_LENGTH:
            raise ValueError("a length of more than 31 bits")
        widths = [reader.byte() for _ in range(parts)]
        for width in widths[: -(-remaining // size)]:
            start = reader.at
            reader.skip(size * width // 8)
            used = min(size, remaining)
            deltas = least + _unpack_bits(reader.data[start : reader.at], width, size)[:used]
            values = last + np.cumsum(deltas)
            if values.min() < 0 or values.max() >= _MOST_LENGTH:  # engines would wrap around
                raise ValueError("a length of more than 31 bits")
            total, largest = total + int(values.sum()), max(largest, int(values.max()))
            last, remaining = int(values[-1]), remaining - used
            if remaining <= 0:
                break
    return total, largest


def _unpack_bits(data: bytes, width: int, count: int) -> Any:
    import numpy as np

    if width > 32:
        raise ValueError("a length of more than 32 bits")
    bits = np.unpackbits(np.frombuffer(data, np.uint8), bitorder="little").reshape(count, width)
    return bits.astype(np.int64) @ (np.int64(1) << np.arange(width, dtype=np.int64))
