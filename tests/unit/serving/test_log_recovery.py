"""Journals that a killed log process left: those that another process makes or removes, damaged ones, other releases."""

import asyncio
import fcntl
import os
import subprocess
import zlib

import msgspec
import pytest
from journal_support import DAY, NOON, journaled, journals, parts_of
from log_support import end, entry, ids, running

from cumulant.serving.prediction_log.confirmations import Workers
from cumulant.serving.prediction_log.confirmed_client import ConfirmedClient
from cumulant.serving.prediction_log.storage import log_folder as place
from cumulant.serving.prediction_log.storage import part_writer as parts_module
from cumulant.serving.prediction_log.storage.journal import RECORD
from cumulant.serving.prediction_log.storage.part_writer import DAY_US
from cumulant.serving.prediction_log.storage.recovery import newest_number, recover
from cumulant.serving.prediction_log.storage.retention import upkeep
from cumulant.testing.log import folder_log


@pytest.fixture
def where(tmp_path):
    return tmp_path / "log.sock", tmp_path / "log"


# Journals that two processes see


def content_of(folder):
    (journal,) = journals(folder)
    return journal, journal.read_bytes()


def dropped(parts):
    """As a kill: nobody writes the journals any more."""
    for part in parts.take():
        os.close(part.journal._file)


def test_a_recovery_while_a_journal_is_made_does_not_remove_it(tmp_path, monkeypatch):
    flock = fcntl.flock

    def recovering(file, operation):
        with monkeypatch.context() as undone:
            undone.setattr(fcntl, "flock", flock)
            recover(tmp_path)
        flock(file, operation)

    monkeypatch.setattr(fcntl, "flock", recovering)
    parts = journaled(tmp_path, 2)
    monkeypatch.undo()
    assert len(journals(tmp_path)) == 1
    dropped(parts)
    recover(tmp_path)
    assert ids(tmp_path) == ["r0", "r1"]
    assert list(tmp_path.glob("date=*/.*")) == []


def test_a_journal_that_its_owner_removes_meanwhile_ends_no_recovery(tmp_path, monkeypatch):
    dropped(journaled(tmp_path, 2))
    same = os.path.samestat

    def removed(*files):
        for path in journals(tmp_path):
            path.unlink()
        return same(*files)

    monkeypatch.setattr(os.path, "samestat", removed)
    recover(tmp_path)
    assert journals(tmp_path) == []


def test_a_journal_is_removed_before_its_lock_is_released(tmp_path, monkeypatch):
    parts, close, left = journaled(tmp_path, 2), os.close, []

    def closed(file):
        left.extend(journals(tmp_path))
        close(file)

    monkeypatch.setattr(os, "close", closed)
    for part in parts.take():
        part.journal.remove()
    assert left == []


# Damaged journals, and those of another release


def recovered(folder):
    """What a recovery reports."""
    lines = []
    recover(folder, lambda worker, sequence: None, say=lines.append)
    return lines


def record(payload):
    return RECORD.pack(len(payload), zlib.crc32(payload)) + payload


@pytest.mark.parametrize("place", ["length", "checksum", "payload"])
def test_records_after_a_damaged_one_are_recovered_and_reported(tmp_path, place):
    dropped(journaled(tmp_path, 5))
    journal, data = content_of(tmp_path)
    size = len(data) // 5
    changed = bytearray(data)
    changed[size + {"length": 0, "checksum": 4, "payload": 40}[place]] ^= 0xFF
    journal.write_bytes(changed)
    (line,) = recovered(tmp_path)
    assert ids(tmp_path) == ["r0", "r2", "r3", "r4"]
    assert f"recovered 4 rows of a damaged journal; 1 places in it ({size} bytes)" in line
    kept = journal.with_suffix(".damaged")
    assert (str(kept) in line, kept.read_bytes(), journals(tmp_path)) == (True, bytes(changed), [])


@pytest.mark.parametrize("value", [{"v": 2}, [("a", 1)], [5]])
def test_a_journal_that_cannot_be_decoded_is_set_aside_and_the_process_starts(where, value):
    folder = where[1] / f"date={DAY}"
    folder.mkdir(parents=True)
    (folder / ".L-000001.journal").write_bytes(record(msgspec.msgpack.encode(value)))
    with running(*where, stderr=subprocess.PIPE) as process:
        assert end(process) == 0
        said = process.stderr.read().decode()
        process.stderr.close()
    assert [path.name for path in folder.iterdir()] == [".L-000001.damaged"]
    assert "cannot be read: the file is kept as" in said


def test_rows_with_values_of_another_type_are_set_aside_and_reported(tmp_path):
    dropped(journaled(tmp_path, 1))
    journal, data = content_of(tmp_path)
    rows = msgspec.msgpack.decode(data[RECORD.size :])
    rows[0][1] = "x"
    journal.write_bytes(record(msgspec.msgpack.encode(rows)))
    (line,) = recovered(tmp_path)
    assert "cannot read 1 rows of a journal" in line
    assert (ids(tmp_path), journal.with_suffix(".damaged").exists()) == ([], True)


@pytest.mark.parametrize("columns", [-2, -1, 1])
def test_rows_of_another_release_are_recovered_and_counted(tmp_path, columns):
    dropped(journaled(tmp_path, 2))
    journal, data = content_of(tmp_path)
    (row,) = msgspec.msgpack.decode(data[RECORD.size : len(data) // 2])
    row = row[:columns] if columns < 0 else [*row, "new"]
    journal.write_bytes(data + record(msgspec.msgpack.encode([row, row])))
    (line,) = recovered(tmp_path)
    assert "recovered 4 rows that another release wrote" in line
    assert ids(tmp_path) == ["r0", "r0", "r0", "r1"]
    assert (journals(tmp_path), list(tmp_path.glob("date=*/*.damaged"))) == ([], [])


# Rows that workers send again


def client_and_journal(where):
    """A worker that was not told of its three entries, which a killed log process has in its journal."""
    one = ConfirmedClient(where[0], worker="w", personal={"m": []}, patience=20.0)
    waiting = []
    parts = parts_of(where[1])
    for number in range(3):
        waiting.append(one.put(sent := entry(f"r{number}")))
        parts.add_durable(msgspec.structs.replace(sent, sequence=number + 1), one.worker, "")
    parts.commit()
    dropped(parts)
    return one, waiting


def test_rows_that_another_servers_process_recovered_first_are_not_written_twice(where):
    async def work():
        one, waiting = client_and_journal(where)
        recover(where[1])
        with running(*where) as process:
            await asyncio.gather(*waiting)
            await one.put(entry("r3"))
            await one.close()
            assert end(process) == 0

    asyncio.run(work())
    assert ids(where[1]) == ["r0", "r1", "r2", "r3"]


def test_the_numbers_of_a_journal_that_another_process_recovers_now_are_read(tmp_path):
    seen = []
    parts = journaled(tmp_path, 2)
    recover(tmp_path, lambda worker, sequence: seen.append((worker, sequence)))
    assert (seen, len(journals(tmp_path))) == ([("w", 0)] * 2, 1)
    dropped(parts)


def test_a_young_journal_is_left_to_the_next_process_of_its_server(tmp_path):
    dropped(journaled(tmp_path, 2))
    (journal,) = journals(tmp_path)
    recover(tmp_path, age=60.0)
    assert journals(tmp_path) == [journal]
    os.utime(journal, (0, 0))
    recover(tmp_path, age=60.0)
    assert (ids(tmp_path), journals(tmp_path)) == (["r0", "r1"], [])


def test_the_newest_number_of_a_worker_is_read_while_its_file_is_merged(tmp_path, monkeypatch):
    parts = parts_of(tmp_path)
    for number in (1, 2):
        parts.add(msgspec.structs.replace(entry(f"r{number}"), sequence=number), "w", "")
        parts.add(msgspec.structs.replace(entry(f"o{number}"), sequence=9), "other", "")
        parts.close()
    files, listings = place.list_day_files, []

    def merging(*arguments, **more):
        listed = files(*arguments, **more)
        listings.append(len(listed))
        upkeep(folder_log(tmp_path), keep=None, file_size=2**20, file_age=0.0)
        return listed

    monkeypatch.setattr(place, "list_day_files", merging)
    assert (newest_number(tmp_path, "w"), newest_number(tmp_path, "nobody")) == (2, 0)
    assert listings == [2, 1, 1]


def test_workers_without_a_connection_are_dropped_after_a_minute():
    workers = Workers()
    workers.record_recovered("left", 5)
    known = workers.connect("here", lambda worker: 3)
    assert (known.last, known.is_new(3), known.is_new(4)) == (3, False, True)
    gone = workers.connect("gone", lambda worker: 0)
    assert gone.is_new(1)
    for now in (0.0, 59.0):
        workers.expire({"here"}, now)
        assert workers.connect("gone", lambda worker: 9) is gone
    workers.expire({"here"}, 60.0)
    assert workers.connect("here", lambda worker: 9) is known
    assert workers.connect("gone", lambda worker: 9).last == 9
    assert workers.connect("left", lambda worker: 0).last == 0


# Parts that cannot be written


def test_a_journal_is_released_where_its_folder_cannot_be_synced(tmp_path, monkeypatch):
    parts = journaled(tmp_path, 2)
    (part,) = parts._open.values()
    sync = parts_module.sync  # type: ignore[attr-defined]

    def failing(path):
        if path.is_dir():
            raise OSError(5, "Input/output error")
        sync(path)

    with monkeypatch.context() as patched:
        patched.setattr(parts_module, "sync", failing)
        parts.close()
    assert ids(tmp_path) == ["r0", "r1"]
    assert len(journals(tmp_path)) == 1
    recover(tmp_path)  # it is not locked
    assert (ids(tmp_path), journals(tmp_path), part.journal) == (["r0", "r1"], [], None)


def test_rows_that_pyarrow_refuses_stop_neither_other_parts_nor_the_log(tmp_path):
    failed = []
    parts = parts_of(tmp_path, lambda error, rows: failed.append((str(error), rows)))
    wrong = msgspec.structs.replace(entry("wrong", now=NOON), latency_us="x")
    parts.add(wrong, "w", "")
    parts.add(entry("right", now=NOON + DAY_US), "w", "")
    parts.close()
    assert (ids(tmp_path), [rows for _, rows in failed]) == (["right"], [1])
    assert "convert" in failed[0][0]
    parts.add_durable(wrong, "w", "")
    parts.commit()
    parts.close()
    (line,) = recovered(tmp_path)
    assert "cannot read 1 rows of a journal" in line


def test_rows_after_one_that_could_not_be_added_are_recovered_once(tmp_path, monkeypatch):
    parts, add = parts_of(tmp_path), parts_module.LogPart.add

    def failing(part, row, size):
        if row[0] == "r1":
            raise OSError(28, "No space left on device")
        return add(part, row, size)

    for number in range(4):
        parts.add_durable(entry(f"r{number}", now=NOON), "w", "")
    with monkeypatch.context() as patched:
        patched.setattr(parts_module.LogPart, "add", failing)
        parts.commit()
    parts.close()
    recover(tmp_path)
    assert ids(tmp_path) == ["r0", "r1", "r2", "r3"]
