"""Sealed parts go from the folder of a log process to another log: each row once, whatever is killed or fails."""

import asyncio
import os
import random
import signal
import subprocess
from contextlib import contextmanager

import pytest
from journal_support import journals
from log_support import LONG, end, entry, ids, put, running, start, wait_for

from cumulant.core.errors import EngineUnavailableError
from cumulant.serving.prediction_log.confirmed_client import ConfirmedClient
from cumulant.serving.prediction_log.personal_values import PersonalValueMask
from cumulant.serving.prediction_log.storage import log_folder
from cumulant.serving.prediction_log.storage.log_reader import find_gaps
from cumulant.serving.prediction_log.storage.part_writer import LogParts
from cumulant.serving.prediction_log.storage.retention import upkeep
from cumulant.serving.prediction_log.storage.uploading import LogUpload
from cumulant.testing.log import folder_log


class Killed(BaseException):
    """The process ends here."""


class FaultyLog:
    """A log whose calls fail, or end the process, before or after they are done."""

    def __init__(self, log, chance, share):
        self._log, self._chance, self._share = log, chance, share

    def __getattr__(self, name):
        value = getattr(self._log, name)
        if not callable(value) or name == "maintenance":
            return value
        if name == "append":
            return self._append
        return lambda *words: self._around(lambda: value(*words), after=name != "open")

    def _around(self, call, *, after):
        self._fail()
        result = call()
        if after:
            self._fail()
        return result

    @contextmanager
    def _append(self, part):
        self._fail()
        with self._log.append(part) as stream:
            yield stream
            self._fail()
        self._fail()

    def _fail(self):
        if self._chance.random() < self._share:
            raise self._chance.choice([Killed(), EngineUnavailableError("the store is slow")])


def parts_of(folder):
    return LogParts(folder, PersonalValueMask(b"", {"m": []}), file_size=1 << 26, failed=lambda *_: None)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(8))
def test_each_row_comes_once_whatever_fails(tmp_path, seed):
    chance = random.Random(seed)
    spool, target = folder_log(tmp_path / "spool"), folder_log(tmp_path / "target")
    here, there = FaultyLog(spool, chance, 0.05), FaultyLog(target, chance, 0.05)
    upload, parts, written, kills = LogUpload(here, there, lambda _: None), parts_of(tmp_path / "spool"), [], 0
    for number in range(60):
        name = f"r{number:03d}"
        parts.add(entry(name, now=1_780_000_000_000_000 + number % 2 * 86_400_000_000, sequence=number + 1), "w", "")
        written.append(name)
        if chance.random() < 0.6:
            parts.close()
        if chance.random() < 0.2:
            upkeep(target, keep=None, file_size=1 << 20, file_age=0.0)
        if chance.random() < 0.3:  # as if minutes had passed
            for path in (tmp_path / "spool").rglob("*.parquet"):
                os.utime(path, (1, 1))
        try:
            upload.run()
        except Killed:
            kills += 1
            upload, parts = LogUpload(here, there, lambda _: None), _closed(parts, tmp_path / "spool")
    parts.close()
    LogUpload(spool, target, lambda _: None).run()
    assert kills
    assert ids(tmp_path / "target") == written
    for path in (tmp_path / "spool").rglob("*.parquet"):
        os.utime(path, (1, 1))
    LogUpload(spool, target, lambda _: None).run()
    assert list((tmp_path / "spool").rglob("*.parquet")) == []
    assert ids(tmp_path / "target") == written


def _closed(parts, folder):
    """A new life of the log process."""
    parts.close()
    return parts_of(folder)


def test_a_log_that_cannot_be_reached_is_told_once_and_gets_all_later(tmp_path):
    said = []
    (tmp_path / "target").write_text("")
    upload = LogUpload(folder_log(tmp_path / "spool"), folder_log(tmp_path / "target"), said.append)
    parts = parts_of(tmp_path / "spool")
    for number in range(3):
        parts.add(entry(f"r{number}", sequence=number + 1), "w", "")
        parts.close()
        upload.run()
        assert upload.failing
    (tmp_path / "target").unlink()
    upload.run()
    assert not upload.failing
    assert ids(tmp_path / "target") == ["r0", "r1", "r2"]
    assert len(said) == 2
    assert str(tmp_path / "target") in said[0]
    assert str(tmp_path / "spool") in said[0]
    assert "again" in said[1]


def test_a_part_stays_for_minutes_and_goes_then(tmp_path):
    spool, target = folder_log(tmp_path / "spool"), folder_log(tmp_path / "target")
    upload, parts = LogUpload(spool, target, lambda _: None), parts_of(tmp_path / "spool")
    parts.add(entry("a", sequence=1), "w", "")
    parts.close()
    upload.run()
    upload.run()
    (path,) = (tmp_path / "spool").rglob("*.parquet")
    os.utime(path, (1, 1))
    upload.run()
    assert not path.exists()
    assert ids(tmp_path / "target") == ["a"]


def test_a_gap_at_the_end_of_a_worker_is_known_where_the_rows_are(tmp_path):
    spool, target = folder_log(tmp_path / "spool"), folder_log(tmp_path / "target")
    parts = parts_of(tmp_path / "spool")
    parts.add(entry("a", sequence=1), "w", "")
    parts.close()
    log_folder.write_life(spool, log_folder.WorkerLife(worker="w", started=1))
    upload = LogUpload(spool, target, lambda _: None)
    upload.run()
    assert find_gaps(target) == []
    known = log_folder.read_life(target, "w")
    known.forgotten = 1  # by the retention there
    log_folder.write_life(target, known)
    log_folder.write_life(spool, log_folder.WorkerLife(worker="w", started=1, last=4))
    upload.run()
    assert [(gap.first, gap.last) for gap in find_gaps(target)] == [(2, 4)]
    assert log_folder.read_lives(spool) == []
    assert log_folder.read_life(target, "w").forgotten == 1


def test_confirmed_rows_survive_kills_and_come_once(tmp_path):
    """As without an upload: what a killed process has confirmed is in the log elsewhere in the end, once."""
    where, target = (tmp_path / "log.sock", tmp_path / "spool"), tmp_path / "target"

    async def work():
        chance = random.Random(1)
        process = start(*where, visible="100ms", upload=f"file://{target}")
        one, waiting = ConfirmedClient(where[0], worker="w", personal={"m": []}, patience=LONG), []
        for _ in range(5):
            for _ in range(60):
                waiting.append(one.put(entry(f"r{len(waiting):05d}")))
                await asyncio.sleep(0.002)
            await asyncio.sleep(chance.random() * 0.3)  # anywhere in sealing, upload and deletion
            process.send_signal(signal.SIGKILL)
            process.wait()
            process = start(*where, visible="100ms", upload=f"file://{target}")
        await asyncio.gather(*waiting)
        await one.close(LONG)
        return process, len(waiting)

    process, count = asyncio.run(work())
    assert end(process) == 0
    assert ids(target) == [f"r{number:05d}" for number in range(count)]
    assert find_gaps(folder_log(target)) == []
    assert journals(tmp_path / "spool") == []


def test_the_last_rows_are_uploaded_before_the_process_ends(tmp_path):
    where, target = (tmp_path / "log.sock", tmp_path / "spool"), tmp_path / "target"
    with running(*where, visible="1h", upload=f"file://{target}") as process:
        put(where[0], [entry(f"r{number}") for number in range(10)])
        assert end(process) == 0
    assert len(ids(target)) == 10


def test_what_a_killed_process_left_is_uploaded_by_the_next_one(tmp_path):
    where, target = (tmp_path / "log.sock", tmp_path / "spool"), tmp_path / "target"
    target.write_text("")
    with running(*where, visible="100ms", upload=f"file://{target}", stderr=subprocess.DEVNULL) as process:
        put(where[0], [entry(f"r{number}") for number in range(10)])
        wait_for(lambda: len(ids(where[1])) == 10)
        process.kill()
        process.wait()
    target.unlink()
    with running(tmp_path / "other.sock", where[1], visible="100ms", upload=f"file://{target}"):
        wait_for(lambda: target.is_dir() and len(ids(target)) == 10)
