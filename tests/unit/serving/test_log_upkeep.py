"""Files of the log: merged, kept, damaged, left behind; and what readers make of them."""

import datetime as dt
import fcntl
import os
import subprocess
import sys
import time

import pyarrow.parquet as pq
import pytest
from log_support import entry, lost, sequences

from cumulant.core.errors import StorageError
from cumulant.core.prediction import Prediction
from cumulant.serving.prediction_log.personal_values import PersonalValueMask
from cumulant.serving.prediction_log.storage import log_folder, retention
from cumulant.serving.prediction_log.storage.log_reader import (
    find_gaps,
    find_predictions,
    numbered_rows,
    recent_predictions,
)
from cumulant.serving.prediction_log.storage.part_writer import DAY_US, GROUP_ROWS, SCHEMA, LogParts
from cumulant.serving.prediction_log.storage.retention import upkeep
from cumulant.serving.prediction_log.storage.scanning import batches, scan
from cumulant.testing.log import folder_log

NOW = time.time_ns() // 1000
KEEP = dt.timedelta(days=90)


def fail(error, rows):
    raise error


@pytest.fixture
def log(tmp_path):
    """Writes entries `first` to `last`, one file a call."""
    parts = LogParts(tmp_path, PersonalValueMask(b"", {"m": []}), file_size=1 << 26, failed=fail)

    def write(first, last, *, worker="w", now=NOW):
        for number in range(first, last + 1):
            one = entry(f"r{number}", now=now)
            one.sequence = number
            parts.add(one, worker, "eu")
        parts.close()

    write.folder = tmp_path  # type: ignore[attr-defined]
    return write


def tidy(folder, *, keep=KEEP, file_size=1 << 26, file_age=0.0):
    upkeep(folder_log(folder), keep=keep, file_size=file_size, file_age=file_age, say=lambda _: None)


def waited(folder, *, keep=KEEP):
    """Upkeep after the days that are due have waited for long enough."""
    tidy(folder, keep=keep)
    listed = retention.read_days_due(folder_log(folder), keep)
    days = dict.fromkeys(listed.days, retention.GRACE)
    retention.write_days_due(folder_log(folder), keep, retention.DaysDue(at=listed.at, days=days))
    tidy(folder, keep=keep)


def parquet(folder):
    return sorted(path.name for path in folder.rglob("*.parquet"))


def test_small_files_become_one_with_the_same_rows(log):
    for first in range(1, 60, 10):
        log(first, first + 9)
    before = scan(folder_log(log.folder)).dataset.to_table()
    tidy(log.folder, file_age=3600)
    assert len(parquet(log.folder)) == 6
    tidy(log.folder)
    assert len(parquet(log.folder)) == 1
    assert scan(folder_log(log.folder)).dataset.to_table().equals(before)
    log(61, 70)
    tidy(log.folder)
    assert len(parquet(log.folder)) == 1
    assert sequences(log.folder) == list(range(1, 71))


@pytest.mark.parametrize("later", [["caller_id", "invalid", "principal", "features", "incomplete"], ["incomplete"]])
def test_files_of_a_version_with_fewer_columns_are_read_and_merged(log, later):
    log(1, 5)
    (old,) = log.folder.rglob("*.parquet")
    table = pq.read_table(old, partitioning=None).drop_columns(later)
    pq.write_table(table, old)
    assert find_predictions(folder_log(log.folder), "r3")[0].caller_id == ""
    assert find_predictions(folder_log(log.folder), "r3", by="caller_id") == []
    log(6, 9)
    assert len(recent_predictions(folder_log(log.folder))) == len(scan(folder_log(log.folder)).dataset.to_table()) == 9
    tidy(log.folder)
    assert len(parquet(log.folder)) == 1
    assert sequences(log.folder) == list(range(1, 10))
    assert {one.caller_id for one in recent_predictions(folder_log(log.folder))} == {""}


def test_many_small_files_become_one_at_any_age(log):
    for number in range(1, 30):
        log(number, number)
    tidy(log.folder, file_age=3600)
    assert len(parquet(log.folder)) == 29
    log(30, 30)
    tidy(log.folder, file_age=3600)
    assert len(parquet(log.folder)) == 1
    assert sequences(log.folder) == list(range(1, 31))


def test_files_are_merged_up_to_their_size_at_once(log):
    for first in range(1, 60, 10):
        log(first, first + 9)
    size = max(path.stat().st_size for path in log.folder.rglob("*.parquet"))
    tidy(log.folder, file_size=int(size * 2.5), file_age=3600)
    assert len(parquet(log.folder)) == 4  # two and two; the last two are neither large nor old
    assert sequences(log.folder) == list(range(1, 61))


def test_a_large_file_is_closed_at_its_size(tmp_path):
    parts = LogParts(tmp_path, PersonalValueMask(b"", {"m": []}), file_size=1000, failed=fail)
    for number in range(2 * GROUP_ROWS + 5):
        parts.add(entry(f"r{number}", now=NOW), "w", "")
    assert len(parquet(tmp_path)) == 2
    parts.close()
    assert len(parquet(tmp_path)) == 3
    assert parts.written == 2 * GROUP_ROWS + 5


def test_a_merge_that_was_cut_off_after_its_renaming_shows_no_row_twice(log):
    log(1, 10)
    log(11, 20)
    parts = {path: path.read_bytes() for path in log.folder.rglob("*.parquet")}
    tidy(log.folder)
    for path, data in parts.items():
        path.write_bytes(data)
    assert len(parquet(log.folder)) == 3
    assert sequences(log.folder) == list(range(1, 21))
    assert len(find_predictions(folder_log(log.folder), "r3")) == 1
    tidy(log.folder)
    assert len(parquet(log.folder)) == 1


def test_a_dataset_survives_the_merge_of_its_files(log):
    for first in range(1, 31, 10):
        log(first, first + 9)
    dataset = scan(folder_log(log.folder)).dataset
    tidy(log.folder)
    assert dataset.count_rows() == 30


def test_old_days_can_be_scanned_beside_the_newest(log):
    for days in (0, 1, 5, 9):
        log(1 + days, 1 + days, now=NOW - days * DAY_US)
    assert sequences(log.folder) == [1, 2, 6, 10]
    today = dt.datetime.fromtimestamp(NOW / 1e6, dt.UTC).date()
    week = scan(folder_log(log.folder), since=today - dt.timedelta(days=6), until=today - dt.timedelta(days=1)).dataset
    assert sorted(week.to_table()["sequence"].to_pylist()) == [2, 6]
    assert [one.sequence for one in recent_predictions(folder_log(log.folder), limit=3)] == [1, 2, 6]
    since = dt.datetime.now(dt.UTC) - dt.timedelta(days=2)
    assert [one.sequence for one in recent_predictions(folder_log(log.folder), since=since)] == [1, 2]


def test_rows_stand_in_the_folder_of_their_day(log):
    midnight = (NOW // DAY_US) * DAY_US
    log(1, 1, now=midnight - 1)
    log(2, 2, now=midnight)
    assert len({path.parent for path in log.folder.rglob("*.parquet")}) == 2
    for path in log.folder.rglob("*.parquet"):
        day = dt.date.fromisoformat(path.parent.name.removeprefix("date="))
        (row,) = recent_predictions(folder_log(log.folder), since=dt.datetime.combine(day, dt.time(), dt.UTC))[-1:]
        assert dt.datetime.fromtimestamp(row.time / 1e6, dt.UTC).date() == day


def test_days_that_are_not_kept_go_and_leave_no_gap(log):
    log_folder.write_life(folder_log(log.folder), log_folder.WorkerLife(worker="w", started=1))
    log_folder.write_life(folder_log(log.folder), log_folder.WorkerLife(worker="gone", started=1, last=3, closed=True))
    log(1, 5, now=NOW - 100 * DAY_US)
    log(1, 3, worker="gone", now=NOW - 100 * DAY_US)
    log(8, 9, now=NOW - 3 * DAY_US)
    assert lost(find_gaps(folder_log(log.folder))) == [6, 7]
    waited(log.folder)
    assert sequences(log.folder) == [8, 9]
    assert lost(find_gaps(folder_log(log.folder))) == [6, 7]
    assert [life.worker for life in log_folder.read_lives(folder_log(log.folder))] == ["w"]
    waited(log.folder, keep=dt.timedelta(days=2))
    assert find_gaps(folder_log(log.folder)) == []
    assert sequences(log.folder) == []


class Clock(dt.datetime):
    """The wall's clock as `datetime.now` tells it, ahead by what a test says."""

    ahead = dt.timedelta()

    @classmethod
    def now(cls, tz=None):
        return dt.datetime.now(tz) + cls.ahead


def test_a_clock_that_is_wrong_for_hours_deletes_nothing(log, monkeypatch):
    monkeypatch.setattr("cumulant.serving.prediction_log.storage.retention.datetime", Clock)
    said = []

    def turn(steady):
        upkeep(folder_log(log.folder), keep=KEEP, file_size=1 << 26, file_age=0.0, steady=steady, say=said.append)

    log(1, 3, now=NOW - 2 * DAY_US)
    log(4, 6)
    turn(0.0)
    monkeypatch.setattr(Clock, "ahead", dt.timedelta(days=100))
    for _ in range(23):
        turn(3600.0)
    assert sequences(log.folder) == [1, 2, 3, 4, 5, 6]
    assert [line.startswith("2 days from") and "if the clock is wrong" in line for line in said] == [True]
    monkeypatch.setattr(Clock, "ahead", dt.timedelta())
    turn(7200.0)
    assert retention.read_days_due(folder_log(log.folder), KEEP).days == {}
    assert sequences(log.folder) == [1, 2, 3, 4, 5, 6]


def test_a_day_goes_after_a_day_of_running_and_is_told(log, monkeypatch):
    monkeypatch.setattr("cumulant.serving.prediction_log.storage.retention.datetime", Clock)
    said = []
    log(1, 3, now=NOW - 100 * DAY_US)
    log(4, 6)
    for _ in range(27):  # two processes share the folder: each has run for an hour, half an hour after the other
        monkeypatch.setattr(Clock, "ahead", Clock.ahead + dt.timedelta(minutes=30))
        upkeep(folder_log(log.folder), keep=KEEP, file_size=1 << 26, file_age=0.0, steady=3600.0, say=said.append)
    assert sequences(log.folder) == [1, 2, 3, 4, 5, 6]
    for _ in range(24):
        monkeypatch.setattr(Clock, "ahead", Clock.ahead + dt.timedelta(minutes=30))
        upkeep(folder_log(log.folder), keep=KEEP, file_size=1 << 26, file_age=0.0, steady=3600.0, say=said.append)
    assert sequences(log.folder) == [4, 5, 6]
    (line,) = said
    assert line.startswith("the prediction log deleted 20")
    assert retention.read_days_due(folder_log(log.folder), KEEP).days == {}


def test_servers_that_keep_rows_for_different_times_each_have_their_list(log, monkeypatch):
    monkeypatch.setattr("cumulant.serving.prediction_log.storage.retention.datetime", Clock)
    log(1, 3, now=NOW - 50 * DAY_US)
    log(4, 6, now=NOW - 10 * DAY_US)
    for _ in range(27):
        monkeypatch.setattr(Clock, "ahead", Clock.ahead + dt.timedelta(hours=1))
        for days in (30, 90):
            upkeep(
                folder_log(log.folder),
                keep=dt.timedelta(days=days),
                file_size=1 << 26,
                file_age=0.0,
                steady=3600.0,
                say=lambda _: None,
            )
    assert sequences(log.folder) == [4, 5, 6]


def test_what_could_not_be_deleted_is_not_told_and_a_full_disk_hinders_nothing(log, monkeypatch):
    said = []

    def full(*_):
        raise StorageError("the log cannot be written: No space left on device")

    log(1, 3, now=NOW - 100 * DAY_US)
    tidy(log.folder)
    listed = retention.read_days_due(folder_log(log.folder), KEEP)
    retention.write_days_due(
        folder_log(log.folder), KEEP, retention.DaysDue(at=listed.at, days=dict.fromkeys(listed.days, 90_000.0))
    )
    monkeypatch.setattr(retention, "write_days_due", full)
    with monkeypatch.context() as patch:
        patch.setattr("cumulant.drivers.local.log.shutil.rmtree", lambda *_, **__: None)
        upkeep(folder_log(log.folder), keep=KEEP, file_size=1 << 26, file_age=0.0, say=said.append)
    assert said == []
    upkeep(folder_log(log.folder), keep=KEEP, file_size=1 << 26, file_age=0.0, say=said.append)
    assert sequences(log.folder) == []
    assert len(said) == 1


def test_a_list_that_cannot_be_read_waits_anew(log):
    log(1, 3, now=NOW - 100 * DAY_US)
    (log.folder / f".retention-{90 * 86_400}.json").write_bytes(b"{")
    tidy(log.folder)
    assert sequences(log.folder) == [1, 2, 3]
    assert list(retention.read_days_due(folder_log(log.folder), KEEP).days.values()) == [0.0]


def test_gaps_in_front_between_and_at_the_end(log):
    log_folder.write_life(folder_log(log.folder), log_folder.WorkerLife(worker="w", started=1, last=12))
    log_folder.write_life(folder_log(log.folder), log_folder.WorkerLife(worker="nothing", started=1, last=2))
    log_folder.write_life(folder_log(log.folder), log_folder.WorkerLife(worker="idle", started=1, last=0, closed=True))
    log(3, 4)
    log(7, 9)
    log(5, 6, worker="unknown")
    found = [(gap.worker, gap.first, gap.last, gap.count) for gap in find_gaps(folder_log(log.folder))]
    assert found == [("nothing", 1, 2, 2), ("w", 1, 2, 2), ("w", 5, 6, 2), ("w", 10, 12, 3)]


def test_numbers_that_are_out_of_order_or_twice_in_a_file_are_no_gap(log):
    log_folder.write_life(folder_log(log.folder), log_folder.WorkerLife(worker="w", started=1, last=6))
    log(4, 6)
    (part,) = log.folder.rglob("*.parquet")
    table = pq.read_table(part)
    pq.write_table(table.take([2, 0, 1, 0]), part)
    log(1, 2)
    assert [(gap.first, gap.last) for gap in find_gaps(folder_log(log.folder))] == [(3, 3)]


def test_rows_by_number_are_those_of_the_workers_that_are_asked_for(log):
    log(1, 3)
    log(2, 9, worker="v")
    day = log_folder.list_days(log.folder)[0][0]

    def found(numbers, *workers):
        return [
            (row["worker"], row["sequence"]) for row in numbered_rows(folder_log(log.folder), day, numbers, workers)
        ]

    assert found([2, 9], "w") == [("w", 2)]
    assert sorted(found([3, 9], "v", "w")) == [("v", 3), ("v", 9), ("w", 3)]
    assert found([10], "v", "w") == found([2], "u") == []


def test_a_file_in_the_making_is_no_file_and_goes_when_nobody_makes_it(log):
    log(1, 3)
    (part,) = log.folder.rglob("*.parquet")
    half = part.with_name(".x-000002.writing")
    half.write_bytes(part.read_bytes()[:100])
    assert sequences(log.folder) == [1, 2, 3]
    tidy(log.folder)
    assert half.exists()
    os.utime(half, (1, 1))
    tidy(log.folder)
    assert not half.exists()


def test_a_damaged_file_is_named_set_aside_and_shows_as_a_gap(log):
    log_folder.write_life(folder_log(log.folder), log_folder.WorkerLife(worker="w", started=1, last=9))
    for first in (1, 4, 7):
        log(first, first + 2)
    middle = sorted(log.folder.rglob("*.parquet"))[1]
    middle.write_bytes(middle.read_bytes()[:-20])
    with pytest.raises(StorageError, match="cannot be read") as caught:
        find_gaps(folder_log(log.folder))
    assert caught.value.subject == str(middle)
    tidy(log.folder)
    tidy(log.folder)
    assert len(parquet(log.folder)) == 1
    assert middle.with_suffix(".damaged").exists()
    assert lost(find_gaps(folder_log(log.folder))) == [4, 5, 6]


@pytest.mark.parametrize("age", [0, 5])
def test_readers_of_many_rows_name_a_damaged_file_too(log, age):
    log(1, 3, now=NOW - age * DAY_US)
    log(4, 6, now=NOW - age * DAY_US)
    middle = min(log.folder.rglob("*.parquet"))
    whole = middle.read_bytes()
    assert sum(batch.num_rows for batch in batches(folder_log(log.folder), ["id"])) == 6
    for content in (whole[:-20], b""):
        middle.write_bytes(content)
        with pytest.raises(StorageError, match="cannot be read") as caught:
            list(batches(folder_log(log.folder), ["id"]))
        assert caught.value.subject == str(middle)
    middle.write_bytes(whole[:4] + b"\xff" * 64 + whole[68:])
    with pytest.raises(StorageError, match="cannot be read"):
        list(batches(folder_log(log.folder), SCHEMA.names))


def test_two_log_processes_of_one_folder_take_turns(log):
    log(1, 3)
    log(4, 6)
    with (log.folder / ".upkeep").open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        tidy(log.folder)
        assert len(parquet(log.folder)) == 2
    tidy(log.folder)
    assert len(parquet(log.folder)) == 1


def test_lives_of_log_processes_are_merged_apart(tmp_path):
    for _ in range(2):
        parts = LogParts(tmp_path, PersonalValueMask(b"", {"m": []}), file_size=1 << 26, failed=fail)
        for number in range(3):
            parts.add(entry(f"r{number}", now=NOW), "w", "")
            parts.close()
    tidy(tmp_path)
    assert len(parquet(tmp_path)) == 2
    assert scan(folder_log(tmp_path)).dataset.count_rows() == 6


@pytest.mark.parametrize("name", ["../../evil", "a/b", "", "x" * 500, ".."])
def test_a_worker_cannot_name_a_file_elsewhere(tmp_path, name):
    log_folder.write_life(folder_log(tmp_path / "log"), log_folder.WorkerLife(worker=name, started=1))
    (written,) = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert written.parent == tmp_path / "log" / "workers"


def test_columns_are_the_fields_of_the_record():
    assert sorted(SCHEMA.names) == sorted(Prediction.__struct_fields__)


def test_a_file_that_is_only_a_name_is_told(log):
    log(1, 1)
    (part,) = log.folder.rglob("*.parquet")
    part.with_name("x-000001-000001.parquet").symlink_to("nowhere")
    with pytest.raises(StorageError, match="vanish"):
        find_gaps(folder_log(log.folder))


def test_an_empty_folder_and_none_at_all(tmp_path):
    for folder in (tmp_path, tmp_path / "nothing"):
        assert find_gaps(folder_log(folder)) == []
        assert find_predictions(folder_log(folder), "a") == []
        assert recent_predictions(folder_log(folder)) == []
        assert scan(folder_log(folder)).dataset.count_rows() == 0


MERGE = """
import resource, sys
from cumulant.serving.prediction_log.storage import retention
from cumulant.testing.log import folder_log
log = folder_log(sys.argv[1])
taken = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (taken + (96 << 20), resource.RLIM_INFINITY))
retention.upkeep(log, keep=None, file_size=1 << 40, file_age=0.0)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the limit of a process's memory is Linux's")
def test_parts_that_are_too_large_for_the_memory_left_are_not_damaged(log):
    # The text takes almost nothing on the disk and 128 MiB in memory.
    for number in (1, 2):
        log(number, number)
    for path in log.folder.rglob("*.parquet"):
        table = pq.read_table(path, partitioning=None)
        table = table.set_column(table.schema.get_field_index("request"), "request", [["x" * (128 << 20)]])
        pq.write_table(table.select(SCHEMA.names).cast(SCHEMA), path, compression="zstd", use_dictionary=False)
    before = parquet(log.folder)
    done = subprocess.run(
        [sys.executable, "-c", MERGE, str(log.folder)], check=False, capture_output=True, text=True, timeout=60
    )
    assert "EngineUnavailableError: too little memory to read the prediction log" in done.stderr, done.stderr
    assert parquet(log.folder) == before
    assert not list(log.folder.rglob("*.damaged"))
    tidy(log.folder)
    assert len(parquet(log.folder)) == 1
