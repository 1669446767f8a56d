"""The object store driver keeps the rules of its ports, over obstore's memory and local stores."""

import os
import time

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
