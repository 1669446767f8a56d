"""Predictions of a person and what was joined with them are erased; all others, numbers and cursors stay."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import msgspec
import polars as pl
import pyarrow.parquet as pq
import pytest
from outcomes_support import KEY, NOW, SALT, batch_names, logs, opened, put, tell

from cumulant.core.masking import mask
from cumulant.drivers.local import log as log_driver
from cumulant.outcomes import erasure
from cumulant.outcomes.join.joining import read_progress
from cumulant.outcomes.labels.batches import LabelBatches
from cumulant.ports.log import current_parts
from cumulant.ports.tables import PROTECT, Protection
from cumulant.serving.prediction_log.storage.log_reader import find_gaps, find_predictions, recent_predictions
from cumulant.serving.prediction_log.storage.retention import upkeep
from cumulant.testing.log import folder_log

ANN, BOB = "4000-ann", "5000-bob"
MIRROR = {"shadow": True, "served_arm": "candidate", "version": "2"}
AT = NOW.replace(minute=0, second=0)


def fill(folder):
    """Three people's requests in two parts, some mirrored, with labels by id and by key; one mirrored row waits."""
    put(
        folder / "log",
        {"id": "a1", "card": ANN, "at": AT, "worker": "w"},
        {"id": "b1", "card": BOB, "at": AT, "worker": "w"},
        {"id": "a2", "card": ANN, "number": 2, "at": AT, "worker": "w"},
    )
    mirrored = [
        {"id": name, "card": card, "at": AT, "worker": "m", **MIRROR} for name, card in (("a1", ANN), ("b1", BOB))
    ]
    lone = {"id": "a3", "card": ANN, "at": AT, "worker": "m", **MIRROR}
    put(folder / "log", *mirrored, lone)
    tell(
        folder / "outcomes", {"id": "a1", "label": True}, {"id": "b1", "label": True}, {"label": True}, name="ids.jsonl"
    )
    keyed = [
        {"card": card, "number": number, "at": AT.isoformat(), "label": 0} for card, number in ((ANN, 2), (BOB, 9))
    ]
    tell(folder / "outcomes", *keyed, name="keys.jsonl")
    opened(folder).advance()


def erase(folder):
    hashed = mask(ANN, SALT)
    log, of = folder_log(folder / "log"), logs(folder / "outcomes")
    requests = erasure.SubjectRequests([hashed], lambda row: row.get("card") == hashed)
    found = list(erasure.find_predictions(log, requests))
    rows = erasure.all_rows(found)
    labels = list(erasure.find_labels(of, rows, KEY, lambda key: hashed in key))
    joined = list(erasure.find_joined(of, rows))
    erasure.erase_labels(of, labels)
    erasure.erase_joined(of, rows, joined)
    erasure.erase_predictions(log, found)
    return rows.height, sum(part.rows.height for part in labels), sum(part.rows.height for part in joined)


def contents(folder):
    """All files as they can be read: bytes, and the rows of Parquet."""
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            rows = str(pl.read_parquet(path).to_dicts()) if path.suffix == ".parquet" else ""
            yield path, path.read_bytes() + rows.encode()


def test_nothing_of_the_person_is_left_and_all_of_the_others_is(tmp_path):
    fill(tmp_path)
    log, outcomes = folder_log(tmp_path / "log"), opened(tmp_path)
    cursor, batches = log.read().cursor, batch_names(tmp_path / "outcomes")
    labelled, middle = outcomes.labelled()
    _, pairs_end = outcomes.pairs()
    assert sorted(labelled["id"]) == ["a1", "a1", "a2", "b1", "b1"]
    assert sorted(pair.id for pair in outcomes.pairs()[0]) == ["a1", "b1"]
    assert read_progress(logs(tmp_path / "outcomes").joined).waiting_rows()["id"].to_list() == ["a3"]

    assert erase(tmp_path) == (4, 2, 5)
    assert erase(tmp_path) == (0, 0, 0)
    for path, content in contents(tmp_path):
        assert mask(ANN, SALT).encode() not in content, path
        if path.suffix == ".parquet":
            assert not any(name in content for name in (b"'a1'", b"'a2'", b"'a3'")), path
    assert read_progress(logs(tmp_path / "outcomes").joined).waiting_rows().is_empty()
    assert [row.id for row in recent_predictions(log)] == ["b1", "b1"]
    assert find_predictions(log, "a1") == []

    assert find_gaps(log) == []
    assert log.read(cursor).parts == []
    outcomes = opened(tmp_path)
    assert outcomes.labelled()[0]["id"].to_list() == ["b1", "b1"]
    assert outcomes.labelled(middle)[0].is_empty()
    assert outcomes.pairs(pairs_end)[0] == []
    assert [pair.id for pair in outcomes.graded()[0]] == ["b1"]
    assert outcomes.label_facts().height == 3
    assert batch_names(tmp_path / "outcomes") == batches
    assert outcomes.advance().labelled == 0

    # What comes later is joined as ever, and rows that are merged stay erased.
    put(tmp_path / "log", {"id": "c1", "card": "c", "at": AT, "worker": "v"})
    tell(tmp_path / "outcomes", {"id": "c1", "label": True}, name="later.jsonl")
    assert outcomes.advance().labelled == 1
    upkeep(log, keep=None, file_size=1 << 26, file_age=0.0)
    assert sorted(row.id for row in recent_predictions(log)) == ["b1", "b1", "c1"]
    assert outcomes.labelled(middle)[0]["id"].to_list() == ["c1"]


def test_a_file_of_labels_that_was_ingested_is_not_ingested_again(tmp_path):
    fill(tmp_path)
    facts = [LabelBatches(logs(tmp_path / "outcomes").labels).find(name) for name in batch_names(tmp_path / "outcomes")]
    erase(tmp_path)
    batches = LabelBatches(logs(tmp_path / "outcomes").labels)
    assert [batches.find(name) for name in batches.names] == facts
    label = {"card": ANN, "number": 2, "at": AT.isoformat(), "label": 0}
    other = {"card": BOB, "number": 9, "at": AT.isoformat(), "label": 0}
    assert tell(tmp_path / "outcomes", label, other, name="again.jsonl").again


def test_what_is_personal_is_declared_in_every_part(tmp_path):
    fill(tmp_path)
    for _ in range(2):
        declared = {}
        for path in (tmp_path / "outcomes").rglob("*.parquet"):
            protection = msgspec.json.decode(pq.read_metadata(path).metadata[PROTECT.encode()], type=Protection)
            declared[path.name.partition("-")[0]] = protection.columns
        labels = declared.pop(batch_names(tmp_path / "outcomes")[0])
        assert labels == ("ref", "key")
        assert declared["labelled"] == ("outputs",)
        assert declared["pairs"] == ("champion_outputs", "candidate_outputs")
        erase(tmp_path)


def test_parts_that_were_merged_and_not_yet_deleted_are_erased_too(tmp_path):
    log = folder_log(tmp_path / "log")
    fill(tmp_path)
    (one, _) = current_parts(log)
    with log.open(one) as part, log.append(msgspec.structs.replace(one, last=2)) as merged:
        merged.write(part.read())
    assert len(list(erasure.find_predictions(log, erasure.SubjectRequests(["#"], lambda _: True)))) == 3
    erase(tmp_path)
    assert not [path for path, content in contents(tmp_path / "log") if mask(ANN, SALT).encode() in content]


def test_a_request_that_is_written_with_escapes_is_found(tmp_path):
    put(tmp_path / "log", {"id": "a", "card": "x"})
    log, (part,) = folder_log(tmp_path / "log"), current_parts(folder_log(tmp_path / "log"))
    rows = pl.read_parquet(tmp_path / "log" / part.key).with_columns(
        request=pl.lit('{"name": "J\\u00f6rg", "number": 7}')
    )
    rows.write_parquet(tmp_path / "log" / part.key)
    for requests in (
        erasure.SubjectRequests(["Jörg"], lambda row: row["name"] == "Jörg"),
        erasure.SubjectRequests(["7"], lambda row: str(row["number"]) == "7"),
    ):
        (found,) = erasure.find_predictions(log, requests)
        assert found.rows["id"].to_list() == ["a"]


KILLED = """
import os, pathlib, sys
import cumulant.drivers.local.log as driver
from test_outcomes_erasure import STEPS, erase
left = [int(sys.argv[2])]
def counted(real):
    def called(*given, **more):
        left[0] -= 1
        if left[0] < 0:
            os.kill(os.getpid(), 9)
        return real(*given, **more)
    return called
for owner, name in STEPS:
    setattr(owner, name, counted(getattr(owner, name)))
erase(pathlib.Path(sys.argv[1]))
"""
#: what an erasure does last before a part or a record is another one
STEPS = ((os, "fsync"), (Path, "replace"), (log_driver, "replace_file"))


def finish(folder):
    """Check what a process left that was ended in an erasure, and erase again."""
    labelled = opened(folder).labelled()[0]["id"].to_list()  # all parts are whole
    assert labelled.count("b1") == 2
    assert find_gaps(folder_log(folder / "log")) == []
    erase(folder)
    whole = [content for path, content in contents(folder) if not path.name.startswith(".")]
    assert not any(mask(ANN, SALT).encode() in content for content in whole)
    assert opened(folder).labelled()[0]["id"].to_list() == ["b1", "b1"]


@pytest.mark.slow
@pytest.mark.parametrize("step", [3, 12])
def test_an_erasure_that_is_killed_is_finished_by_the_next(tmp_path, step):
    fill(tmp_path)
    paths = [str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]
    env = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths))}
    line = [sys.executable, "-c", KILLED, str(tmp_path), str(step)]
    assert subprocess.run(line, check=False, timeout=120, env=env).returncode == -signal.SIGKILL
    finish(tmp_path)


@pytest.mark.slow
def test_an_erasure_that_is_cut_off_at_any_step_is_finished_by_the_next(tmp_path, monkeypatch):
    for step in range(40):
        folder, left = tmp_path / str(step), [step]
        fill(folder)

        def counted(real, left=left):
            def called(*given, **more):
                left[0] -= 1
                if left[0] < 0:
                    raise KeyboardInterrupt
                return real(*given, **more)

            return called

        with monkeypatch.context() as patch:
            for owner, name in STEPS:
                patch.setattr(owner, name, counted(getattr(owner, name)))
            try:
                erase(folder)
                break
            except KeyboardInterrupt:
                pass
        finish(folder)
    assert 8 <= step < 39
