"""Parquet files of a few kilobytes that stand for gigabytes: refused from their footer, or read in small pieces."""

import json
import subprocess
import sys
from itertools import takewhile

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy import random

from cumulant.core.errors import DataError
from cumulant.core.system.memory import machine_memory
from cumulant.data.files.reading import read
from cumulant.data.formats.arrow_errors import arrow_errors
from cumulant.data.formats.parquet_memory import refuse_large
from cumulant.data.formats.parquet_pages import pages, prefix_bytes
from cumulant.data.spec import SourceSpec
from cumulant.outcomes.labels.label_files import read_batches

MIB = 1 << 20
LIMIT = "256MiB"
pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform != "linux", reason="measures a child's memory")]


def write(path, table, groups=1, **options):
    with pq.ParquetWriter(path, table.schema, compression="zstd", store_schema=False, **options) as out:
        for _ in range(groups):
            out.write_table(table, row_group_size=len(table))
    assert path.stat().st_size < MIB
    return path


def repeated(value, rows):
    return pa.DictionaryArray.from_arrays(pa.array([0] * rows, pa.int32()), pa.array([value]))


def equal_numbers(path):
    return write(path, pa.table({f"c{number}": pa.array([7] * 500_000) for number in range(4)}), groups=20)


def long_text(path):
    return write(path, pa.table({"a": repeated("x" * 100_000, 100_000)}))


def prefixes(path):
    """Each text repeats the one before it and adds a letter."""
    table = pa.table({"a": ["x" * 20_000 + "y" * (number % 3) for number in range(15_000)]})
    return write(path, table, use_dictionary=False, column_encoding={"a": "DELTA_BYTE_ARRAY"})


def lists(path):
    flat = pa.array([1.0] * 2_000_000)
    return write(path, pa.table({"a": pa.ListArray.from_arrays(pa.array([0, 2_000_000]), flat)}), groups=30)


def lists_of_texts(path):
    texts = repeated("x" * 100_000, 100_000)
    return write(path, pa.table({"a": pa.ListArray.from_arrays(pa.array(range(0, 100_001, 10)), texts)}))


def missing_values(path):
    return write(path, pa.table({f"c{number}": pa.nulls(500_000, pa.int64()) for number in range(4)}), groups=20)


def prefixes_in_lists(path):
    """One row whose list has them all."""
    texts = pa.array(["x" * 20_000 + "y" * (number % 3) for number in range(15_000)])
    table = pa.table({"a": pa.ListArray.from_arrays(pa.array([0, 15_000]), texts)})
    return write(path, table, use_dictionary=False, column_encoding={"a.list.element": "DELTA_BYTE_ARRAY"})


def lied_about_long_text(path):
    return with_lies(long_text(path))


def lied_about_prefixes(path):
    return with_lies(prefixes(path))


def lied_about_plain_texts(path):
    table = pa.table({"a": ["x" * 100_000] * 3000})
    return with_lies(write(path, table, use_dictionary=False))


def with_lies(path):
    """Replace the total uncompressed size in the footer by 4."""
    chunk = pq.read_metadata(path).row_group(0).column(0)
    whole = path.read_bytes()
    size = int.from_bytes(whole[-8:-4], "little")
    footer = whole[-8 - size : -8]
    right = varint(2 * chunk.total_uncompressed_size)
    assert footer.count(right) >= 1
    wrong = bytes([0x80 | 8, *[0x80] * (len(right) - 2), 0])  # 4, in as many bytes
    path.write_bytes(whole[: -8 - size] + footer.replace(right, wrong) + whole[-8:])
    assert pq.read_metadata(path).row_group(0).column(0).total_uncompressed_size == 4
    return path


def varint(number):
    found = bytearray()
    while number > 127:
        found.append(number & 127 | 128)
        number >>= 7
    return bytes([*found, number])


def many_chunks(path):
    """A footer of a million column chunks, three bytes each, without any data."""
    count = 1000
    many = b"\xfc" + varint(count)  # a list of structs
    root, leaf = b"\x48\x01r\x15" + varint(2 * count) + b"\0", b"\x15\x02\x25\0\x18\x01c\0"
    group = b"\x19" + many + b"\x26\0\0" * count + b"\x16\0\x16\0\0"
    schema = b"\x19\xfc" + varint(count + 1) + root + leaf * count
    footer = b"\x15\x02" + schema + b"\x16\0" + b"\x19" + many + group * count + b"\0"
    path.write_bytes(b"PAR1" + footer + len(footer).to_bytes(4, "little") + b"PAR1")
    return path


LIES = [lied_about_long_text, lied_about_prefixes, lied_about_plain_texts]
BOMBS = [
    equal_numbers,
    long_text,
    prefixes,
    lists,
    lists_of_texts,
    missing_values,
    prefixes_in_lists,
    *LIES,
]


def test_chunks_that_nothing_describes_are_damage(tmp_path):
    """The engine takes 700 bytes for each of them."""
    path = many_chunks(tmp_path / "chunks.parquet")
    with pytest.raises(DataError, match="damaged or cut off"):
        refuse_large(path, path.name, None)


#: forks after its imports for each line, which has code and the path that it reads, and prints how much more memory
#: the child took, in KiB
MEASURED = """
import json, os, resource, sys, traceback
from pathlib import Path
from cumulant.core.errors import DataError
import polars, pyarrow.parquet, pyarrow.compute
from cumulant.data.files.reading import read
from cumulant.data.files.streaming import FileStream
from cumulant.data.spec import SourceSpec
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for line in sys.stdin:
    code, path = json.loads(line)
    if os.fork() == 0:
        before, path = peak(), Path(path)
        try:
            exec(code)
            print(peak() - before, flush=True)
        except BaseException:
            print(json.dumps(traceback.format_exc()), flush=True)
        os._exit(0)
    _, status = os.wait()
    if status:
        print(json.dumps(f"the child ended with status {status}"), flush=True)
"""


@pytest.fixture(scope="module")
def peak_of():
    """How much memory a child takes for code that reads a path, beyond its imports, in bytes."""
    line = [sys.executable, "-c", MEASURED]
    with subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:

        def measured(code, path):
            process.stdin.write(json.dumps([code, str(path)]) + "\n")
            process.stdin.flush()
            found = json.loads(process.stdout.readline())
            assert isinstance(found, int), found
            return found * 1024

        yield measured
        process.stdin.close()
        assert process.wait(60) == 0


@pytest.mark.parametrize("bomb", BOMBS)
def test_a_bomb_is_refused_before_it_is_decoded(tmp_path, bomb, peak_of):
    path = bomb(tmp_path / "bomb.parquet")
    with pytest.raises(DataError, match=r"takes more than 0\.25 GiB when it is read") as caught:
        read(path, "bomb.parquet", SourceSpec(path="bomb.parquet", memory=LIMIT))
    assert "memory: 64GiB" in caught.value.hint
    code = f"""
try:
    read(path, "bomb.parquet", SourceSpec(path="bomb.parquet", memory="{LIMIT}"))
except DataError:
    pass
"""
    assert peak_of(code, path) < 300 * MIB


@pytest.mark.parametrize("bomb", [equal_numbers, long_text, prefixes, lists_of_texts, lied_about_long_text])
def test_a_bomb_is_streamed_in_pieces_that_fit(tmp_path, bomb, peak_of):
    path = bomb(tmp_path / "bomb.parquet")
    code = """
pieces = FileStream(path, "bomb.parquet", SourceSpec(path="bomb.parquet"), rows=1_000_000).pieces()
assert next(pieces).rows.height > 0
"""
    assert peak_of(code, path) < 1000 * MIB


def test_what_is_large_and_fits_is_read(tmp_path):
    table = pa.table(
        {
            "n": pa.array(range(200_000)),
            "t": [f"text {number % 1000}" for number in range(200_000)],
            "l": [[1, 2]] * 200_000,
        }
    )
    path = tmp_path / "fine.parquet"
    pq.write_table(table, path, row_group_size=50_000)
    found = read(path, "fine.parquet", SourceSpec(path="fine.parquet", memory="64MiB"))
    assert found.equals(pl.from_arrow(table))


def test_one_long_text_among_many_short_ones_is_measured_not_guessed(tmp_path):
    """Every text as long as the longest would exceed the limit; the texts as they are do not."""
    texts = pa.DictionaryArray.from_arrays(pa.array([1, *[0] * 50_000], pa.int32()), pa.array(["a", "x" * 100_000]))
    path = write(tmp_path / "fine.parquet", pa.table({"t": texts}))
    refuse_large(path, "fine.parquet", 64 << 20)


def tags(rows, last=None):
    texts = [[f"tag{(row * 7 + number) % 1000}" for number in range(5)] for row in range(rows)]
    return pa.table({"tags": texts if last is None else [*texts, [last]]})


@pytest.mark.parametrize("codec", ["snappy", "zstd", "none"])
@pytest.mark.parametrize("version", ["1.0", "2.0"])
def test_lists_of_texts_with_prefixes_are_measured(tmp_path, codec, version):
    """Every text as long as all of its pages would exceed the limit by far."""
    encoding = {"tags.list.element": "DELTA_BYTE_ARRAY"}
    options = {"use_dictionary": False, "column_encoding": encoding, "data_page_version": version}
    pq.write_table(tags(20_000), tmp_path / "fine.parquet", compression=codec, **options)
    refuse_large(tmp_path / "fine.parquet", "fine.parquet", 8 << 20)


def test_a_list_with_one_long_text_is_measured(tmp_path):
    """Every text as long as the longest would take 20 GB."""
    pq.write_table(tags(20_000, last="x" * 200_000), tmp_path / "fine.parquet")
    refuse_large(tmp_path / "fine.parquet", "fine.parquet", 8 << 20)


def test_numbers_are_counted_once(tmp_path):
    """Besides the values, only the pages of one row group are in memory at a time."""
    numbers = random.default_rng(0).normal(size=1_000_000)
    pq.write_table(pa.table({"n": numbers}), tmp_path / "fine.parquet", use_dictionary=False, row_group_size=100_000)
    refuse_large(tmp_path / "fine.parquet", "fine.parquet", 10 << 20)
    with pytest.raises(DataError, match="takes more than"):
        refuse_large(tmp_path / "fine.parquet", "fine.parquet", 8 << 20)


@pytest.mark.parametrize("version", ["1.0", "2.0"])
@pytest.mark.parametrize("rows", [1, 33, 5000])
def test_prefixes_are_counted_as_they_are(tmp_path, version, rows):
    generator = random.default_rng(rows)
    texts = [None if number % 7 == 3 else "ab" * int(generator.integers(0, 99)) + "c" for number in range(rows)]
    path, options = tmp_path / "a.parquet", {"use_dictionary": False, "data_page_version": version}
    pq.write_table(pa.table({"a": texts}), path, column_encoding={"a": "DELTA_BYTE_ARRAY"}, **options)
    repeated, before = [], ""
    for text in filter(None, texts):
        repeated.append(sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(before, text, strict=False))))
        before = text
    with pq.ParquetFile(path) as file, path.open("rb") as stream:
        chunk = file.metadata.row_group(0).column(0)
        (page,) = [page for page in pages(stream, chunk) if page.prefixed]
        counted = prefix_bytes(stream, page, chunk.compression, file.schema.column(0))
    assert counted == (sum(repeated), max(repeated))


def test_a_table_without_rows_is_read(tmp_path):
    table = pa.table({"t": pa.array([], pa.string()), "n": pa.array([], pa.int64())})
    path = tmp_path / "empty.parquet"
    pq.write_table(table, path)
    refuse_large(path, "empty.parquet", None)
    assert read(path, "empty.parquet", SourceSpec(path="empty.parquet")).height == 0


def test_labels_are_read_in_batches_whatever_the_whole_file_takes(tmp_path):
    table = pa.table({"a": repeated("x" * 200_000, 1_000_000)})
    path = write(tmp_path / "labels.parquet", table)
    assert 0 < len(next(read_batches(path))) * 200_000 <= 256 * MIB


def test_failed_allocation_is_not_damage(tmp_path):
    with pytest.raises(DataError, match="more memory to read than is free"), arrow_errors("a is damaged", "a"):
        raise pa.ArrowMemoryError("malloc of size 9 failed")


def test_the_default_is_half_of_the_machine(tmp_path):
    path = write(tmp_path / "fine.parquet", pa.table({"n": [1, 2]}))
    refuse_large(path, "fine.parquet", None)
    assert machine_memory() > 256 * MIB
