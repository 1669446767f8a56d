"""Faults while files are packed: a killed process and a full disk leave the last snapshot, and the next run ends it."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from pathlib import Path

import msgspec
import numpy as np
import polars as pl
import pytest

from cumulant.core.errors import StorageError
from cumulant.data.snapshot import scan
from cumulant.drivers.local.tables import FileTables

WORKER = Path(__file__).with_name("ingest_worker.py")


def rows(first: int, count: int) -> pl.DataFrame:
    return pl.DataFrame({"id": range(first, first + count), "x": np.random.default_rng(first).random(count)})


@pytest.mark.slow
def test_a_process_that_is_killed_while_parts_are_put_together_leaves_the_last_snapshot(place, tmp_path):
    """At any moment: before, between and after each table of the new pack is stored."""
    last = None
    for n in range(15):
        place.write(f"in/{n:02}.parquet", rows(4 * n, 4))
        last = place.ingest(path="in", key="id", previous=last)
    assert len(last.parts) == 15
    place.write("in/15.parquet", rows(59, 5))  # its first row repeats a key of the file before
    previous, tables = tmp_path / "previous.json", tmp_path / "tables"
    previous.write_bytes(msgspec.json.encode(last))
    saved = tmp_path / "saved"
    shutil.copytree(tables, saved)
    expected = place.ingest(path="in", key="id", previous=last, quarantine="10%")
    assert len(expected.parts) == 1
    values = scan(expected, place.tables).collect()
    killed = 0
    for moment in (1, 5, 11, 17, 25):
        shutil.rmtree(tables)
        shutil.copytree(saved, tables)
        command = [sys.executable, str(WORKER), str(place.root), str(tables), str(previous), str(moment)]
        killed += subprocess.run(command, check=False, capture_output=True).returncode == -signal.SIGKILL
        assert scan(last, place.tables).select("id").collect().to_series().to_list() == list(range(60))
        again = place.ingest(path="in", key="id", previous=last, quarantine="10%")
        assert msgspec.structs.replace(again, accepted=expected.accepted) == expected
        assert scan(again, place.tables).collect().equals(values)
    assert killed >= 3


@pytest.fixture
def mounted(tmp_path):
    """Tables on a file system of 2 MiB, and a way to make it larger."""
    folder = tmp_path / "small"
    folder.mkdir()

    def mount(*options: str) -> bool:
        command = ["mount", "-t", "tmpfs", "-o", ",".join(options), "tmpfs", str(folder)]
        return subprocess.run(command, check=False, capture_output=True).returncode == 0

    if not mount("size=1m"):
        pytest.skip("a file system cannot be mounted here: run as root")
    yield FileTables(folder.as_uri()), lambda: mount("remount", "size=64m")
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk_leaves_nothing_half_packed(place, mounted):
    place.tables, enlarge = mounted
    for n in range(20):
        place.write(f"in/{n:02}.parquet", rows(100 * n, 100))
    first = place.ingest(path="in", key="id")
    for n in range(20, 60):
        place.write(f"in/{n:02}.parquet", rows(100_000 * n, 5000))
    with pytest.raises(StorageError, match="full"):
        place.ingest(path="in", key="id", previous=first)
    assert place.rows(first, "id") == [(n,) for n in range(2000)]
    assert enlarge()
    second = place.ingest(path="in", key="id", previous=first)
    assert (second.rows_passed, len(second.parts)) == (202_000, 2)
    assert place.rows(second, "id")[:2000] == place.rows(first, "id")
