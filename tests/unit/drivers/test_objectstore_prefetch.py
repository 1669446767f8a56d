"""Parts of a log in a bucket that are fetched before they are opened: what is taken, kept, and left to `open`."""

import contextlib
import os
import resource
import signal
import subprocess
import sys
import threading

import pytest
from test_objectstore_faults import answering

from cumulant.core.errors import EngineUnavailableError, StorageError
from cumulant.ports.log import PartInfo
from cumulant.testing.log import DAY

memory = pytest.importorskip("obstore.store", reason='pip install "cumulant[objects]"').MemoryStore

#: prints by how many KiB the process grew at most while it fetched parts from the store at an address
FETCH = """
import sys
from pathlib import Path
from cumulant.drivers.objectstore.log import BucketLog
from cumulant.ports.log import PartInfo
from cumulant.testing.log import DAY
from cumulant.testing.secrets import MemorySecrets

def highest():
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1])

address, folder, count, size = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
names = {"AWS_REGION": "r", "AWS_SKIP_SIGNATURE": "true", "AWS_ENDPOINT_URL": address}
log = BucketLog("s3://bucket/log", secrets=MemorySecrets(names), cache=folder)
before = highest()
log.prefetch([PartInfo(DAY, "a", number, number, bytes=size, stamp="1") for number in range(1, count + 1)])
assert sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) == count * size
print(highest() - before)
"""


@pytest.fixture
def make(tmp_path, monkeypatch):
    """Makes a log of the store of a test, with a limit of its copies, and parts of the sizes given."""
    from cumulant.drivers.objectstore.bucket import Bucket
    from cumulant.drivers.objectstore.log import BucketLog

    store = memory()

    def make(limit=1 << 20, *, sizes=(), cache="cache"):
        bucket = Bucket(store, "memory://")
        log = BucketLog("memory://", bucket=bucket, cache=tmp_path / cache, cache_bytes=limit)
        for number, size in enumerate(sizes, 1):
            write(log, number, size)
        return log

    return make


@pytest.fixture
def downloads(monkeypatch):
    """The keys that are fetched, and the bytes under way at each begin; `wait` is called within each fetch."""
    from cumulant.drivers.objectstore.bucket import Bucket

    return Downloads(monkeypatch, Bucket)


class Downloads:
    def __init__(self, monkeypatch, bucket):
        self.keys, self.under_way, self.wait = [], [], lambda key: None
        self._bytes, self._lock, self._download = 0, threading.Lock(), bucket.download
        monkeypatch.setattr(bucket, "download", lambda *arguments: self.fetch(*arguments))  # noqa: PLW0108 - binds

    def fetch(self, bucket, key, target):
        size = bucket.head(key).bytes
        with self._lock:
            self.keys.append(key)
            self._bytes += size
            self.under_way.append(self._bytes)
        try:
            self.wait(key)
            return self._download(bucket, key, target)
        finally:
            with self._lock:
                self._bytes -= size


def write(log, number, size, *, day=DAY):
    with log.append(PartInfo(day, "a", number, number)) as stream:
        stream.write(bytes([number % 251]) * size)


def read(log, parts):
    contents = []
    for part in parts:
        with log.open(part) as stream:
            contents.append(stream.read())
    return contents


def copies(tmp_path, cache="cache"):
    (folder,) = (tmp_path / cache).iterdir()
    return sorted(path.name for path in folder.iterdir())


def total_bytes(folder):
    """The bytes of the files in a folder where other threads rename files meanwhile."""
    total = 0
    for path in folder.iterdir():
        with contextlib.suppress(FileNotFoundError):  # it was renamed after it was listed
            total += path.stat().st_size
    return total


def limit_bytes_under_way(monkeypatch, size):
    monkeypatch.setattr("cumulant.drivers.objectstore.log._FETCH_BYTES", size)


def test_bytes_under_way_are_bounded(make, downloads, monkeypatch):
    limit_bytes_under_way(monkeypatch, 300)
    log = make(sizes=[100] * 9)
    three = threading.Barrier(3, timeout=60)
    downloads.wait = lambda key: three.wait()
    log.prefetch(log.parts(DAY))
    assert len(downloads.keys) == 9
    assert max(downloads.under_way) == 300


def test_a_part_beyond_the_bound_is_fetched_alone(make, downloads, monkeypatch):
    limit_bytes_under_way(monkeypatch, 300)
    log = make(sizes=[100, 1000, 100, 200, 100])
    log.prefetch(log.parts(DAY))
    assert len(downloads.keys) == 5
    assert downloads.under_way[1] == 1000
    assert max(downloads.under_way) == 1000


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_is_bounded(tmp_path):
    count, size = 12, 16 << 20
    with answering(200, bytes(size)) as address:
        command = [sys.executable, "-c", FETCH, address, str(tmp_path), str(count), str(size)]
        grown = int(subprocess.run(command, check=True, capture_output=True, timeout=120, text=True).stdout)
    assert grown < 100 << 10


def test_a_part_without_room_does_not_keep_others_from_being_fetched(make, downloads):
    log = make(100, sizes=[60, *[1] * 9])
    parts = log.parts(DAY)
    log.prefetch(parts)
    assert sorted(downloads.keys) == sorted(part.key for part in parts[1:])


def test_copies_that_will_be_read_are_not_evicted_for_others(make, downloads):
    log = make(440, sizes=[40] * 10)
    parts = log.parts(DAY)
    read(log, parts[:3])
    for number in range(20, 28):
        write(log, number, 40)
    read(log, [part for part in log.parts(DAY) if part.first >= 20])  # they are newer, and fill the limit
    downloads.keys.clear()
    log.prefetch(parts[:5])
    read(log, parts[:5])
    assert sorted(downloads.keys) == [part.key for part in parts[3:5]]


def test_copies_remain_within_the_limit(make, downloads, tmp_path):
    log = make(440, sizes=[40] * 20)
    read(log, log.parts(DAY)[10:])
    (folder,) = (tmp_path / "cache").iterdir()
    most = []
    downloads.wait = lambda key: most.append(total_bytes(folder))
    log.prefetch(log.parts(DAY)[:5])
    assert len(most) == 5
    assert max(most) <= 440


def test_the_folder_of_copies_is_listed_once(make, monkeypatch):
    log = make(sizes=[10] * 50)
    parts, scans, scan = log.parts(DAY), [], os.scandir
    monkeypatch.setattr(os, "scandir", lambda *arguments: scans.append(arguments) or scan(*arguments))
    log.prefetch(parts)
    assert len(scans) == 1


def test_copies_of_replaced_contents_are_deleted(make, tmp_path):
    here, elsewhere = make(sizes=[10] * 3), make(cache="elsewhere")
    parts = here.parts(DAY)
    here.prefetch(parts)
    before = copies(tmp_path)
    for part in parts[:2]:
        with elsewhere.replace(part) as stream:
            stream.write(b"erased")
    here.prefetch(here.parts(DAY))
    after = copies(tmp_path)
    assert len(after) == 3
    assert len(set(before) & set(after)) == 1
    assert read(here, here.parts(DAY)) == [b"erased", b"erased", bytes([3]) * 10]


def test_a_part_that_cannot_be_fetched_is_reported_when_it_is_opened(make, downloads):
    def refuse(key):
        if key == parts[2].key:
            raise StorageError("archived")

    log = make(sizes=[10] * 6)
    parts = log.parts(DAY)
    downloads.wait = refuse
    log.prefetch(parts)
    assert len(read(log, [*parts[:2], *parts[3:]])) == 5
    with pytest.raises(StorageError, match="archived"):
        log.open(parts[2])


def test_a_store_that_does_not_answer_is_not_called_for_each_part(make, downloads, monkeypatch):
    def refuse(key):
        raise EngineUnavailableError("the object store does not answer")

    limit_bytes_under_way(monkeypatch, 40)
    log = make(sizes=[10] * 100)
    downloads.wait = refuse
    log.prefetch(log.parts(DAY))
    assert 1 <= len(downloads.keys) <= 4


def test_a_copy_that_cannot_be_written_is_an_error_of_this_machine(make):
    log = make(sizes=[100_000])
    (part,) = log.parts(DAY)
    before, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
        with pytest.raises(StorageError, match="cannot be kept on this machine: File too large"):
            log.open(part)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
