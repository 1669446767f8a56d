"""A full disk and a read-only one, on file systems mounted for the test."""

import resource
import signal
import subprocess
from typing import ClassVar

import numpy as np
import polars as pl
import pytest

from cumulant.core.errors import StorageError
from cumulant.core.events import Actor, Fact
from cumulant.core.scope import Scope
from cumulant.drivers.local.journal import SqliteJournal
from cumulant.drivers.local.objects import FileObjects
from cumulant.drivers.local.online import SqliteOnline
from cumulant.drivers.local.tables import FileTables
from cumulant.flows.ledger.ledger import Ledger
from cumulant.flows.ledger.ledger_records import runs
from cumulant.flows.ledger.run_events import verify

ADA = Actor("user:ada")


class Happened(Fact, frozen=True, kw_only=True):
    kind: ClassVar[str] = "test.happened"
    text: str


@pytest.fixture
def mounted(tmp_path):
    """A file system of 4 MiB, and a way to mount it again with other options."""
    folder = tmp_path / "small"
    folder.mkdir()

    def mount(*options):
        return subprocess.run(
            ["mount", "-t", "tmpfs", "-o", ",".join(options), "tmpfs", str(folder)], check=False, capture_output=True
        )

    if mount("size=4m").returncode != 0:
        pytest.skip("a file system cannot be mounted here: run as root")
    yield folder, lambda *options: mount("remount", *options).check_returncode()
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.fixture
def small(mounted):
    return mounted[0]


def noise(rows):
    return pl.DataFrame({"x": np.random.default_rng(0).random(rows)})


FEW = noise(1000)


@pytest.mark.parametrize(
    "write",
    [
        lambda tables: tables.write("big", noise(2_000_000)),
        lambda tables: tables.write("big", noise(2_000_000).lazy()),
        lambda tables: tables.write("big", (noise(1_100_000) for _ in range(2))),
        lambda tables: tables.write("big", noise(2_000_000).with_columns(key=pl.lit(1)), partition_by=["key"]),
    ],
    ids=["frame", "lazy", "parts", "partitions"],
)
def test_a_table_on_a_full_disk(small, write):
    tables = FileTables(f"file://{small}/tables")
    tables.write("few", FEW)
    with pytest.raises(StorageError, match="the disk is full") as caught:
        write(tables)
    assert caught.value.hint == "free some space"
    assert tables.keys() == ["few"]
    assert tables.find("big") is None
    assert list((small / "tables" / ".writing").iterdir()) == []
    assert tables.scan("few").collect().equals(FEW)
    assert tables.write("big", FEW).rows == 1000


def test_an_object_on_a_full_disk(small, tmp_path):
    source = tmp_path / "big.bin"
    source.write_bytes(b"x" * 8_000_000)
    objects = FileObjects(f"file://{small}/objects")
    with pytest.raises(StorageError, match="the disk is full"):
        objects.put("big", source)
    assert objects.keys() == []
    source.write_bytes(b"x")
    assert objects.put("big", source).bytes == 1


def fill(journal):
    while True:
        with journal.transaction(actor=ADA) as tx:
            row = tx.get("count", "all")
            tx.put("count", "all", {"n": (row.value["n"] if row else 0) + 1})
            tx.emit(Happened(text="x" * 50_000))


def test_a_journal_on_a_full_disk(small):
    journal = SqliteJournal(f"sqlite://{small}/journal.db")
    with pytest.raises(StorageError, match="journal"):
        fill(journal)
    count = journal.get("count", "all").value["n"]
    assert count > 1
    assert journal.head().seq == count
    assert verify(journal).breaks == []
    journal.close()
    again = SqliteJournal(f"sqlite://{small}/journal.db")
    assert again.head().seq == count


def test_online_state_on_a_full_disk(small):
    online = SqliteOnline(f"sqlite://{small}/online.db")
    online.put("cards", [(b"1", b"old")])
    with pytest.raises(StorageError, match="online store"):
        online.swap("cards", ((b"%d" % number, b"x" * 1000) for number in range(100_000)))
    assert online.get("cards", [b"1", b"2"]) == [b"old", None]


def test_a_step_on_a_full_disk_goes_on_when_there_is_space(small, mounted):
    journal = SqliteJournal(f"sqlite://{small}/journal.db")
    tables = FileTables(f"file://{small}/tables")

    def work(rows):
        return lambda: {"rows": tables.write(f"t{rows}", noise(rows)).rows}

    def flow():
        with Ledger.open(journal, flow="test", actor=ADA) as ledger:
            few = ledger.step("few", 1, work(1000))
            return few.reused, ledger.step("many", 2, work(700_000)).reused

    with pytest.raises(StorageError, match="the disk is full"):
        flow()
    mounted[1]("size=32m")
    assert flow() == (True, False)
    assert [run.status for run in runs(journal)] == ["done", "failed"]
    assert verify(journal).breaks == []


def test_a_read_only_disk(mounted, tmp_path):
    small, remount = mounted
    tables, objects = FileTables(f"file://{small}/tables"), FileObjects(f"file://{small}/objects")
    journal = SqliteJournal(f"sqlite://{small}/journal.db")
    tables.write("few", FEW)
    with journal.transaction(actor=ADA) as tx:
        tx.put("step", "a", {"n": 1})
    journal.close()
    remount("ro")
    source = tmp_path / "a.txt"
    source.write_text("x")
    with pytest.raises(StorageError, match="read-only"):
        tables.write("more", FEW)
    with pytest.raises(StorageError, match="read-only"):
        objects.put("a", source)
    with pytest.raises(StorageError, match="read-only"):
        tables.delete("few")
    with pytest.raises(StorageError, match="journal"), journal.transaction(actor=ADA) as tx:
        tx.put("step", "a", {"n": 2})
    with pytest.raises(StorageError, match="online store"):
        SqliteOnline(f"sqlite://{small}/online.db").put("cards", [(b"1", b"x")])
    with pytest.raises(StorageError, match="cannot be made"):
        SqliteJournal(f"sqlite://{small}/new/journal.db").rows("step")
    assert tables.scan("few").collect().equals(FEW)
    assert journal.get("step", "a").value == {"n": 1}
    remount("rw")
    assert journal.get("step", "a").value == {"n": 1}


def test_a_journal_on_a_read_only_disk_is_read(mounted):
    small, remount = mounted
    journal = SqliteJournal(f"sqlite://{small}/journal.db", scope=Scope(project="shop"))
    with journal.transaction(actor=ADA) as tx:
        tx.put("step", "a", {"n": 1})
        tx.emit(Happened(text="x"))
    assert not journal.frozen
    journal.close()
    remount("ro")
    assert journal.frozen
    assert [row.key for row in journal.rows("step")] == ["a"]
    assert [event.data for event in journal.events()] == [{"text": "x"}]
    assert verify(journal).breaks == []
    with pytest.raises(StorageError, match="can be read but not written"), journal.transaction(actor=ADA) as tx:
        tx.put("step", "b", {"n": 2})

    copy = journal.aside()
    with copy.transaction(actor=ADA) as tx:
        tx.put("step", "b", {"n": 2})
        assert tx.emit(Happened(text="y")).project == "shop"
    assert verify(copy).breaks == []
    copy.close()
    assert journal.get("step", "b") is None
    # Writable again, the same object writes.
    remount("rw")
    with journal.transaction(actor=ADA) as tx:
        tx.put("step", "c", {"n": 3})
    assert journal.get("step", "c").version == 1


def test_a_journal_that_was_cut_off_is_not_taken_for_whole(mounted):
    small, remount = mounted
    journal = SqliteJournal(f"sqlite://{small}/journal.db")
    with journal.transaction(actor=ADA) as tx:
        tx.put("step", "a", {"n": 1})
    # As a killed process leaves it: what was committed last still lies in the file beside.
    wal = (small / "journal.db-wal").read_bytes()
    assert wal
    journal.close()
    (small / "journal.db-wal").write_bytes(wal)
    remount("ro")
    assert not journal.frozen
    with pytest.raises(StorageError, match="journal"):
        journal.rows("step")


def test_a_table_that_may_not_grow_is_a_storage_error(tmp_path):
    tables = FileTables(f"file://{tmp_path}/tables")
    before, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    frame = pl.DataFrame({"x": np.random.default_rng(1).normal(size=100_000)})
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
        for rows in (frame, iter([frame])):
            with pytest.raises(StorageError, match="table t cannot be stored"):
                tables.write("t", rows)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
