"""Parquet files of a few kilobytes that stand for gigabytes: refused from their footer, or read in small pieces."""

import subprocess
import sys

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cumulant.core.errors import DataError
from cumulant.core.memory import machine_memory
from cumulant.data.parquet_memory import refuse_large
from cumulant.data.sources import read
from cumulant.data.spec import SourceSpec

MIB = 1 << 20
LIMIT = "256MiB"
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="measures a child's memory")


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


BOMBS = [equal_numbers, long_text, prefixes, lists, lists_of_texts, missing_values]


def peak_of(code, *arguments):
    """How much memory a child takes for `code` beyond its imports, in bytes."""
    measured = f"""
import resource, sys
from cumulant.core.errors import DataError
import polars, pyarrow.parquet, pyarrow.compute
from cumulant.data.sources import read
from cumulant.data.streaming import Stream
from cumulant.data.spec import SourceSpec
from pathlib import Path
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
before = peak()
path = Path(sys.argv[1])
{code}
print(peak() - before)
"""
    done = subprocess.run(
        [sys.executable, "-c", measured, *map(str, arguments)], check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return int(done.stdout.split()[-1]) * 1024


@pytest.mark.parametrize("bomb", BOMBS)
def test_a_bomb_is_refused_before_it_is_decoded(tmp_path, bomb):
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


@pytest.mark.parametrize("bomb", [equal_numbers, long_text, prefixes, lists_of_texts])
def test_a_bomb_is_streamed_in_pieces_that_fit(tmp_path, bomb):
    path = bomb(tmp_path / "bomb.parquet")
    code = """
pieces = Stream(path, "bomb.parquet", SourceSpec(path="bomb.parquet"), rows=1_000_000).pieces()
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
    refuse_large(path, "fine.parquet", "64MiB")


def test_the_default_is_half_of_the_machine(tmp_path):
    path = write(tmp_path / "fine.parquet", pa.table({"n": [1, 2]}))
    refuse_large(path, "fine.parquet", None)
    assert machine_memory() > 256 * MIB
