"""The object store driver keeps the rules of its ports, over obstore's memory and local stores."""

import os
import time

import polars as pl
import pytest
from obstore.store import LocalStore, MemoryStore

from cumulant.drivers.local.objects import FileObjects
from cumulant.drivers.local.tables import FileTables
from cumulant.drivers.objectstore.bucket import Bucket
from cumulant.drivers.objectstore.files import BucketFiles
from cumulant.drivers.objectstore.objects import BucketObjects
from cumulant.drivers.objectstore.publishing import Publisher
from cumulant.drivers.objectstore.tables import BucketTables
from cumulant.testing.conformance.files import FilesConformance
from cumulant.testing.conformance.objects import ObjectsConformance
from cumulant.testing.conformance.tables import TablesConformance


def folder_tables(folder):
    return FileTables(f"file://{folder}")


def folder_objects(folder):
    return FileObjects(f"file://{folder}")


@pytest.fixture(params=["memory", "local"])
def store(request, tmp_path):
    return MemoryStore() if request.param == "memory" else LocalStore(tmp_path / "bucket", mkdir=True)


@pytest.fixture
def bucket(store):
    return Bucket(store, url="s3://bucket/")


class TestBucketTables(TablesConformance):
    @pytest.fixture
    def tables(self, bucket, tmp_path):
        return BucketTables("s3://bucket/", bucket=bucket, cache=tmp_path / "cache", embedded=folder_tables)

    @pytest.fixture
    def tables_of(self, bucket, tmp_path):
        def of(scope):
            return BucketTables(
                "s3://bucket/", bucket=bucket, scope=scope, cache=tmp_path / "cache", embedded=folder_tables
            )

        return of

    def test_another_machine_reads_it(self, bucket, tables, tmp_path):
        import polars as pl

        tables.write("a/b", pl.DataFrame({"n": [1, 2]}))
        other = BucketTables("s3://bucket/", bucket=bucket, cache=tmp_path / "other", embedded=folder_tables)
        assert other.scan("a/b").collect()["n"].to_list() == [1, 2]
        other.delete("a/b")
        other.write("a/b", pl.DataFrame({"n": [3]}))
        assert tables.scan("a/b").collect()["n"].to_list() == [3]

    def test_of_two_writers_one_wins_and_nothing_else_is_left(self, bucket, tables, tmp_path):
        import polars as pl

        other = BucketTables("s3://bucket/", bucket=bucket, cache=tmp_path / "other", embedded=folder_tables)

        def frames():
            yield pl.DataFrame({"n": [1]})
            other.write("a", pl.DataFrame({"n": [2, 2]}))

        assert tables.write("a", frames()).rows == 2
        assert tables.scan("a").collect()["n"].to_list() == [2, 2]
        assert len({entry.path.split("/")[1] for entry in bucket.entries()}) == 2  # the record and one folder


class TestBucketObjects(ObjectsConformance):
    @pytest.fixture
    def objects(self, bucket, tmp_path):
        return BucketObjects("s3://bucket/", bucket=bucket, cache=tmp_path / "cache", embedded=folder_objects)

    @pytest.fixture
    def objects_of(self, bucket, tmp_path):
        def of(scope):
            return BucketObjects(
                "s3://bucket/", bucket=bucket, scope=scope, cache=tmp_path / "cache", embedded=folder_objects
            )

        return of

    def test_what_a_killed_writer_left_in_the_cache_is_removed_and_a_living_ones_stays(self, bucket, tmp_path):
        writer, other = (Publisher(bucket, suffix=".object", cache=tmp_path / "cache") for _ in range(2))
        with writer.staging() as folder:
            killed, young = folder.with_name(".writing-killed"), folder.with_name(".writing-young")
            for path in (killed, young):
                (path / "content").mkdir(parents=True)
            for path in (killed, folder):
                os.utime(path, (0, 0))
            hour_ago = time.time() - 3600
            os.utime(young, (hour_ago, hour_ago))  # of a machine whose locks are not seen here
            with other.staging():
                left = set(folder.parent.iterdir())
                assert left >= {folder, young}
                assert killed not in left
        assert not folder.exists()


def a_table(number):
    return pl.DataFrame({"a": range(number, number + 5000)}).with_columns(pl.col("a").hash(number).alias("b"))


def reader(bucket, tmp_path, option=""):
    return BucketTables(f"s3://bucket/{option}", bucket=bucket, cache=tmp_path / "reader", embedded=folder_tables)


@pytest.fixture
def three(bucket, tmp_path):
    writer = BucketTables("s3://bucket/", bucket=bucket, cache=tmp_path / "writer", embedded=folder_tables)
    return [writer.write(f"t/{number}", a_table(number)).bytes for number in range(3)]


def copies_in(tmp_path):
    return [path for path in (tmp_path / "reader").glob("*/*") if not path.name.startswith(".")]


def age(tmp_path, seconds=7200):
    """Let the copies have been used so long ago, the earlier ones longer ago."""
    for number, path in enumerate(sorted(copies_in(tmp_path), key=lambda path: path.stat().st_mtime)):
        used = time.time() - seconds + number
        os.utime(path, (used, used))


def test_copies_of_tables_are_private_whatever_the_umask(bucket, tmp_path, three):
    bucket.create("raw/a.csv", b"a")
    before = os.umask(0)
    try:
        reader(bucket, tmp_path).scan("t/0").collect()
        files = BucketFiles("s3://bucket", bucket=bucket, cache=tmp_path / "reader")
        files.fetch(files.list("s3://bucket/raw/*.csv")[0])
    finally:
        os.umask(before)
    places = list((tmp_path / "reader").iterdir())
    assert len(places) == 2
    assert {path.stat().st_mode & 0o077 for path in places} == {0}


def test_the_longest_unused_copies_beyond_the_limit_are_removed(bucket, tmp_path, three):
    option = f"?cache={(three[0] + three[1]) * 1.25 / 1024:.2f}KiB"
    for number in range(2):
        reader(bucket, tmp_path, option).scan(f"t/{number}").collect()
    age(tmp_path)
    last = reader(bucket, tmp_path, option)
    last.scan("t/0").collect()  # used again
    last.scan("t/2").collect()
    assert len(copies_in(tmp_path)) == 2
    assert last.scan("t/1").collect().equals(a_table(1))  # fetched again


def test_copies_in_use_stay_beyond_the_limit(bucket, tmp_path, three):
    first, second = reader(bucket, tmp_path, "?cache=1KiB"), reader(bucket, tmp_path, "?cache=1KiB")
    rows = first.scan("t/0")
    age(tmp_path)
    second.scan("t/1").collect()
    second.scan("t/2").collect()
    assert rows.collect().equals(a_table(0))
    del first, second
    age(tmp_path)
    reader(bucket, tmp_path, "?cache=1KiB").scan("t/1")
    assert len(copies_in(tmp_path)) == 3  # nothing was fetched, so nothing was looked at
    last = reader(bucket, tmp_path, "?cache=1KiB")
    last.delete("t/1")
    last.scan("t/2")
    assert last.write("t/9", a_table(9))
    assert len(copies_in(tmp_path)) == 2  # the one in use, and the one that was just written


def test_without_a_cache_a_copy_ends_with_its_client(bucket, tmp_path, three):
    tables = reader(bucket, tmp_path, "?cache=0")
    rows = tables.scan("t/0")
    assert rows.collect().equals(tables.scan("t/0").collect())
    tables.write("t/7", a_table(7))
    assert tables.scan("t/7").collect().equals(a_table(7))
    assert copies_in(tmp_path) == []
    del tables
    assert list((tmp_path / "reader").glob("*/.*")) == []


def object_reader(bucket, tmp_path, option="?cache=1KiB"):
    return BucketObjects(f"s3://bucket/{option}", bucket=bucket, cache=tmp_path / "reader", embedded=folder_objects)


def test_copies_of_objects_are_bounded_and_those_that_are_open_stay(bucket, tmp_path):
    writer = BucketObjects("s3://bucket/", bucket=bucket, cache=tmp_path / "writer", embedded=folder_objects)
    for number in range(4):
        (tmp_path / "content").write_bytes(bytes([number]) * 5000)
        writer.put(f"o/{number}", tmp_path / "content")
    one, other = object_reader(bucket, tmp_path), object_reader(bucket, tmp_path)
    with one.open("o/0") as opened, one.open("o/1"):
        with one.open("o/2"):
            pass
        age(tmp_path)
        with other.open("o/3"):
            pass
        assert len(copies_in(tmp_path)) == 3, "the copy of o/2 is not open any more"
        assert opened.read_bytes() == bytes([0]) * 5000
        assert {path.stat().st_mode & 0o077 for path in (tmp_path / "reader").iterdir()} == {0}
    age(tmp_path)
    one.put("o/4", tmp_path / "content")
    assert len(copies_in(tmp_path)) == 1, "what was just written"


def test_without_a_cache_copies_of_objects_end_with_their_client(bucket, tmp_path):
    (tmp_path / "content").write_text("content")
    objects = object_reader(bucket, tmp_path, "?cache=0")
    objects.put("o", tmp_path / "content")
    with objects.open("o") as path:
        assert path.read_text() == "content"
    del objects
    assert list((tmp_path / "reader").glob("*/*")) == []


class TestBucketFiles(FilesConformance):
    @pytest.fixture
    def files(self, bucket, tmp_path):
        return BucketFiles("s3://bucket", bucket=bucket, cache=tmp_path / "cache")

    @pytest.fixture
    def base(self):
        return "s3://bucket/"

    @pytest.fixture
    def write(self, store):
        return store.put

    @pytest.fixture
    def remove(self, store):
        return store.delete
