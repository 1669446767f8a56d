"""How much memory a Parquet file takes when it is read: from its page headers and dictionaries, before it is decoded.

Encoded pages say little: a dictionary with one long text, or one run of equal numbers, stands for any number of values.
The footer's sizes and encodings are not used: nothing makes them agree with the pages.
What is not bounded: texts of one row, where a file is read a few rows at a time (`fitting_rows`): lists whose rows
differ much in length are counted by their mean.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple

from cumulant.core.errors import DataError
from cumulant.core.system.memory import machine_memory, memory_limit
from cumulant.data.formats.parquet_footer import Chunk, chunks, damaged, encrypted, footer_bytes, refuse_encrypted, utf8
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
    """What the page headers of one column chunk say: `stored` bytes of pages, of which `dictionary` the dictionary."""

    group: int
    column: int
    name: str
    chunk: Chunk
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


def refuse_large(path: Path, url: str, limit: str | None, *, least: int = 0) -> None:
    """Refuse a file that takes more than `limit` (such as `8GiB`; None: half of the machine's memory) when it is read.
    Without a limit of its own it may take `least` bytes.

    Raises:
        DataError: it takes more (the file is not decoded), is damaged, is encrypted, or has a column name that is
            not UTF-8.
        pyarrow.ArrowException, OSError: it is no Parquet file.
    """
    import pyarrow.parquet as pq

    most = allowed_memory(limit, least)
    refuse_encrypted(path, url)
    with path.open("rb") as stream:
        refuse_above(footer_bytes(stream) * _FOOTER, most, url)
        described = list(chunks(stream, url))  # before the engine, which takes 700 bytes for a chunk of three bytes
    with utf8(url), pq.ParquetFile(path, buffer_size=_BUFFER) as file, path.open("rb") as stream:
        values, encoded, doubtful = 0, Counter[int](), []
        for one in _contents(file, stream, url, described):
            values += one.fixed + (one.stored if one.text else 0)
            encoded[one.group] += 0 if one.text else one.stored
            needed = values + max(encoded.values())
            refuse_above(needed, most, url)
            if one.text and needed + one.bound() > most:
                doubtful.append(one)
        needed = values + max(encoded.values(), default=0)
        for one in doubtful:
            needed += _repeated(path, file, stream, one, most - needed)
            refuse_above(needed, most, url)


def no_memory(url: str) -> DataError:
    """What an engine's failed allocation means: the file is not damaged."""
    hint = "run it where more memory is free, or split the file into several"
    return DataError(f"{url} takes more memory to read than is free", subject=url, hint=hint)


def fitting_rows(path: Path, url: str, file: Any, columns: Collection[str] | None) -> int:
    """How many rows of the widest row group take about `MOST_BYTES`, and eight times as much whatever they repeat.

    Raises:
        DataError: a page or an average row takes more than half of the machine's memory; or as `refuse_large`.
        OSError: the file cannot be read. Of what is damaged, all that stands before it is counted.
    """
    encoded, decoded, texts = (defaultdict[int, float](float) for _ in range(3))
    with path.open("rb") as stream:
        for one in _contents(file, stream, url, chunks(stream, url), columns, strict=False):
            if one.largest > machine_memory() * _SHARE:
                raise _too_wide(url)
            # A row has at least one value in each column: the footer may give more rows than there are.
            rows = max(1, min(one.values, file.metadata.row_group(one.group).num_rows))
            encoded[one.group] += one.stored / rows
            decoded[one.group] += (one.fixed + one.stored) / rows
            texts[one.group] += _bound(path, file, stream, one) / rows if one.text else 0
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
    described: Iterable[Chunk],
    columns: Collection[str] | None = None,
    *,
    strict: bool = True,
) -> Iterator[_Contents]:
    paths = [file.schema.column(number).path for number in range(file.metadata.num_columns)]
    for chunk in described:
        if chunk.column >= len(paths):
            raise damaged(url)
        path = paths[chunk.column]
        if columns is None or any(f"{path}.".startswith(f"{name}.") for name in columns):
            if chunk.encrypted:
                raise encrypted(f"{url}: the column {path} is encrypted", url)
            yield _content(file, _pages(stream, chunk, strict=strict), chunk)


def _pages(stream: IO[bytes], chunk: Chunk, *, strict: bool) -> Iterator[Page]:
    import pyarrow as pa

    try:
        yield from pages(stream, chunk)
    except pa.ArrowInvalid:
        if strict:
            raise


def _content(file: Any, found: Iterator[Page], chunk: Chunk) -> _Contents:
    described = file.schema.column(chunk.column)
    width = described.length if described.physical_type == "FIXED_LEN_BYTE_ARRAY" else _WIDTHS[described.physical_type]
    values = stored = largest = dictionary = references = 0
    prefixed = []
    for page in found:
        values, stored, largest = values + page.values, stored + page.size, max(largest, page.size)
        dictionary += page.size if page.dictionary else 0
        references += page.values if page.refers else 0
        if page.prefixed:
            prefixed.append(page)
    fixed = max(values, chunk.num_values) * (width + _OFFSET * described.max_repetition_level)
    text = described.physical_type == "BYTE_ARRAY"
    sizes = (fixed, stored, largest, dictionary, references, prefixed)
    return _Contents(chunk.group, chunk.column, described.path, chunk, text, values, *sizes)


def _repeated(path: Path, file: Any, stream: IO[bytes], one: _Contents, most: int) -> int:
    """Bytes of texts that the chunk repeats, or some number above `most`."""
    total, _ = _prefixes(file, stream, one)
    if total > most or not one.references:
        return total
    bound = one.references * _longest(path, one)
    return total + (bound if total + bound <= most else _measured(path, one, most - total))


def _bound(path: Path, file: Any, stream: IO[bytes], one: _Contents) -> int:
    """Bytes of the chunk's texts if each repeated as much as the one that repeats most, damaged pages included."""
    import pyarrow as pa

    try:
        total, longest = _prefixes(file, stream, one)
        bound = longest * sum(page.values for page in one.prefixed)
        if not one.references:
            return bound
        return bound + one.references * (_longest(path, one) if total <= _MOST_DECODED else one.dictionary)
    except (pa.ArrowException, OSError):  # reading its rows says where
        return one.bound()


def _prefixes(file: Any, stream: IO[bytes], one: _Contents) -> tuple[int, int]:
    """Bytes that all texts of the chunk, and the one that repeats most, repeat of the text before."""
    described, total, longest = file.schema.column(one.column), 0, 0
    for page in one.prefixed:
        prefixes = prefix_bytes(stream, page, one.chunk.compression, described)
        repeated, most = prefixes if prefixes is not None else (page.values * one.stored, one.stored)
        total, longest = total + repeated, max(longest, most)
    return total, longest


def _longest(path: Path, one: _Contents) -> int:
    """The length of the longest text in the chunk's dictionary."""
    import pyarrow.compute as pc

    for batch in _references(path, one, 1):
        if batch is None:
            return one.dictionary
        return pc.max(pc.binary_length(batch.dictionary)).as_py() or 0
    return 0


def _measured(path: Path, one: _Contents, most: int) -> int:
    """Bytes of the chunk's texts, of which only the references to the dictionary are decoded, until above `most`."""
    import pyarrow.compute as pc

    total = 0
    for batch in _references(path, one, 65_536):
        if batch is None:
            return one.references * one.dictionary
        total += pc.sum(pc.take(pc.binary_length(batch.dictionary), batch.indices)).as_py() or 0
        if total > most:
            break
    return total


def _references(path: Path, one: _Contents, rows: int) -> Iterator[Any]:
    """The chunk's texts as references to a dictionary, some rows at a time; None where they cannot be read as such."""
    import pyarrow.parquet as pq

    name = one.name
    with pq.ParquetFile(path, read_dictionary=[name], buffer_size=_BUFFER, page_checksum_verification=True) as file:
        for batch in file.iter_batches(rows, row_groups=[one.group], columns=[name], use_threads=False):
            yield _dictionary(batch.column(0))


def _dictionary(array: Any) -> Any:
    """The array of references within lists and structs; None: there is none."""
    if hasattr(array, "dictionary"):
        return array
    inner = array.flatten() if hasattr(array, "flatten") and hasattr(array.type, "num_fields") else None
    if inner is None or not array.type.num_fields:
        return None
    found = (_dictionary(part) for part in (inner if isinstance(inner, list) else [inner]))
    return next((part for part in found if part is not None), None)


def allowed_memory(limit: str | None, least: int) -> int:
    """The bytes that a file may take: `limit` (such as `8GiB`), or without one half of the machine's memory, and at
    least `least`.
    """
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
