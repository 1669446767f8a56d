"""Parquet files whose footer pyarrow cannot describe: refused in words, and never the end of the process."""

import base64
import random
import subprocess
import sys

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow.parquet import encryption

from cumulant.core.errors import DataError
from cumulant.data.files.reading import read
from cumulant.data.files.streaming import FileStream
from cumulant.data.formats.parquet_footer import chunks
from cumulant.data.formats.parquet_memory import refuse_large
from cumulant.data.spec import SourceSpec
from cumulant.outcomes.labels.label_files import read_batches

TABLE = pa.table({"a": list(range(100)), "s": [f"x{number}" for number in range(100)]})
SPEC = SourceSpec(path="a.parquet")
CHILD = """
import sys
from pathlib import Path
from cumulant.core.errors import DataError
from cumulant.data.files.reading import read
from cumulant.data.spec import SourceSpec
from cumulant.data.files.streaming import FileStream
from cumulant.outcomes.labels.label_files import read_batches

def attempt(path, reading):
    try:
        reading()
    except DataError as error:
        print(path.name, error.message, error.hint, sep="|", flush=True)

for path in map(Path, sys.argv[1:]):
    spec = SourceSpec(path=path.name)
    attempt(path, lambda: read(path, path.name, spec))
    attempt(path, lambda: list(FileStream(path, path.name, spec, rows=50).pieces()))
    attempt(path, lambda: list(read_batches(path)))
print("done")
"""


class Keys(encryption.KmsClient):
    def wrap_key(self, key, _):
        return base64.b64encode(key)

    def unwrap_key(self, key, _):
        return base64.b64decode(key)


def encrypted(path, *, plaintext_footer):
    settings = encryption.EncryptionConfiguration(
        footer_key="k", column_keys={"k": ["s"]}, plaintext_footer=plaintext_footer
    )
    factory = encryption.CryptoFactory(lambda _: Keys())
    keys = factory.file_encryption_properties(encryption.KmsConnectionConfig(), settings)
    with pq.ParquetWriter(path, TABLE.schema, encryption_properties=keys) as out:
        out.write_table(TABLE)
    return path


def with_footer(path, change):
    """`path` with `change` made to the bytes of its footer, which must keep their number."""
    whole = path.read_bytes()
    start = len(whole) - 8 - int.from_bytes(whole[-8:-4], "little")
    path.write_bytes(whole[:start] + change(whole[start:-8]) + whole[-8:])
    return path


def wrong_histogram(path):
    """The size statistics' histogram of repetition levels has another length than the schema has levels."""
    pq.write_table(pa.table({"l": [[1, 2], [], None] * 30}), path, store_schema=False)

    def change(footer):
        # a list of two numbers (90 and 30) as one of three, in as many bytes
        right, wrong = b"\x29\x26\xb4\x01\x3c", b"\x29\x36\x34\x01\x3c"
        assert footer.count(right) == 1
        return footer.replace(right, wrong)

    return with_footer(path, change)


def in_a_child(*paths):
    """What three ways of reading the files say; the child must not end early."""
    done = subprocess.run([sys.executable, "-c", CHILD, *map(str, paths)], check=False, capture_output=True, text=True)
    assert done.returncode == 0, (done.returncode, done.stderr[-2000:])
    *lines, last = done.stdout.splitlines()
    assert last == "done"
    return lines


def test_an_encrypted_column_is_refused_in_words(tmp_path):
    lines = in_a_child(encrypted(tmp_path / "a.parquet", plaintext_footer=True))
    assert len(lines) == 3
    assert all("the column s is encrypted|write it again without encryption" in line for line in lines)


def test_the_other_columns_of_such_a_file_are_streamed(tmp_path):
    path = encrypted(tmp_path / "a.parquet", plaintext_footer=True)
    [piece] = FileStream(path, "a.parquet", SPEC, rows=1000).pieces(["a"])
    assert piece.rows["a"].to_list() == list(range(100))


def test_an_encrypted_footer_is_refused_in_words(tmp_path):
    lines = in_a_child(encrypted(tmp_path / "a.parquet", plaintext_footer=False))
    assert len(lines) == 3
    assert all("is encrypted|write it again without encryption" in line for line in lines)
    assert not any("column" in line or "damaged" in line for line in lines)


def test_damaged_footers_do_not_end_the_process(tmp_path):
    generator = random.Random(7)
    paths = [wrong_histogram(tmp_path / "histogram.parquet")]
    for number in range(60):
        path = tmp_path / f"{number}.parquet"
        pq.write_table(TABLE, path, store_schema=False, row_group_size=50)
        places = [generator.random() for _ in range(generator.choice([1, 2, 8]))]

        def change(footer, places=places):
            content = bytearray(footer)
            for place in places:
                content[int(place * len(content))] = generator.randrange(256)
            return bytes(content)

        paths.append(with_footer(path, change))
    assert in_a_child(*paths)


def test_names_that_are_not_utf8_are_refused_in_words(tmp_path):
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"name": [1, 2]}), path, store_schema=False)
    with_footer(path, lambda footer: footer.replace(b"name", b"na\xffe"))
    readings = (
        lambda: read(path, "a.parquet", SPEC),
        lambda: list(FileStream(path, "a.parquet", SPEC, rows=9).pieces()),
        lambda: list(read_batches(path)),
    )
    for reading in readings:
        with pytest.raises(DataError, match="has a column name or a text that is not UTF-8") as caught:
            reading()
        assert "names and texts in UTF-8" in caught.value.hint


@pytest.mark.parametrize("codec", ["none", "snappy", "gzip", "brotli", "lz4", "zstd"])
def test_chunks_are_those_that_pyarrow_describes(tmp_path, codec):
    table = pa.table({"a": [1, 2, None] * 10, "l": [["x"], [], ["y", "z"]] * 10, "b": [True] * 30})
    path = tmp_path / "a.parquet"
    pq.write_table(table, path, compression=codec, row_group_size=9, use_dictionary=["l.list.element"])
    described = pq.read_metadata(path)
    with path.open("rb") as stream:
        found = list(chunks(stream, "a.parquet"))
    assert [(one.group, one.column) for one in found] == [(group, column) for group in range(4) for column in range(3)]
    for one in found:
        right = described.row_group(one.group).column(one.column)
        for name in ("compression", "num_values", "total_compressed_size", "data_page_offset"):
            assert getattr(one, name) == getattr(right, name)
        assert one.dictionary_page_offset == (right.dictionary_page_offset or 0)


def test_more_than_fifteen_columns_are_counted(tmp_path):
    """Lists of 15 elements or more have their length in bytes of their own."""
    path = tmp_path / "a.parquet"
    pl.DataFrame({f"c{number}": [number] for number in range(200)}).write_parquet(path)
    with path.open("rb") as stream:
        assert [one.column for one in chunks(stream, "a.parquet")] == list(range(200))
    refuse_large(path, "a.parquet", None)
