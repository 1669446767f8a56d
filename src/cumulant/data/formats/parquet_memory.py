"""The memory that a Parquet file takes when read: from page headers and dictionaries, before it is decoded.

Footer sizes are not used: nothing makes them agree with the pages. Not bounded are texts of one row read by
`fitting_rows`: lists of very different lengths are counted by their mean.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple

from cumulant.core.errors import DataError
from cumulant.core.system.memory import machine_memory, memory_limit
from cumulant.data.formats.parquet_footer import (
    ColumnChunk,
    chunks,
    damaged_file_error,
    encrypted_file_error,
    footer_bytes,
    refuse_encrypted,
    utf8_errors,
)
from cumulant.data.formats.parquet_pages import Page, pages, prefix_bytes

#: bytes that a value takes in a column; of a text, the reference to its characters
_WIDTHS = {"BOOLEAN": 1, "INT32": 4, "INT64": 8, "INT96": 8, "FLOAT": 4, "DOUBLE": 8, "BYTE_ARRAY": 16}
_OFFSET = 8
_SHARE = 0.5
_BUFFER = 1 << 20
#: bytes of memory that a byte of the footer becomes at most, where each chunk is described whole: that takes 25 bytes
_FOOTER = 30
#: one piece of columns takes at most about so many bytes, and so many with every text as long as the longest
MOST_BYTES, _MOST_DECODED = 32 << 20, 256 << 20


class _Contents(NamedTuple):
    """Page headers of one column chunk: `stored` bytes of pages, of which `dictionary` the dictionary."""

    group: int
    column: int
    name: str
    chunk: ColumnChunk
    text: bool
    values: int
    fixed: int
    stored: int
    largest: int
    dictionary: int
    references: int
    prefixed: list[Page]

    def bound(self) -> int:
        """No more bytes of texts are repeated from a dictionary or from the text before."""
        return self.references * self.dictionary + sum(page.values for page in self.prefixed) * self.stored


def refuse_large(path: Path, url: str, limit: int | None, *, least: int = 0) -> None:
    """Refuse a file that takes more than `limit` bytes (None: half of the machine's memory, at least `least`).

    Raises:
        DataError: it takes more (the file is not decoded), is damaged, is encrypted, or has a column name that is not
            UTF-8.
        pyarrow.ArrowException, OSError: it is no Parquet file.
    """
    import pyarrow.parquet as pq

    most = allowed_memory(limit, least)
    refuse_encrypted(path, url)
    with path.open("rb") as stream:
        refuse_above(footer_bytes(stream) * _FOOTER, most, url)
        described = list(chunks(stream, url))  # before the engine, which takes 700 bytes for a chunk of three bytes
    with utf8_errors(url), pq.ParquetFile(path, buffer_size=_BUFFER) as file, path.open("rb") as stream:
        values, encoded, doubtful = 0, Counter[int](), []
        for contents in _contents(file, stream, url, described):
            values += contents.fixed + (contents.stored if contents.text else 0)
            encoded[contents.group] += 0 if contents.text else contents.stored
            needed = values + max(encoded.values())
            refuse_above(needed, most, url)
            if contents.text and needed + contents.bound() > most:
                doubtful.append(contents)
        needed = values + max(encoded.values(), default=0)
        for contents in doubtful:
            needed += _repeated_bytes(path, file, stream, contents, most - needed)
            refuse_above(needed, most, url)


def out_of_memory_error(url: str) -> DataError:
    """What an engine's failed allocation means: the file is not damaged."""
    hint = "run it where more memory is free, or split the file into several"
    return DataError(f"{url} takes more memory to read than is free", subject=url, hint=hint)


def fitting_rows(path: Path, url: str, file: Any, columns: Collection[str] | None) -> int:
    """How many rows of the widest row group take about `MOST_BYTES`, and eight times as much if all repeat.

    Raises:
        DataError: a page or an average row takes more than half of the machine's memory; or as `refuse_large`.
        OSError: the file cannot be read.
    """
    encoded, decoded, texts = (defaultdict[int, float](float) for _ in range(3))
    with path.open("rb") as stream:
        for contents in _contents(file, stream, url, chunks(stream, url), columns, strict=False):
            if contents.largest > machine_memory() * _SHARE:
                raise _too_wide(url)
            # A row has at least one value in each column: the footer may give more rows than there are.
            rows = max(1, min(contents.values, file.metadata.row_group(contents.group).num_rows))
            encoded[contents.group] += contents.stored / rows
            decoded[contents.group] += (contents.fixed + contents.stored) / rows
            texts[contents.group] += _bound(path, file, stream, contents) / rows if contents.text else 0
    if max(decoded.values(), default=0) > machine_memory() * _SHARE:
        raise _too_wide(url)
    share = MOST_BYTES / _MOST_DECODED
    widest = max([1, *encoded.values(), *((decoded[group] + texts[group]) * share for group in decoded)])
    return max(1, int(MOST_BYTES / widest))


def _too_wide(url: str) -> DataError:
    hint = "write its lists as rows of their own, and smaller pages, or read fewer columns"
    return DataError(f"{url}: one row or page takes more than half of the machine's memory", subject=url, hint=hint)


def _contents(
    file: Any,
    stream: IO[bytes],
    url: str,
    described: Iterable[ColumnChunk],
    columns: Collection[str] | None = None,
    *,
    strict: bool = True,
) -> Iterator[_Contents]:
    paths = [file.schema.column(number).path for number in range(file.metadata.num_columns)]
    for chunk in described:
        if chunk.column >= len(paths):
            raise damaged_file_error(url)
        path = paths[chunk.column]
        if columns is None or any(f"{path}.".startswith(f"{name}.") for name in columns):
            if chunk.encrypted:
                raise encrypted_file_error(f"{url}: the column {path} is encrypted", url)
            yield _content(file, _pages(stream, chunk, strict=strict), chunk)


def _pages(stream: IO[bytes], chunk: ColumnChunk, *, strict: bool) -> Iterator[Page]:
    import pyarrow as pa

    try:
        yield from pages(stream, chunk)
    except pa.ArrowInvalid:
        if strict:
            raise


def _content(file: Any, chunk_pages: Iterator[Page], chunk: ColumnChunk) -> _Contents:
    described = file.schema.column(chunk.column)
    width = described.length if described.physical_type == "FIXED_LEN_BYTE_ARRAY" else _WIDTHS[described.physical_type]
    values = stored = largest = dictionary = references = 0
    prefixed = []
    for page in chunk_pages:
        values, stored, largest = values + page.values, stored + page.size, max(largest, page.size)
        dictionary += page.size if page.dictionary else 0
        references += page.values if page.refers else 0
        if page.prefixed:
            prefixed.append(page)
    fixed = max(values, chunk.num_values) * (width + _OFFSET * described.max_repetition_level)
    text = described.physical_type == "BYTE_ARRAY"
    sizes = (fixed, stored, largest, dictionary, references, prefixed)
    return _Contents(chunk.group, chunk.column, described.path, chunk, text, values, *sizes)


def _repeated_bytes(path: Path, file: Any, stream: IO[bytes], contents: _Contents, most: int) -> int:
    """Bytes of texts that the chunk repeats, or some number above `most`."""
    total, _ = _prefixes(file, stream, contents)
    if total > most or not contents.references:
        return total
    bound = contents.references * _longest(path, contents)
    return total + (bound if total + bound <= most else _measure_repeated_bytes(path, contents, most - total))


def _bound(path: Path, file: Any, stream: IO[bytes], contents: _Contents) -> int:
    """Bytes of the chunk's texts if each repeated as much as the one that repeats most, damaged pages included."""
    import pyarrow as pa

    try:
        total, longest = _prefixes(file, stream, contents)
        bound = longest * sum(page.values for page in contents.prefixed)
        if not contents.references:
            return bound
        return bound + contents.references * (
            _longest(path, contents) if total <= _MOST_DECODED else contents.dictionary
        )
    except (pa.ArrowException, OSError):  # reading its rows reports where
        return contents.bound()


def _prefixes(file: Any, stream: IO[bytes], contents: _Contents) -> tuple[int, int]:
    """Bytes that all texts of the chunk, and the one that repeats most, repeat of the text before."""
    described, total, longest = file.schema.column(contents.column), 0, 0
    for page in contents.prefixed:
        prefixes = prefix_bytes(stream, page, contents.chunk.compression, described)
        repeated, most = prefixes if prefixes is not None else (page.values * contents.stored, contents.stored)
        total, longest = total + repeated, max(longest, most)
    return total, longest


def _longest(path: Path, contents: _Contents) -> int:
    """The length of the longest text in the chunk's dictionary."""
    import pyarrow.compute as pc

    for batch in _references(path, contents, 1):
        if batch is None:
            return contents.dictionary
        return pc.max(pc.binary_length(batch.dictionary)).as_py() or 0
    return 0


def _measure_repeated_bytes(path: Path, contents: _Contents, most: int) -> int:
    """Bytes of the chunk's texts, of which only the references to the dictionary are decoded, until above `most`."""
    import pyarrow.compute as pc

    total = 0
    for batch in _references(path, contents, 65_536):
        if batch is None:
            return contents.references * contents.dictionary
        total += pc.sum(pc.take(pc.binary_length(batch.dictionary), batch.indices)).as_py() or 0
        if total > most:
            break
    return total


def _references(path: Path, contents: _Contents, rows: int) -> Iterator[Any]:
    """The chunk's texts as references to a dictionary, some rows at a time; None where they cannot be read as such."""
    import pyarrow.parquet as pq

    name = contents.name
    with pq.ParquetFile(path, read_dictionary=[name], buffer_size=_BUFFER, page_checksum_verification=True) as file:
        for batch in file.iter_batches(rows, row_groups=[contents.group], columns=[name], use_threads=False):
            yield _dictionary(batch.column(0))


def _dictionary(array: Any) -> Any:
    """The array of references within lists and structs; None: there is none."""
    if hasattr(array, "dictionary"):
        return array
    inner = array.flatten() if hasattr(array, "flatten") and hasattr(array.type, "num_fields") else None
    if inner is None or not array.type.num_fields:
        return None
    arrays = (_dictionary(part) for part in (inner if isinstance(inner, list) else [inner]))
    return next((part for part in arrays if part is not None), None)


def allowed_memory(limit: int | None, least: int) -> int:
    """The bytes that a file may take: `limit`, or half of the machine's memory, and at least `least`."""
    return memory_limit(limit) if limit is not None else max(memory_limit(None), least)


def refuse_above(needed: int, most: int, url: str) -> None:
    """Raises DataError where a file needs more bytes than it may."""
    if needed > most:
        raise DataError(
            f"{url} takes more than {most / 2**30:,.3g} GiB when it is read: the largest that one file may take",
            subject=url,
            hint="if its content is right, split it into several files, or set memory: 64GiB (or its own) in the "
            "source's declaration",
        )
