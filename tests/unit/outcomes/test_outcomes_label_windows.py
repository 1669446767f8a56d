"""Many labels are joined window by window with what they would say at once, and are those of one moment."""

import io
import os
import random
import resource
import shutil
from datetime import timedelta

import polars as pl
import pytest
from outcomes_support import NOW, Clock, logs, opened, put, report
from test_outcomes_join_cache import Taken, cache, change, label, merge_all, predict, rows, whole

from cumulant.core.errors import LeaseHeldError, StorageError, UsageError
from cumulant.outcomes import labelled_log, scanning
from cumulant.outcomes.join import joining, numbered_table
from cumulant.outcomes.join.joining import Outcomes
from cumulant.outcomes.join.numbered_table import NumberedTable, TableParts
from cumulant.outcomes.labels import label_snapshot
from cumulant.testing.log import folder_log

pytestmark = pytest.mark.slow


def in_windows(patch, held=2, window=3):
    """Labels of which there are more than `held` are read for windows of so many predictions."""
    patch.setattr(label_snapshot, "MOST_IN_MEMORY", held)
    for module in (label_snapshot, joining):
        patch.setattr(module, "WINDOW", window)
    patch.setattr(labelled_log, "_BYTES", 1)
    patch.setattr(numbered_table, "_LARGE", 2)
    patch.setattr(numbered_table, "_HELD", 3)


def results(tmp_path, clock, folder):
    """What the labels say: the table, the report, and what a join in `folder` has given by now."""
    outcomes = Outcomes(logs(tmp_path / folder), folder_log(tmp_path / "log"), key=opened(tmp_path)._key, clock=clock)
    shutil.rmtree(tmp_path / folder / "labels", ignore_errors=True)
    shutil.copytree(tmp_path / "outcomes" / "labels", tmp_path / folder / "labels")
    found = outcomes.advance()
    given = outcomes.labelled()[0].sort("worker", "sequence", "row").rows()
    graded = sorted(map(repr, outcomes.graded()[0]))
    table = pl.concat(outcomes.table()).rows() if (tmp_path / "log").exists() else []
    return found, given, outcomes.pairs()[0], graded, table, report(outcomes, clock.time)


@pytest.mark.parametrize("seed", range(3))
def test_random_histories_give_the_same_in_windows(tmp_path, monkeypatch, seed):
    draw, ids, clock = random.Random(seed), [], Clock()
    (tmp_path / "log").mkdir()
    (tmp_path / "outcomes" / "labels").mkdir(parents=True)
    for _ in range(8):
        for _ in range(draw.randint(1, 4)):
            change(tmp_path, draw, ids)
        if ids and draw.random() < 0.5:
            put(tmp_path / "log", {"id": draw.choice(ids), "shadow": True, "version": "2", "served_arm": "candidate"})
        clock.time = NOW + timedelta(hours=draw.choice([0, 1, 3, -4]))
        at_once = results(tmp_path, clock, "once")
        with monkeypatch.context() as patch:
            in_windows(patch, held=draw.randint(1, 3), window=draw.randint(1, 4))
            assert results(tmp_path, clock, "windows") == at_once
            assert rows(cache(tmp_path).rows(Taken, since=None, at=clock.time)) == whole(tmp_path, clock.time)


def labelled_world(tmp_path):
    """Six predictions of three days, of which the last two have no label."""
    for number in range(3):
        predict(tmp_path, f"a{number}", f"b{number}", number=2 - number)
    for one in ("a0", "b0", "a1", "b1"):
        label(tmp_path, one, True)


def arriving(tmp_path):
    """Labels come, correct others, are merged, and the merged batches removed."""
    for one in ("a2", "b2"):
        label(tmp_path, one, True)
    label(tmp_path, "a1", False, hours=0.5)
    merge_all(tmp_path)


def test_a_table_has_the_labels_of_the_moment_at_which_it_began(tmp_path, monkeypatch):
    labelled_world(tmp_path)
    before = whole(tmp_path, NOW)
    in_windows(monkeypatch, window=1)
    table = opened(tmp_path).table(as_of=NOW)
    first = next(table)
    arriving(tmp_path)
    assert rows([first, *table]) == before != whole(tmp_path, NOW)


def test_a_report_has_the_labels_of_the_moment_at_which_it_began(tmp_path, monkeypatch):
    labelled_world(tmp_path)
    before = report(opened(tmp_path), NOW)
    in_windows(monkeypatch)
    read = scanning.scan_predictions

    def late(*given, **more):
        for number, frame in enumerate(read(*given, **more)):
            yield frame
            if number == 0:
                arriving(tmp_path)

    with monkeypatch.context() as patch:
        patch.setattr(scanning, "scan_predictions", late)
        assert report(opened(tmp_path), NOW) == before
    assert (before.labelled, report(opened(tmp_path), NOW).labelled) == (4, 6)


def test_stored_rows_have_the_labels_of_one_moment_and_the_next_call_the_rest(tmp_path, monkeypatch):
    labelled_world(tmp_path)
    before = whole(tmp_path, NOW)
    in_windows(monkeypatch, window=1)
    join, late = labelled_log.match_labels, []  # type: ignore[attr-defined]

    def matched(*given):
        if not late:
            late.append(arriving(tmp_path))
        return join(*given)

    with monkeypatch.context() as patch:
        patch.setattr(labelled_log, "match_labels", matched)
        assert rows(cache(tmp_path).rows(Taken, since=None, at=NOW)) == before
    assert rows(cache(tmp_path).rows(Taken, since=None, at=NOW)) == whole(tmp_path, NOW) != before


def test_labels_in_more_files_than_may_be_open_are_read_at_once(tmp_path, monkeypatch):
    labelled_world(tmp_path)
    before = report(opened(tmp_path), NOW)
    in_windows(monkeypatch)
    monkeypatch.setattr(resource, "getrlimit", lambda _: (6, 6))
    assert report(opened(tmp_path), NOW) == before


def test_no_limit_of_open_files_stops_a_report(tmp_path, monkeypatch):
    """Whether its parts are held open or in memory is decided by what the process may still open."""
    labelled_world(tmp_path)
    for number in range(80):
        label(tmp_path, f"x{number}", True)
    before = report(opened(tmp_path), NOW)
    in_windows(monkeypatch, held=40)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    opening, held = scanning._open_files, set()

    def opened_files(*given):
        files = opening(*given)
        held.update(isinstance(file, io.BytesIO) for file in files.values())
        return files

    monkeypatch.setattr(scanning, "_open_files", opened_files)
    try:
        for spare in range(120, 260, 20):
            resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/dev/fd")) + spare, hard))
            assert report(opened(tmp_path), NOW) == before, spare
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert held == {True, False}


def test_a_window_ends_by_its_rows_or_by_its_bytes(monkeypatch):
    monkeypatch.setattr(label_snapshot, "_BYTES", 10_000)
    short, long = pl.DataFrame({"outputs": ["x"] * 2}), pl.DataFrame({"outputs": ["x" * 6_000] * 2})
    for part, most, expected in ((short, 4, [2, 2, 1]), (long, 100, [1] * 5), (short, 0, [1] * 5)):
        found = label_snapshot.window_parts([part] * 5, most, frame=label_snapshot.same_frame)
        assert [len(window) for window in found] == expected


def test_the_damaged_file_of_many_is_named(tmp_path, monkeypatch):
    labelled_world(tmp_path)
    in_windows(monkeypatch)
    path = sorted((tmp_path / "outcomes" / "labels").rglob("*.parquet"))[2]
    whole_file = path.read_bytes()
    path.write_bytes(whole_file[:4] + bytes(len(whole_file) // 2) + whole_file[4 + len(whole_file) // 2 :])
    with pytest.raises(StorageError) as failed:
        report(opened(tmp_path), NOW)
    assert failed.value.subject == str(path)


def test_mirrored_requests_without_rows_are_no_pairs(tmp_path):
    put(tmp_path / "log", {"id": "a", "empty": True}, {"id": "a", "empty": True, "shadow": True, "version": "2"})
    assert opened(tmp_path).advance().pairs == 0


SEQUENCE = pl.DataFrame(schema={"sequence": pl.Int64, "row": pl.Int32})


def table_of(tmp_path, name="rows"):
    return NumberedTable(
        TableParts(folder_log(tmp_path / "joined")), name, SEQUENCE.to_arrow().schema, ["sequence", "row"]
    )


@pytest.mark.parametrize("seed", range(4))
def test_rows_are_appended_once_in_parts_of_any_size_and_read_once_from_any_cursor(tmp_path, monkeypatch, seed):
    draw = random.Random(seed)
    monkeypatch.setattr(numbered_table, "_LARGE", draw.randint(1, 5))
    monkeypatch.setattr(numbered_table, "_SMALL", draw.choice([0, 1_300, 1 << 20]))
    monkeypatch.setattr(numbered_table, "_MANY", draw.choice([2, 3, 5]))
    known, cursors = [], {"": 0}
    for _ in range(12):
        table = table_of(tmp_path)  # as another machine, which has nothing but the log
        first = draw.randrange(30)
        given = [(first + draw.randrange(4), draw.randrange(2)) for _ in range(draw.randint(0, 8))]
        fresh = [one for one in dict.fromkeys(given) if one not in known]
        assert table.append(pl.DataFrame(given, schema=SEQUENCE.schema, orient="row")) == len(fresh)
        known += fresh
        if draw.random() < 0.5:
            table.compact()
        for cursor, seen in cursors.items():
            assert table.since(cursor)[0].rows() == known[seen:]
        cursor, limit = draw.choice(list(cursors)), draw.choice([None, 1, 4])
        rows, after = table.since(cursor, limit=limit)
        assert limit is None or rows.height <= max(limit, numbered_table._LARGE)
        cursors[after] = cursors[cursor] + rows.height
        assert cursors[table.end] == len(known) if table.end in cursors else True
        newest = draw.randint(1, 9)
        assert table.newest(newest).rows() == known[-newest:]


def test_tables_of_one_log_do_not_mix(tmp_path):
    one, other = table_of(tmp_path, "one"), table_of(tmp_path, "other")
    one.append(pl.DataFrame([(1, 1)], schema=SEQUENCE.schema, orient="row"))
    other.append(pl.DataFrame([(1, 1), (2, 1)], schema=SEQUENCE.schema, orient="row"))
    assert (one.since()[0].rows(), other.since()[0].height) == ([(1, 1)], 2)
    with pytest.raises(UsageError, match="no cursor"):
        one.since("7")


def test_of_two_that_append_at_once_one_is_refused_and_nothing_of_it_is_there(tmp_path, monkeypatch):
    first, second = table_of(tmp_path), table_of(tmp_path)
    append = second._log.append

    def late(part):
        first.append(pl.DataFrame([(1, 1)], schema=SEQUENCE.schema, orient="row"))
        return append(part)

    with monkeypatch.context() as patch:
        patch.setattr(second._log, "append", late)
        with pytest.raises(LeaseHeldError, match="another process"):
            second.append(pl.DataFrame([(2, 1)], schema=SEQUENCE.schema, orient="row"))
    assert table_of(tmp_path).since()[0].rows() == [(1, 1)]
    assert second.append(pl.DataFrame([(2, 1)], schema=SEQUENCE.schema, orient="row")) == 1


def of_joined(outcomes):
    """The lists of the joined rows that are asked for from now on."""
    log, listed = outcomes.logs.joined, []
    parts = log.parts
    log.parts = lambda day: listed.append(day) or parts(day)
    return listed


def test_one_join_lists_the_joined_rows_twice(tmp_path):
    put(tmp_path / "log", {"id": "a", "shadow": True, "version": "2", "served_arm": "candidate"}, {"id": "a"})
    label(tmp_path, "a", True)
    outcomes = opened(tmp_path)
    listed = of_joined(outcomes)
    found = outcomes.advance()
    assert (found.labelled, found.pairs, found.graded) == (2, 1, 1)
    assert len(listed) == 2
    listed.clear()
    assert outcomes.advance() == type(found)(labelled=0, pairs=0, graded=0)
    assert listed == []


def test_rows_that_are_appended_twice_in_one_join_are_there_once(tmp_path, monkeypatch):
    monkeypatch.setattr(numbered_table, "_LARGE", 1)
    table = table_of(tmp_path)
    with table._all.joining():
        assert table.append(pl.DataFrame([(1, 1), (2, 1)], schema=SEQUENCE.schema, orient="row")) == 2
        assert table.append(pl.DataFrame([(2, 1), (3, 1)], schema=SEQUENCE.schema, orient="row")) == 1
        assert table.last == 3
        table._all.confirm()
    assert table.since()[0].rows() == [(1, 1), (2, 1), (3, 1)]


def test_what_another_process_has_merged_over_is_no_append(tmp_path, monkeypatch):
    """A process that slept through its lease has a list from before the other one appended and merged."""
    monkeypatch.setattr(numbered_table, "_MANY", 2)
    sleeper, other = table_of(tmp_path), table_of(tmp_path)
    with sleeper._all.joining():
        assert sleeper.last == 0
        for number in (1, 2):
            other.append(pl.DataFrame([(number, 1)], schema=SEQUENCE.schema, orient="row"))
        other.compact()
        assert sleeper.append(pl.DataFrame([(7, 1)], schema=SEQUENCE.schema, orient="row")) == 1
        with pytest.raises(LeaseHeldError, match="another process"):
            sleeper._all.confirm()
    assert other.since()[0].rows() == [(1, 1), (2, 1)]
    assert sleeper.append(pl.DataFrame([(7, 1)], schema=SEQUENCE.schema, orient="row")) == 1
    assert other.since()[0].rows() == [(1, 1), (2, 1), (7, 1)]
