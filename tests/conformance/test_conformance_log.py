"""The drivers of the port `log` keep its rules: files, and an object store over obstore's memory and local stores."""

import os
import stat
import threading
import time

import pytest
from obstore.store import LocalStore, MemoryStore

from cumulant.core.errors import StorageError, UsageError
from cumulant.drivers.local.log import FileLog
from cumulant.drivers.objectstore.bucket import Bucket
from cumulant.drivers.objectstore.log import BucketLog
from cumulant.ports.log import LogCursor, PartInfo
from cumulant.testing.conformance.gaps import Gap
from cumulant.testing.conformance.log import LogAddress, LogConformance
from cumulant.testing.log import DAY, append_lines, lines_of, write_parts


class TestFileLog(LogConformance):
    @pytest.fixture
    def log(self, address):
        return FileLog(address.url)

    @pytest.fixture
    def address(self, tmp_path):
        return LogAddress("cumulant.drivers.local.log:FileLog", f"file://{tmp_path / 'log'}")

    def test_what_a_killed_writer_left_is_removed_after_an_hour(self, log, tmp_path):
        write_parts(log, "a", [1], days=1)
        folder = tmp_path / "log" / f"date={DAY}"
        old, young = folder / ".a-000002.writing", folder / ".a-000003.writing"
        for path in (old, young):
            path.write_bytes(b"half")
        os.utime(old, (time.time() - 7200, time.time() - 7200))
        with log.maintenance():
            assert not old.exists()
            assert young.exists()
        assert [part.first for part in log.parts(DAY)] == [1]

    def test_a_folder_that_cannot_be_written(self, tmp_path):
        (tmp_path / "file").write_text("")
        log = FileLog(f"file://{tmp_path / 'file'}")
        with pytest.raises(StorageError):
            append_lines(log, PartInfo(DAY, "a", 1, 1), ["x"])


class TestBucketLog(LogConformance):
    """Over a store of files, which several processes can open."""

    @pytest.fixture
    def log(self, address, tmp_path):
        (tmp_path / "bucket").mkdir()
        bucket = Bucket(LocalStore(tmp_path / "bucket", automatic_cleanup=True), url=address.url)
        return BucketLog(address.url, bucket=bucket, cache=tmp_path / "cache")

    @pytest.fixture
    def address(self, tmp_path, monkeypatch):
        monkeypatch.setenv("HOME", str(tmp_path / "home"))
        return LogAddress("cumulant.drivers.objectstore.log:BucketLog", f"file://{tmp_path / 'bucket'}")

    def test_copies_are_private_and_bounded(self, log, tmp_path, address):
        small = BucketLog(
            address.url,
            bucket=Bucket(LocalStore(tmp_path / "bucket", automatic_cleanup=True), url="x"),
            cache=tmp_path / "small",
            cache_bytes=500,
        )
        for number in range(1, 11):
            append_lines(small, PartInfo(DAY, "a", number, number), ["x" * 99])
        parts = small.parts(DAY)
        assert len(lines_of(small, parts)) == 10
        (folder,) = (tmp_path / "small").iterdir()
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        copies = list(folder.iterdir())
        assert len(copies) == 5
        assert {stat.S_IMODE(path.stat().st_mode) for path in copies} == {0o600}
        assert len(lines_of(small, parts)) == 10

    def test_copies_can_be_switched_off(self, log, tmp_path, address):
        write_parts(log, "a", range(1, 4), days=1)
        none = BucketLog(
            f"{address.url}?cache=0",
            bucket=Bucket(LocalStore(tmp_path / "bucket", automatic_cleanup=True), url="x"),
            cache=tmp_path / "none",
        )
        assert len(lines_of(none, none.parts(DAY))) == 9
        (folder,) = (tmp_path / "none").iterdir()
        assert list(folder.iterdir()) == []

    def test_an_option_that_there_is_not(self, tmp_path):
        with pytest.raises(UsageError, match="keep"):
            BucketLog("s3://bucket/logs?keep=3", bucket=Bucket(MemoryStore(), url="x"), cache=tmp_path)

    def test_a_part_is_fetched_once(self, log, tmp_path):
        write_parts(log, "a", [1], days=1)
        part = log.parts(DAY)[0]
        first = lines_of(log, [part])
        log.delete([part])
        assert lines_of(log, [part]) == first

    def test_parts_are_fetched_at_once_before_they_are_opened(self, log, monkeypatch):
        write_parts(log, "a", range(1, 5), days=1)
        parts = log.parts(DAY)
        waiting, download = threading.Barrier(len(parts), timeout=60), Bucket.download

        def awaited(*arguments):
            waiting.wait()
            return download(*arguments)

        log.delete(parts[:1])
        monkeypatch.setattr(Bucket, "download", awaited)
        log.prefetch(parts)
        monkeypatch.undo()
        log.delete(parts)
        assert len(lines_of(log, parts[1:])) == 9
        with pytest.raises(FileNotFoundError):
            log.open(parts[0])

    @pytest.mark.parametrize("damage", [b"", b"short", None])
    def test_a_damaged_copy_does_not_damage_the_log(self, log, tmp_path, damage):
        write_parts(log, "a", [1, 2], days=1)
        parts = log.parts(DAY)
        whole = lines_of(log, parts)
        for path in (path for path in (tmp_path / "cache").rglob("*") if path.is_file()):
            path.write_bytes(bytes(path.stat().st_size) if damage is None else damage)
        if damage is None:  # as long as the part: only who reads it notices
            log.set_aside(parts[0])
            log.set_aside(parts[1])
        assert log.parts(DAY) == parts
        assert lines_of(log, parts) == whole
        log.set_aside(parts[0])  # what the bucket holds is damaged itself
        assert log.parts(DAY) == parts[1:]

    def test_maintenance_goes_on_after_a_kill(self, log, tmp_path, monkeypatch):
        lost = log.maintenance()
        assert lost.__enter__()
        now = time.monotonic()
        monkeypatch.setattr("cumulant.drivers.objectstore.log.time.monotonic", lambda: now)
        with log.maintenance() as mine:
            assert not mine
        now += 899
        with log.maintenance() as mine:
            assert not mine
        now += 1
        with log.maintenance() as mine:
            assert mine
        lost.__exit__(None, None, None)


class TestMemoryBucketLog(LogConformance):
    gaps = {"processes": Gap(reason="the store is in the memory of this process", raises=StorageError)}  # noqa: RUF012

    @pytest.fixture
    def log(self, tmp_path):
        return BucketLog("memory://", bucket=Bucket(MemoryStore(), url="memory://"), cache=tmp_path / "cache")

    @pytest.fixture
    def address(self):
        return LogAddress("", "")


def test_a_cursor_joins_neighbours_only():
    cursor = LogCursor()
    for first, last in ((1, 3), (7, 9), (4, 5), (20, 20), (6, 6)):
        cursor.add(PartInfo(DAY, "a", first, last))
    assert cursor.intervals == {f"{DAY}/a": [(1, 9), (20, 20)]}
    assert cursor.includes(PartInfo(DAY, "a", 2, 8))
    assert not cursor.includes(PartInfo(DAY, "a", 9, 10))
    assert not cursor.includes(PartInfo(DAY, "b", 2, 8))
    assert LogCursor.parse(cursor.text).intervals == cursor.intervals
