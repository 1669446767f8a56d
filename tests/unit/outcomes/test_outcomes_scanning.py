"""Polars reads logs of several versions, and blames only a file that cannot be read."""

from datetime import timedelta

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from outcomes_support import NOW, logs, micros, opened, put, report, tell

from cumulant.core.errors import StorageError
from cumulant.outcomes import scanning
from cumulant.outcomes.join.log_rows import COLUMNS, TYPES
from cumulant.outcomes.labels.label_facts import newest_labels
from cumulant.ports.log import current_parts
from cumulant.serving.prediction_log.storage.part_writer import SCHEMA
from cumulant.testing.log import folder_log

KNOWN = (NOW - timedelta(hours=1)).isoformat()


def two_files(tmp_path):
    """A log of two days with a row each, `a` and `b`, the older day first."""
    for number, one in enumerate("ab"):
        at = NOW - timedelta(days=1 - number)
        put(tmp_path / "log", {"id": one, "at": at, "time": micros(at)})
    return sorted((tmp_path / "log").rglob("*.parquet"))


@pytest.mark.parametrize("older", [0, 1])
def test_files_of_an_older_version_are_read_beside_newer_ones(tmp_path, older):
    path = two_files(tmp_path)[older]
    pq.write_table(pq.read_table(path).drop_columns(["caller_id", "invalid"]), path)
    tell(tmp_path / "outcomes", *({"id": one, "label": True, "known_time": KNOWN} for one in ("a", "b", "nobody")))
    outcomes = opened(tmp_path)
    assert [outcomes.of(one)[0]["label"].to_list() for one in "ab"] == [["true"], ["true"]]
    counts = report(outcomes, NOW)
    assert (counts.predictions, counts.labelled, counts.unmatched) == (2, 2, 1)
    states = {one.id: one.state for one in newest_labels(logs(tmp_path / "outcomes"), NOW, named=outcomes.named)[0]}
    assert states == {"a": "usable", "b": "usable", "nobody": "unmatched"}


def test_a_file_of_a_newer_version_is_read(tmp_path):
    for path in two_files(tmp_path):
        table = pq.read_table(path)
        pq.write_table(table.append_column("added_later", pa.nulls(len(table), pa.string())), path)
        assert report(opened(tmp_path), NOW).predictions == 2


def test_the_types_are_those_of_the_log():
    written = pl.from_arrow(SCHEMA.empty_table())
    assert {name: written.schema[name] for name in COLUMNS} == TYPES


def test_the_file_of_another_type_is_named(tmp_path):
    path = two_files(tmp_path)[1]
    table = pq.read_table(path)
    pq.write_table(table.set_column(0, "id", pa.array([1])), path)
    with pytest.raises(StorageError) as failed:
        opened(tmp_path).of("a")
    assert failed.value.subject == str(path)


def test_the_folder_is_named_where_each_file_can_be_read(tmp_path, monkeypatch):
    two_files(tmp_path)
    strict = pl.scan_parquet

    def together(paths, **more):
        if len(paths) > 1:
            raise pl.exceptions.ComputeError
        return strict(paths, **more)

    monkeypatch.setattr(scanning.pl, "scan_parquet", together)  # type: ignore[attr-defined]
    with pytest.raises(StorageError) as failed:
        opened(tmp_path).of("a")
    assert failed.value.subject == str(tmp_path / "log")


@pytest.mark.parametrize("folder", ["plain", "a b [c] * ? #%20 ü"])
def test_the_files_that_labels_name_are_found_at_once(tmp_path, folder):
    (tmp_path / folder).mkdir()
    older, newer = two_files(tmp_path / folder)
    log = folder_log(tmp_path / folder / "log")
    both = current_parts(log)
    assert scanning.find_parts_with(log, both, pl.col("id") == "b") == {both[1].key}
    assert tmp_path / folder / "log" / both[1].key == newer
    assert scanning.find_parts_with(log, both, pl.col("id") == "nobody") == set()
    assert scanning.find_parts_with(log, [], pl.col("id") == "a") == set()
    older.write_bytes(older.read_bytes()[:100])
    with pytest.raises(StorageError) as error:
        scanning.find_parts_with(log, both, pl.col("id") == "b")
    assert error.value.subject == str(older)
    older.unlink()
    with pytest.raises(FileNotFoundError):
        scanning.find_parts_with(log, both, pl.col("id") == "b")
