"""How much memory a Parquet file takes when it is read: from its footer and dictionaries, before any row is decoded.

Encoded pages say little: a dictionary with one long text, or one run of equal numbers, stands for any number of values.
What is not bounded here is a page whose own header contradicts the footer: an engine unpacks up to 2 GiB of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cumulant.core.errors import DataError
from cumulant.core.memory import machine_memory
from cumulant.core.units import size

#: bytes that a value takes in a column; of a text, the reference to its characters
_WIDTHS = {"BOOLEAN": 1, "INT32": 4, "INT64": 8, "INT96": 8, "FLOAT": 4, "DOUBLE": 8, "BYTE_ARRAY": 16}
_OFFSET = 8
_SHARE = 0.5
#: rows of a chunk are decoded in pieces of at most so many bytes where its texts must be measured
_PIECE = 64 << 20


def refuse_large(path: Path, url: str, limit: str | None) -> None:
    """Refuse a file that takes more than `limit` (such as `8GiB`; None: half of the machine's memory) when it is read.

    Raises:
        DataError: it takes more; the file is not decoded.
        pyarrow.ArrowException, OSError: it is no Parquet file.
    """
    import pyarrow.parquet as pq

    most = size(limit) if limit is not None else int(_SHARE * machine_memory())
    with pq.ParquetFile(path, page_checksum_verification=True) as file:
        plain, known, doubtful = 0, 0, []
        for group, column, chunk in chunks(file):
            plain += fixed_bytes(file, column, chunk)
            _check(plain, most, url)
            if chunk.physical_type == "BYTE_ARRAY" and plain + chunk.num_values * chunk.total_uncompressed_size > most:
                doubtful.append((group, column, chunk))
        for group, column, chunk in doubtful:
            bound = chunk.num_values * longest_text(path, group, chunk)
            # How many texts one row has in its lists is not known before it is decoded: such rows are not measured.
            if plain + known + bound > most and not file.schema.column(column).max_repetition_level:
                bound = _measured(file, group, chunk, most - plain - known)
            known += bound
            _check(plain + known, most, url)


def chunks(file: Any) -> Iterator[tuple[int, int, Any]]:
    """Row group, column and its description, for each column chunk of a pyarrow ParquetFile."""
    for group in range(file.metadata.num_row_groups):
        described = file.metadata.row_group(group)
        for column in range(described.num_columns):
            yield group, column, described.column(column)


def fixed_bytes(file: Any, column: int, chunk: Any) -> int:
    """Bytes of a chunk's decoded values and of its encoded pages, without what repeated texts add."""
    described = file.schema.column(column)
    width = described.length if chunk.physical_type == "FIXED_LEN_BYTE_ARRAY" else _WIDTHS[chunk.physical_type]
    values = max(chunk.num_values, 0) * (width + _OFFSET * described.max_repetition_level)
    return int(values + max(chunk.total_uncompressed_size, 0))


def longest_text(path: Path, group: int, chunk: Any) -> int:
    """No text of the chunk is longer, beyond the bytes that its pages have for it."""
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    if "DELTA_BYTE_ARRAY" in chunk.encodings:  # each may repeat all of the text before it
        return int(chunk.total_uncompressed_size)
    if not chunk.has_dictionary_page or not chunk.num_values:
        return 0
    name = chunk.path_in_schema
    with pq.ParquetFile(path, read_dictionary=[name], page_checksum_verification=True) as file:
        batch = next(file.iter_batches(1, row_groups=[group], columns=[name], use_threads=False))
    found = batch.column(0)
    while not hasattr(found, "dictionary"):
        if not hasattr(found, "flatten"):
            return int(chunk.total_uncompressed_size)
        inner = found.flatten()
        found = inner[0] if isinstance(inner, list) else inner
    return pc.max(pc.binary_length(found.dictionary)).as_py() or 0


def _measured(file: Any, group: int, chunk: Any, most: int) -> int:
    """Bytes of the chunk's texts as they are decoded, a piece after the other, until they exceed `most`."""
    rows, total = max(1, _PIECE // max(1, chunk.total_uncompressed_size)), 0
    for batch in file.iter_batches(rows, row_groups=[group], columns=[chunk.path_in_schema], use_threads=False):
        total += batch.nbytes
        if total > most:
            break
    return total


def _check(needed: int, most: int, url: str) -> None:
    if needed > most:
        raise DataError(
            f"{url} takes more than {most / 2**30:,.3g} GiB when it is read: the largest that one file may take",
            subject=url,
            hint="if its content is right, split it into several files, or set memory: 64GiB (or its own) in the "
            "source's declaration",
        )
