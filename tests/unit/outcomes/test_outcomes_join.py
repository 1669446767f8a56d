"""The join of predictions and labels: each once, whatever comes first, whatever is killed."""

import os
import random
import shutil
from datetime import timedelta

import msgspec
import polars as pl
import pyarrow.parquet as pq
import pytest
from outcomes_support import NOW, Clock, logs, micros, opened, put, report, tell

from cumulant.core.errors import StorageError
from cumulant.outcomes.labels.label_facts import newest_labels
from cumulant.testing.log import folder_log

EARLIER = (NOW - timedelta(hours=2)).isoformat()
LATER = (NOW - timedelta(hours=1)).isoformat()


def now_table(outcomes, **more):
    return pl.concat(outcomes.table(**more)).sort("id", "row")


def test_a_label_by_id_is_joined_once(tmp_path):
    put(tmp_path / "log", {"id": "a", "p": 0.9}, {"id": "b"})
    tell(tmp_path / "outcomes", {"id": "a", "label": True, "known_time": LATER, "weight": 2})
    outcomes = opened(tmp_path)
    assert outcomes.advance().labelled == 1
    found, cursor = outcomes.labelled()
    assert found.select("id", "row", "score", "label", "value", "weight", "provenance").rows() == [
        ("a", 0, 0.9, "true", 1.0, 2.0, "labelled")
    ]
    assert outcomes.advance().labelled == 0
    assert outcomes.labelled(cursor)[0].height == 0


def test_a_label_by_key_and_time_meets_the_hashes_of_the_log(tmp_path):
    put(tmp_path / "log", {"id": "a", "card": "card 4000", "number": 7}, {"id": "b", "card": "card 4001", "number": 7})
    said = {"card": "card 4000", "number": "7", "at": (NOW - timedelta(hours=1)).isoformat(), "label": "1"}
    tell(tmp_path / "outcomes", said)
    outcomes = opened(tmp_path)
    assert outcomes.advance().labelled == 1
    assert outcomes.labelled()[0]["id"].to_list() == ["a"]
    stored = b"".join(path.read_bytes() for path in (tmp_path / "outcomes").rglob("*.parquet"))
    assert b"card 4000" not in stored


def test_a_label_that_comes_before_its_prediction_waits_for_it(tmp_path):
    tell(tmp_path / "outcomes", {"id": "a", "label": 0, "known_time": LATER})
    outcomes = opened(tmp_path)
    assert outcomes.advance().labelled == 0
    put(tmp_path / "log", {"id": "a"})
    assert report(outcomes, NOW).unmatched == 0
    assert outcomes.advance().labelled == 1


class CountedLog:
    """A log that counts how often it is listed."""

    def __init__(self, log):
        self._log, self.lists = log, 0

    def __getattr__(self, name):
        return getattr(self._log, name)

    def days(self):
        self.lists += 1
        return self._log.days()

    def read(self, cursor="", *, limit=None):
        self.lists += 1
        return self._log.read(cursor, limit=limit)


def test_the_log_is_listed_once_for_new_labels_and_twice_for_new_predictions(tmp_path):
    put(tmp_path / "log", {"id": "a"})
    tell(tmp_path / "outcomes", {"id": "a", "label": 1, "known_time": LATER})
    outcomes = opened(tmp_path)
    outcomes.log = log = CountedLog(outcomes.log)
    assert (outcomes.has_news(), outcomes.advance().labelled, log.lists) == (True, 1, 1)
    put(tmp_path / "log", {"id": "b"})
    assert (outcomes.has_news(), outcomes.advance().labelled, log.lists) == (True, 0, 3)
    assert (outcomes.has_news(), log.lists) == (False, 4)


def test_newer_knowledge_replaces_and_contradictions_take_a_label_away(tmp_path):
    put(tmp_path / "log", {"id": "a"}, {"id": "b"}, {"id": "c"})
    outcomes, folder = opened(tmp_path), tmp_path / "outcomes"
    tell(folder, *({"id": name, "label": False, "known_time": EARLIER} for name in "abc"))
    tell(folder, {"id": "a", "label": True, "known_time": LATER}, {"id": "b", "label": True, "known_time": EARLIER})
    rows = now_table(outcomes).select("id", "label", "provenance").rows()
    assert rows == [("a", "true", "corrected"), ("b", None, "contradicted"), ("c", "false", "labelled")]
    before = now_table(outcomes, as_of=NOW - timedelta(minutes=90))["label"].to_list()
    assert before == ["false", None, "false"]
    tell(folder, {"id": "b", "label": True, "known_time": LATER})
    assert now_table(outcomes)["label"].to_list() == ["true", "true", "false"]
    told = report(outcomes, NOW)
    assert (told.labelled, told.corrected, told.contradicted, told.duplicates) == (3, 2, 0, 0)


def test_what_cannot_be_used_is_kept_and_told(tmp_path):
    put(tmp_path / "log", {"id": "a"}, {"id": "b", "shadow": True})
    folder = tmp_path / "outcomes"
    later = (NOW + timedelta(hours=1)).isoformat()
    said = [
        {"id": "a", "label": "perhaps", "known_time": LATER},
        {"id": "a", "label": None},
        {"label": True},
        7,
        {"id": "a", "label": True, "known_time": "soon"},
        {"id": "a", "label": True, "known_time": later},
        {"id": "zz", "label": True, "known_time": LATER},
        {"id": "zz", "label": True, "known_time": LATER},
    ]
    taken = tell(folder, *said)
    assert taken.file.problems == {
        "wrong type": 1,
        "no label": 1,
        "names no prediction": 1,
        "not a row": 1,
        "unreadable time": 1,
    }
    clock = Clock()
    outcomes = opened(tmp_path, clock=clock)
    told = report(outcomes, NOW)
    assert (told.rows, told.duplicates, told.waiting, told.unmatched) == (8, 1, 1, 1)
    assert (told.predictions, told.labelled) == (1, 0)
    assert outcomes.advance().labelled == 0
    clock.time = NOW + timedelta(hours=2)
    assert outcomes.advance().labelled == 1
    assert {one.state for one in newest_labels(logs(folder), NOW)[0]} == {"usable", "waiting", "refused"}
    assert [one.line for one in newest_labels(logs(folder), NOW, state="refused")[0]] == [1, 2, 3, 4, 5]


def test_the_same_content_is_taken_in_once_under_any_name(tmp_path):
    rows = [{"id": "a", "label": True}]
    assert not tell(tmp_path / "outcomes", *rows, name="one.jsonl").again
    assert tell(tmp_path / "outcomes", *rows, name="two.jsonl").again
    assert len(newest_labels(logs(tmp_path / "outcomes"), NOW + timedelta(hours=9))[0]) == 1


def test_mirrored_requests_are_paired_and_graded_once(tmp_path):
    log = tmp_path / "log"
    put(log, {"id": "a", "p": 0.2, "served_arm": "champion", "version": "1"})
    outcomes = opened(tmp_path)
    outcomes.advance()
    put(log, {"id": "a", "p": 0.7, "served_arm": "candidate", "version": "2", "shadow": True})
    put(log, {"id": "lone", "p": 0.7, "served_arm": "candidate", "version": "2", "shadow": True})
    assert outcomes.advance().pairs == 1
    (pair,), cursor = outcomes.pairs()
    assert (pair.champion_version, pair.candidate_version, pair.champion, pair.candidate, pair.differs) == (
        "1",
        "2",
        0.2,
        0.7,
        True,
    )
    tell(tmp_path / "outcomes", {"id": "a", "label": True, "known_time": LATER})
    assert outcomes.advance().graded == 1
    (one,), _ = outcomes.graded()
    assert (one.champion, one.candidate, one.score) == (pytest.approx(0.64), pytest.approx(0.09), 0.2)
    put(log, {"id": "lone", "p": 0.1, "served_arm": "champion", "version": "1"})
    tell(tmp_path / "outcomes", {"id": "lone", "label": False, "known_time": LATER})
    found = outcomes.advance()
    assert (found.pairs, found.graded, outcomes.advance()) == (1, 1, type(found)(labelled=0, pairs=0, graded=0))
    assert [one.id for one in outcomes.pairs(cursor)[0]] == ["lone"]


def test_progress_that_is_lost_finds_nothing_twice(tmp_path):
    put(
        tmp_path / "log",
        {"id": "a"},
        {"id": "b", "served_arm": "candidate", "version": "2", "shadow": True},
        {"id": "b"},
    )
    tell(
        tmp_path / "outcomes",
        {"id": "a", "label": True, "known_time": LATER},
        {"id": "b", "label": True, "known_time": LATER},
    )
    outcomes = opened(tmp_path)
    first = outcomes.advance()
    assert (first.labelled, first.pairs, first.graded) == (3, 1, 1)
    (tmp_path / "outcomes" / "joined" / "progress").unlink()
    again = outcomes.advance()
    assert (again.labelled, again.pairs, again.graded) == (0, 0, 0)


def test_a_damaged_file_is_named(tmp_path):
    tell(tmp_path / "outcomes", {"id": "a", "label": True})
    (part,) = (tmp_path / "outcomes" / "labels").rglob("*.parquet")
    part.write_bytes(b"no parquet")
    with pytest.raises(StorageError, match="cannot be read"):
        opened(tmp_path).advance()


def test_a_file_that_is_merged_while_it_is_looked_at_loses_no_label(tmp_path, monkeypatch):
    """The log merges its files at any moment, also between the listing and the reading of one that was seen."""

    from cumulant.serving.prediction_log.storage.log_reader import iterate_files

    put(tmp_path / "log", {"id": "a"})
    outcomes = opened(tmp_path)
    outcomes.advance()
    tell(tmp_path / "outcomes", {"id": "a", "label": True, "known_time": LATER})
    merged = []

    def merging(log):
        found = list(iterate_files(log))
        if not merged:
            ((part, _),) = found
            wider = msgspec.structs.replace(part, last=part.last + 1)
            pq.write_table(pq.read_table(tmp_path / "log" / part.key), tmp_path / "log" / wider.key)
            (tmp_path / "log" / part.key).unlink()
            merged.append(wider)
        return found

    monkeypatch.setattr("cumulant.serving.prediction_log.storage.log_reader.iterate_files", merging)
    assert outcomes.advance().labelled == 1
    assert merged


@pytest.mark.parametrize("seed", range(4))
def test_whatever_comes_first_each_labelled_prediction_is_given_once(tmp_path, seed):
    """Files of the log, labels, looks and lost notes in any order: in the end the cursor has given what the table has."""
    dice = random.Random(seed)
    outcomes, folder = opened(tmp_path), tmp_path / "outcomes"
    cursor, given, asked = "", [], 0
    for _ in range(25):
        match dice.choice(["put", "put", "tell", "tell", "look", "lose"]):
            case "put":
                rows = [{"id": f"r{asked + n}", "p": dice.random()} for n in range(3)]
                put(tmp_path / "log", *rows, rows[0] | {"shadow": True, "version": "2", "served_arm": "candidate"})
                asked += 3
            case "tell":
                names = [f"r{dice.randrange(asked + 6)}" for _ in range(3)]
                tell(
                    folder,
                    *(
                        {"id": n, "label": dice.random() < 0.5, "known_time": dice.choice([EARLIER, LATER])}
                        for n in names
                    ),
                )
            case "look":
                outcomes.advance()
                found, cursor = outcomes.labelled(cursor, limit=dice.choice([None, 1]))
                given += found.select("worker", "sequence", "row").rows()
            case "lose":
                (folder / "joined" / "progress").unlink(missing_ok=True)
    outcomes.advance()
    given += outcomes.labelled(cursor)[0].select("worker", "sequence", "row").rows()
    assert len(given) == len(set(given))
    table = now_table(outcomes)
    labelled = table.filter(pl.col("label").is_not_null()).select("worker", "sequence", "row").rows()
    # A prediction that lost its label to a contradiction was given before that.
    lost = table.filter(pl.col("provenance") == "contradicted").select("worker", "sequence", "row").rows()
    assert set(labelled) <= set(given) <= set(labelled) | set(lost)
    pairs, _ = outcomes.pairs()
    assert len(pairs) == asked // 3
    both = table.filter(pl.col("shadow") & pl.col("label").is_not_null())["id"].to_list()
    assert set(both) <= {one.id for one in outcomes.graded()[0]}


def test_a_look_that_is_cut_off_before_the_losses_finds_them_the_next_time(tmp_path, monkeypatch):
    put(tmp_path / "log", {"id": "a"}, {"id": "a", "shadow": True, "version": "2", "served_arm": "candidate"})
    tell(tmp_path / "outcomes", {"id": "a", "label": True, "known_time": LATER})
    outcomes = opened(tmp_path)

    def killed(*_):
        raise KeyboardInterrupt

    for name in ("_pair", "_grade"):
        with monkeypatch.context() as patch:
            patch.setattr(type(outcomes), name, killed)
            with pytest.raises(KeyboardInterrupt):
                outcomes.advance()
    assert outcomes.advance().graded == 1
    assert (len(outcomes.pairs()[0]), len(outcomes.graded()[0]), outcomes.labelled()[0].height) == (1, 1, 2)


MIRROR = {"shadow": True, "version": "2", "served_arm": "candidate"}


def test_pairs_cost_what_is_new_and_not_the_log_of_the_day(tmp_path):
    log, outcomes = tmp_path / "log", opened(tmp_path)
    put(log, {"id": "old"}, {"id": "lone", **MIRROR})
    assert outcomes.advance().pairs == 0
    (old,) = log.rglob("*.parquet")
    old.write_bytes(b"none of it is read again")
    hours_ago = (NOW - timedelta(hours=3)).timestamp()
    os.utime(old, (hours_ago, hours_ago))
    put(log, {"id": "a"}, {"id": "a", **MIRROR})
    put(log, {"id": "lone"})
    assert outcomes.advance().pairs == 2
    assert sorted(one.id for one in outcomes.pairs()[0]) == ["a", "lone"]
    put(log, {"id": "b"})
    assert outcomes.advance().pairs == 0
    put(log, {"id": "b", **MIRROR})
    assert outcomes.advance().pairs == 1


def test_a_day_that_is_deleted_while_the_log_is_read_has_no_rows(tmp_path, monkeypatch):
    put(tmp_path / "log", {"id": "a"})
    tell(tmp_path / "outcomes", {"id": "a", "label": True, "known_time": LATER}, {"id": "b", "label": True})
    days = folder_log(tmp_path / "log").days()
    shutil.rmtree(tmp_path / "log")
    monkeypatch.setattr("cumulant.drivers.local.log.FileLog.days", lambda _: days)
    assert report(opened(tmp_path), NOW).predictions == 0


def test_a_log_of_many_days_is_read_in_parts(tmp_path, monkeypatch):
    monkeypatch.setattr("cumulant.outcomes.scanning._AT_ONCE", 1)
    for day in range(3):
        put(tmp_path / "log", {"id": f"r{day}", "time": micros(NOW - timedelta(days=day))})
    rows = [{"id": f"r{day}", "label": True, "known_time": LATER} for day in (0, 2)]
    tell(tmp_path / "outcomes", *rows, {"id": "x", "label": True, "known_time": LATER})
    found = report(opened(tmp_path), NOW)
    assert (found.predictions, found.labelled, found.unmatched) == (3, 2, 1)
    assert opened(tmp_path).of("r2")[0]["label"].to_list() == ["true"]


@pytest.mark.parametrize("by", ["id", "key"])
def test_a_request_without_rows_of_an_earlier_version_is_no_prediction(tmp_path, by):
    put(tmp_path / "log", {"id": "a", "card": "c1"}, {"id": "b", "empty": True})
    at = (NOW - timedelta(hours=1)).isoformat()
    names = {"id": "a"} if by == "id" else {"card": "c1", "number": 1, "at": at}
    tell(tmp_path / "outcomes", {**names, "label": True})
    assert report(opened(tmp_path), NOW).predictions == 1
