"""Labels and joined rows that an earlier version kept in files are in the logs after the first use, once."""

import json
import shutil
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import polars as pl
import pytest

from cumulant.flows.outcomes.labels import list_labels, outcomes_of
from cumulant.flows.outcomes.outcome_logs import logs_of
from cumulant.outcomes.labels.batches import IngestedFile, LabelBatches
from cumulant.outcomes.labels.ingest import count_waiting, ingest_file, ingest_inbox
from cumulant.outcomes.labels.label_rows import LabelSchema
from cumulant.outcomes.labels.store import FACTS
from cumulant.project.file.loading import load

KNOWN = datetime(2026, 10, 1, tzinfo=UTC)


def fact(name):
    return {
        "ref": f"i\x1f\x1f{name}", "model": "", "known_time": KNOWN, "label": "true", "value": 1.0, "weight": 1.0,
        "id": name, "row": 0, "key": None, "event_time": None, "problem": "", "line": 1, "source": "x",
        "received": KNOWN,
    }  # fmt: skip


def batch(folder, content, names, **facts):
    """One file of an earlier version, a part for each label."""
    (folder / content).mkdir(parents=True)
    schema = pl.from_arrow(FACTS.empty_table()).schema
    for place, name in enumerate(names):
        pl.DataFrame([fact(name)], schema=schema).write_parquet(folder / content / f"{place:05d}.parquet")
    known = IngestedFile(name="x", content=content, received=KNOWN, rows=len(names), **facts)
    (folder / content / "file.json").write_bytes(msgspec.json.encode(known))
    return known


@pytest.fixture
def earlier(tmp_path):
    """A project with a file, two files that were merged, posts, a claim that was ingested, and a graded pair."""
    (tmp_path / "cumulant.yaml").write_text("version: 1\nmodel: {name: late}\n")
    folder = tmp_path / ".cumulant" / "outcomes"
    batch(folder / "labels", "a" * 32, ["a", "b"])
    covered = batch(folder / "labels", "c" * 32, ["c"])
    gone = IngestedFile(name="y", content="d" * 32, received=KNOWN, rows=1)
    batch(folder / "labels", "merged-1-00000000000000000007", ["c", "d"], level=1, covers=(covered, gone))
    batch(folder / "labels", "posted-00000000000000000001", ["e"])
    for place, name in (("inbox", "f"), ("claimed/posted-00000000000000000001", "e")):
        (folder / place).mkdir(parents=True)
        (folder / place / f"post-{name}.jsonl").write_text(json.dumps({"id": name, "label": True}) + "\n")
    graded = {
        "id": "a", "row": 0, "time": KNOWN, "model": "late", "champion_version": "1", "candidate_version": "2",
        "worker": "w", "sequence": 1, "champion": 0.1, "candidate": 0.2, "weight": 1.0, "label": "true",
        "label_known_time": KNOWN,
    }  # fmt: skip
    (folder / "graded").mkdir()
    schema = {"row": pl.Int32(), "time": pl.Datetime("us", "UTC"), "label_known_time": pl.Datetime("us", "UTC")}
    pl.DataFrame([graded], schema_overrides=schema).write_parquet(
        folder / "graded" / "000000000001-000000000001.parquet"
    )
    (folder / "imports").mkdir()
    (folder / "imports" / "1.json").write_text("{}")
    (folder / "progress.json").write_text("{}")
    return tmp_path


def state_of(root):
    with load(root) as project:
        logs = logs_of(project)
        schema = LabelSchema(task="binary", classes=(False, True))
        waiting = count_waiting(logs)
        ingest_inbox(logs, schema)
        facts, total = list_labels(project, principal=project.principal(), limit=100)
        graded, _ = outcomes_of(project, schema).graded()
        assert project.log().state("imports/1.json") == b"{}"
        return (
            waiting,
            sorted(one.id for one in facts),
            total,
            [(pair.id, pair.candidate, pair.score) for pair in graded],
        )


MOVED = (1, ["a", "b", "c", "d", "e", "f"], 6, [("a", 0.2, None)])


def test_all_of_it_is_moved_and_known(earlier, tmp_path_factory):
    assert state_of(earlier) == MOVED
    assert not (earlier / ".cumulant" / "outcomes").exists()
    with load(earlier) as project:
        batches = LabelBatches(logs_of(project).labels)
        assert all(batches.find(content * 32) for content in "acd"), "their files are known"
        path = tmp_path_factory.mktemp("x") / "x.jsonl"
        path.write_text(json.dumps({"id": "z", "label": True}) + "\n")
        assert not ingest_file(logs_of(project), path, LabelSchema()).again


@pytest.mark.parametrize("step", range(1, 14))
def test_a_move_that_is_cut_off_is_finished_by_the_next(earlier, monkeypatch, step):
    done = []

    def until(real):
        def called(*given, **more):
            done.append(1)
            if len(done) == step:
                raise KeyboardInterrupt
            return real(*given, **more)

        return called

    with monkeypatch.context() as patch, load(earlier) as project:
        patch.setattr("cumulant.flows.outcomes.earlier_files.shutil.rmtree", until(shutil.rmtree))
        patch.setattr(Path, "unlink", until(Path.unlink))
        patch.setattr("cumulant.drivers.local.log.FileLog.append", until(type(project.log()).append))
        try:
            logs_of(project)
        except KeyboardInterrupt:
            assert len(done) == step
    assert state_of(earlier) == MOVED
