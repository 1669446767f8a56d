"""The stored join is that of the whole log and all labels, whatever came, changed or went since; only that is joined."""

import gc
import os
import random
import shutil
import weakref
from datetime import UTC, datetime, timedelta

import polars as pl
import pytest
from outcomes_support import NOW, logs, micros, opened, put, tell

from cumulant.outcomes import scanning
from cumulant.outcomes.join.join_cache import JoinCache
from cumulant.outcomes.labels.batches import LabelBatches
from cumulant.outcomes.labels.ingest import _merge
from cumulant.serving.prediction_log.storage.log_reader import iterate_files as log_stored

pytestmark = pytest.mark.slow

DAYS = 3


def cache(tmp_path, name="rows"):
    return JoinCache(opened(tmp_path), tmp_path / name, lambda frame: frame)


class Taken:
    """The frames of a reading, in the order of the log."""

    def __init__(self):
        self._frames = {}

    def add(self, number, frame):
        assert number not in self._frames
        self._frames[number] = frame

    def __iter__(self):
        return iter([self._frames[number] for number in sorted(self._frames) if self._frames[number].height])


def rows(found):
    frames = list(found)
    return pl.concat(frames).sort("id", "row", "worker", "sequence").rows() if frames else []


def whole(tmp_path, at):
    return rows(one for one in opened(tmp_path).table(as_of=at) if one.height)


def day(number):
    return NOW - timedelta(days=number)


def predict(tmp_path, *ids, number=0):
    put(
        tmp_path / "log",
        *(
            {"id": one, "number": place, "at": day(number), "time": micros(day(number))}
            for place, one in enumerate(ids)
        ),
    )


def label(tmp_path, one, value, *, hours=1, **more):
    known = (NOW - timedelta(hours=hours)).isoformat()
    tell(tmp_path / "outcomes", {"id": one, "label": value, "known_time": known, **more})


def test_without_news_nothing_is_joined(tmp_path):
    predict(tmp_path, "a", "b")
    label(tmp_path, "a", True)
    first, second = cache(tmp_path), cache(tmp_path)
    assert (
        rows(first.rows(Taken, since=None, at=NOW))
        == rows(second.rows(Taken, since=None, at=NOW))
        == whole(tmp_path, NOW)
    )
    assert (len(first.joined), second.joined) == (1, [])


class Counted:
    """How many frames are in memory whenever one comes."""

    def __init__(self):
        self._frames, self.most = [], 0

    @property
    def files(self):
        return len(self._frames)

    def add(self, _number, frame):
        self._frames.append(weakref.ref(frame))
        gc.collect()
        self.most = max(self.most, sum(one() is not None for one in self._frames))


@pytest.mark.parametrize("joined", [True, False])
def test_the_rows_of_one_file_are_in_memory(tmp_path, joined):
    for number in range(8):
        predict(tmp_path, f"r{number}", number=number)
    if not joined:
        cache(tmp_path).rows(Taken, since=None, at=NOW)
    found = JoinCache(opened(tmp_path), tmp_path / "rows", lambda frame: frame).rows(Counted, since=None, at=NOW)
    assert found.files == 8
    assert found.most <= 2


def test_only_the_files_that_a_new_label_names_are_joined(tmp_path):
    predict(tmp_path, "a", number=1)
    predict(tmp_path, "b", number=2)
    cache(tmp_path).rows(Taken, since=None, at=NOW)
    label(tmp_path, "b", True)
    label(tmp_path, "nobody", True)
    again = cache(tmp_path)
    assert rows(again.rows(Taken, since=None, at=NOW)) == whole(tmp_path, NOW)
    assert [part.key.partition("/")[0] for part in again.joined] == [f"date={day(2):%Y-%m-%d}"]


def test_a_label_of_the_future_counts_from_its_moment_on(tmp_path):
    predict(tmp_path, "a")
    label(tmp_path, "a", True, hours=-5)
    for hours, labelled, joined in ((0, 0, 1), (4, 0, 0), (5, 1, 1), (6, 1, 0), (1, 0, 1)):
        at, here = NOW + timedelta(hours=hours), cache(tmp_path)
        found = pl.concat(here.rows(Taken, since=None, at=at))
        assert (found["label"].count(), len(here.joined)) == (labelled, joined), hours


def test_labels_that_are_merged_are_no_news(tmp_path):
    predict(tmp_path, "a", "b")
    label(tmp_path, "a", True)
    label(tmp_path, "b", False)
    cache(tmp_path).rows(Taken, since=None, at=NOW)
    labels = logs(tmp_path / "outcomes").labels
    batches = LabelBatches(labels)
    _merge(labels, batches, batches.names, 1)
    after = cache(tmp_path)
    assert rows(after.rows(Taken, since=None, at=NOW)) == whole(tmp_path, NOW)
    assert after.joined == []


def test_labels_taken_in_again_with_another_meaning_are_news(tmp_path):
    predict(tmp_path, "a")
    path = tmp_path / "given.jsonl"
    said = {"id": "a", "x": True, "y": False, "known_time": (NOW - timedelta(hours=1)).isoformat()}
    for names, value in (({"label": "x"}, "true"), ({"label": "y"}, "false")):
        shutil.rmtree(tmp_path / "outcomes" / "labels", ignore_errors=True)
        tell(tmp_path / "outcomes", said, name=path.name, names=names, clock=_At(value))
        assert pl.concat(cache(tmp_path).rows(Taken, since=None, at=NOW))["label"].to_list() == [value]


class _At:
    def __init__(self, value):
        self._second = len(value)

    def now(self):
        return NOW + timedelta(seconds=self._second)


@pytest.mark.parametrize("damage", ["index", "rows", "all"])
def test_what_is_damaged_or_gone_is_joined_again(tmp_path, damage):
    predict(tmp_path, "a")
    label(tmp_path, "a", True)
    cache(tmp_path).rows(Taken, since=None, at=NOW)
    folder = tmp_path / "rows"
    for path in folder.iterdir():
        if damage == "all":
            path.unlink()
        elif (path.name == "index") == (damage == "index"):
            path.write_bytes(path.read_bytes()[:-9] + bytes(9))
    again = cache(tmp_path)
    assert rows(again.rows(Taken, since=None, at=NOW)) == whole(tmp_path, NOW)
    assert len(again.joined) == 1


def test_a_folder_that_cannot_be_written_changes_no_result(tmp_path):
    predict(tmp_path, "a")
    (tmp_path / "rows").write_bytes(b"a file where the folder should be")
    assert rows(cache(tmp_path).rows(Taken, since=None, at=NOW)) == whole(tmp_path, NOW)


def merge_all(tmp_path):
    """Merge all batches, and delete what was merged, whose time of grace is over."""
    labels = logs(tmp_path / "outcomes").labels
    old = LabelBatches(labels)
    _merge(labels, old, old.names, 1)
    labels.delete([old.part(name) for name in old.names])


@pytest.mark.parametrize("first", [True, False])
def test_labels_that_are_merged_while_they_are_read_are_joined(tmp_path, monkeypatch, first):
    predict(tmp_path, "a", "b")
    if not first:
        label(tmp_path, "nobody", True)
        cache(tmp_path).rows(Taken, since=None, at=NOW)
    label(tmp_path, "a", True)
    label(tmp_path, "b", False)
    opening, merged = scanning._open_files, []

    def late(labels, parts, opened):
        if not merged:
            merged.append(parts)
            merge_all(tmp_path)
        return opening(labels, parts, opened)

    monkeypatch.setattr(scanning, "_open_files", late)
    read = rows(cache(tmp_path).rows(Taken, since=None, at=NOW))
    assert merged
    assert read == rows(cache(tmp_path).rows(Taken, since=None, at=NOW)) == whole(tmp_path, NOW)


def test_a_batch_without_rows_is_no_fault(tmp_path):
    predict(tmp_path, "a")
    cache(tmp_path).rows(Taken, since=None, at=NOW)
    (tmp_path / "outcomes" / "labels" / "empty").mkdir(parents=True)
    assert rows(cache(tmp_path).rows(Taken, since=None, at=NOW)) == whole(tmp_path, NOW)


def test_a_file_of_the_log_that_is_merged_while_it_is_read_is_read_elsewhere(tmp_path, monkeypatch):
    predict(tmp_path, "a")
    (path,) = (tmp_path / "log").rglob("*.parquet")
    monkeypatch.setattr("cumulant.serving.prediction_log.storage.log_reader.iterate_files", moving(path, log_stored))
    assert rows(cache(tmp_path).rows(Taken, since=None, at=NOW)) == whole(tmp_path, NOW)


def moving(path, stored):
    """`iterate_files` of a log whose file is renamed when its rows are first read."""

    def listed(*args, **more):
        for part, read in stored(*args, **more):
            yield part, (lambda columns, read=read: gone(columns, read)) if part.name == path.name else read

    def gone(columns, read):
        if path.exists():
            path.rename(path.with_name(f"m{path.name}"))
        return read(columns)

    return listed


def test_a_file_of_the_log_that_is_replaced_by_one_of_the_same_size_is_joined_again(tmp_path):
    predict(tmp_path, "a")
    (path,) = (tmp_path / "log").rglob("*.parquet")
    cache(tmp_path).rows(Taken, since=None, at=NOW)
    stat = path.stat()
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    again = cache(tmp_path)
    again.rows(Taken, since=None, at=NOW)
    assert [part.name for part in again.joined] == [path.name]


def test_rows_that_the_index_does_not_name_are_deleted(tmp_path):
    predict(tmp_path, "a")
    cache(tmp_path).rows(Taken, since=None, at=NOW)
    before = set((tmp_path / "rows").glob("*.arrow"))
    label(tmp_path, "a", True)
    cache(tmp_path).rows(Taken, since=None, at=NOW)
    after = set((tmp_path / "rows").glob("*.arrow"))
    assert (len(before), len(after)) == (1, 1)
    assert before != after


def change(tmp_path, draw, ids):
    """One thing that happens to a project: rows, labels by id or key, early, late, corrected, deleted, merged."""
    what = draw.choice(["rows", "label", "label", "label", "by key", "merge", "delete labels", "delete rows"])
    hours = draw.choice([30, 3, 2, 1, -1, -2])
    if what == "rows" or not ids:
        new = [f"r{len(ids) + place}" for place in range(draw.randint(1, 4))]
        predict(tmp_path, *new, number=draw.randrange(DAYS))
        ids += new
    elif what == "label":
        label(tmp_path, draw.choice([*ids, "nobody"]), draw.random() < 0.5, hours=hours)
    elif what == "by key":
        said = {"card": "c1", "number": draw.randrange(3), "at": day(draw.randrange(DAYS)).isoformat()}
        known = (NOW - timedelta(hours=hours)).isoformat()
        tell(tmp_path / "outcomes", {**said, "label": draw.random() < 0.5, "known_time": known})
    elif what == "merge":
        labels = logs(tmp_path / "outcomes").labels
        batches = LabelBatches(labels)
        if len(batches.names) > 1:
            _merge(labels, batches, draw.sample(batches.names, 2), 1)
    else:
        places = tmp_path / "outcomes" / "labels" if what == "delete labels" else tmp_path / "log"
        found = sorted(places.rglob("*.parquet"))
        if len(found) > 1 and draw.random() < 0.5:
            draw.choice(found).unlink()


@pytest.mark.parametrize("seed", range(6))
def test_random_histories_give_what_a_full_join_gives(tmp_path, seed):
    (tmp_path / "outcomes" / "labels").mkdir(parents=True)
    (tmp_path / "log").mkdir()
    draw, ids, at = random.Random(seed), [], NOW.astimezone(UTC)
    for _ in range(25):
        for _ in range(draw.randint(0, 2)):
            change(tmp_path, draw, ids)
        at = datetime.fromtimestamp(NOW.timestamp() + 3600 * draw.choice([0, 0, 0, 1, 1.5, 3, -5]), UTC)
        assert rows(cache(tmp_path).rows(Taken, since=None, at=at)) == whole(tmp_path, at)
