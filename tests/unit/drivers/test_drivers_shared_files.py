"""A table that begins with rows of another one has its files, not copies of them."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import polars as pl
import pytest

from cumulant.core.errors import StorageError, UsageError
from cumulant.drivers.local import parquet
from cumulant.drivers.local.tables import FileTables
from cumulant.ports.tables import TableHead

ROWS = pl.DataFrame({"n": range(1000)})


@pytest.fixture
def tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FileTables:
    monkeypatch.setattr(parquet, "FILE_ROWS", 100)
    tables = FileTables(tmp_path.as_uri())
    tables.write("a", ROWS.iter_slices(50))
    return tables


def files(tmp_path: Path, key: str) -> list[int]:
    return [path.stat().st_ino for path in sorted((tmp_path / f"{key}.parquet").glob("*.parquet"))]


def test_whole_files_of_the_head_are_shared(tables: FileTables, tmp_path: Path) -> None:
    new = pl.DataFrame({"n": [-1, -2]})
    expected = pl.concat([ROWS[:950], new])
    tables.write("b", iter([new]), head=TableHead("a", 950))
    assert (len(files(tmp_path, "a")), len(files(tmp_path, "b"))) == (10, 10)
    assert files(tmp_path, "b")[:9] == files(tmp_path, "a")[:9]
    tables.delete("a")
    assert tables.scan("b").collect().equals(expected)
    # The last file is small, and is written again with what follows, so that there are not many small ones.
    for number in range(6):
        key, before = f"c{number}", "b" if not number else f"c{number - 1}"
        expected = pl.concat([expected, new])
        tables.write(key, iter([new]), head=TableHead(before, expected.height - 2))
        assert tables.scan(key).collect().equals(expected)
        assert files(tmp_path, key)[:9] == files(tmp_path, "b")[:9]
        assert len(files(tmp_path, key)) == 10


def test_a_file_system_without_links_has_copies(
    tables: FileTables, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object) -> None:
        raise OSError(errno.EPERM, "no links here")

    monkeypatch.setattr(os, "link", refused)
    tables.write("b", ROWS.clear(), head=TableHead("a", 1000))
    assert not set(files(tmp_path, "a")) & set(files(tmp_path, "b"))
    assert tables.scan("b").collect().equals(ROWS)


def test_a_damaged_head_is_no_beginning(tables: FileTables, tmp_path: Path) -> None:
    (tmp_path / "a.parquet" / parquet.part_name(3)).write_bytes(b"")
    with pytest.raises(StorageError, match="table a is damaged"):
        tables.write("b", ROWS, head=TableHead("a", 1000))
    with pytest.raises(UsageError, match="partitions"):
        tables.write("b", ROWS, head=TableHead("a", 1000), partition_by=["n"])
    assert tables.keys() == ["a"]
