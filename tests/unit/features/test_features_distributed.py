"""Features divided among processes; `tests/live/test_live_spark.py` runs the same on Spark."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from pathlib import Path

import polars as pl
import pytest

from cumulant.core.errors import CumulantError, MissingPartError, OutOfMemoryError, StepFailedError, StorageError
from cumulant.drivers.spark.spark_errors import is_away, read_error
from cumulant.drivers.spark.worker import StageFunction, packages
from cumulant.features.definition.functions import col
from cumulant.features.definition.loading import collect
from cumulant.features.definition.plan import compile_plan
from cumulant.features.distributed.history import compute_in
from cumulant.features.distributed.layout import Division, staging_errors
from cumulant.features.offline.offline import compute
from cumulant.features.offline.polars_compiler import TYPES
from cumulant.testing.compute import DirectHistory
from cumulant.testing.plans.cases import DTYPES, PlanCase, plan_case
from cumulant.testing.plans.oracle import Row

#: some rows a partition, a slice and a block of the result
FINE = Division(partition=16_000, slice=1500, slices=4, least_rows=3)


def frame(rows: Sequence[Row]) -> pl.DataFrame:
    versions = dict.fromkeys(("__from", "__until"), pl.Int64) if any("__from" in row for row in rows) else {}
    return pl.DataFrame(rows, schema={name: TYPES[dtype] for name, dtype in DTYPES.items()} | versions)


def frames(case: PlanCase) -> dict[str, pl.DataFrame]:
    return {name: frame(rows) for name, rows in case.accepted.items()}


@pytest.mark.parametrize(("kind", "seed"), [("corrected", 0), ("out of order", 1), ("without a key", 1)])
def test_rows_beside_the_history_get_what_a_loop_over_all_rows_gives(kind, seed, tmp_path):
    case = plan_case(kind, seed)  # tests/live/test_live_spark.py has all kinds
    blocks = compute_in(DirectHistory(tmp_path), case.plan, frames(case), rows=frame(case.queries))
    assert case.mismatches(pl.concat(blocks).to_dicts()) == []


def test_a_process_that_hashes_keys_otherwise_is_refused(tmp_path, monkeypatch):
    case = plan_case("in order", 0)
    session = DirectHistory(tmp_path)
    monkeypatch.setattr("cumulant.features.distributed.history.probe_hashes", lambda: "1 2 3")
    with pytest.raises(MissingPartError, match="hashes keys otherwise"):
        list(compute_in(session, case.plan, frames(case)))
    assert session.calls == {}


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["corrected", "nulls", "without a key"])
def test_every_row_of_a_history_has_the_values_of_the_embedded_engine_bit_for_bit(kind, tmp_path):
    session = DirectHistory(tmp_path)
    case = plan_case(kind, 1, count=40)
    blocks = list(compute_in(session, case.plan, frames(case), division=FINE))
    assert len(blocks) == session.calls["features"] > 3
    assert session.calls["divide"] > 6
    assert session.calls["windows"] > 4
    assert pl.concat(blocks).equals(compute(case.plan, frames(case)))
    kept = {path.name.partition("-")[0].partition(".")[0] for path in tmp_path.iterdir()}
    assert kept <= {"source", "queries", "versions"}  # results are deleted as they are read


def test_a_plan_without_windows_and_a_source_without_rows_are_computed(tmp_path):
    case = plan_case("in order", 0)
    rows = frames(case)
    empty = {name: of.head(0) for name, of in rows.items()}
    assert pl.concat(compute_in(DirectHistory(tmp_path), case.plan, empty)).equals(compute(case.plan, empty))
    no_events = rows | {"other": rows["other"].head(0)}
    computed = pl.concat(compute_in(DirectHistory(tmp_path), case.plan, no_events, division=FINE))
    assert computed.equals(compute(case.plan, no_events))
    features = collect({"high": col("amount") > 1, "hour": col("at").dt.hour("UTC")})
    plain = compile_plan(features, case.plan.sources, entity="tx", predict_at=case.plan.predict_at)
    computed = pl.concat(compute_in(DirectHistory(tmp_path), plain, rows, division=FINE))
    assert computed.equals(compute(plain, rows))


def test_a_full_disk_of_the_staging_folder_is_named(tmp_path):
    with (
        pytest.raises(StorageError, match="cannot be used: No space left on device") as raised,
        staging_errors(tmp_path),
    ):
        Path("/dev/full").write_text("x", encoding="utf-8")
    assert raised.value.subject == str(tmp_path)
    assert raised.value.hint == "free some space in the staging folder"
    with pytest.raises(StorageError, match="Read-only file system") as raised, staging_errors(tmp_path):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))
    assert raised.value.hint == "make the folder writable"


def test_a_missing_file_of_the_rows_is_no_error_of_the_staging_folder(tmp_path):
    case = plan_case("in order", 0)
    rows = frames(case)
    gone = tmp_path / "gone.parquet"
    rows["tx"].write_parquet(gone)
    scanned = pl.scan_parquet(gone)
    scanned.collect_schema()
    missing = {name: of.lazy() for name, of in rows.items()} | {"tx": scanned}
    gone.unlink()
    with pytest.raises(FileNotFoundError, match="gone"):
        list(compute_in(DirectHistory(tmp_path), case.plan, missing))


def test_a_worker_with_another_version_says_what_to_install():
    stage = StageFunction("cumulant.no_such:function", "{}", packages() | {"polars": "0.1"})
    with pytest.raises(RuntimeError) as raised:
        next(stage([]))
    error = read_error(
        f"Job aborted:\nTraceback (most recent call last):\nRuntimeError: {raised.value}\n\tat org.apache"
    )
    assert isinstance(error, MissingPartError)
    assert "polars" in error.message
    assert error.hint is not None
    assert f"pip install cumulant=={packages()['cumulant']} polars==0.1 numpy pyarrow" in error.hint


@pytest.mark.parametrize(
    ("text", "kind", "says"),
    [
        ("PythonException: ModuleNotFoundError: No module named 'cumulant'", MissingPartError, "lacks cumulant"),
        ("ModuleNotFoundError: No module named 'polars'", MissingPartError, "lacks polars"),
        (
            "Python in worker has different version: 3.12 than that in driver: 3.11, PySpark cannot",
            MissingPartError,
            "have Python 3.12, and this process has Python 3.11",
        ),
        (
            "org.apache.spark.SparkException: Python worker exited unexpectedly (crashed)",
            OutOfMemoryError,
            "ended before",
        ),
        ("Traceback (most recent call last):\n  File x\nValueError: no\n\tat org", StepFailedError, "ValueError: no"),
        ("(org.apache.spark.SparkException) Job 3 cancelled", StepFailedError, "Job 3 cancelled"),
        (
            'RuntimeError: cumulant-error {"code": "storage", "error": "the disk {a} is full"} caused by {y}',
            StorageError,
            "the disk {a} is full",
        ),
        ("RuntimeError: cumulant-error {cut of", StepFailedError, "cumulant-error {cut of"),
        ("java.io.EOFException: reached end of the stream of a shuffle", StepFailedError, "EOFException"),
        (
            "java.io.EOFException\n\tat org.apache.spark.api.python.BasePythonRunner$ReaderIterator.read(PythonRunner:1)",
            OutOfMemoryError,
            "ended before",
        ),
        ("java.lang.OutOfMemoryError: Java heap space", StepFailedError, "Java heap space"),
        ("PythonException: Traceback:\n  File x\nMemoryError\n\tat org", OutOfMemoryError, "ended before"),
    ],
)
def test_texts_of_spark_become_errors(text: str, kind: type[CumulantError], says: str):
    error = read_error(text)
    assert type(error) is kind
    assert says in error.message


@pytest.mark.parametrize(
    ("text", "away"),
    [
        ('<_InactiveRpcError of RPC that terminated with:\n\tstatus = StatusCode.UNAVAILABLE\n\tdetails = "x"', True),
        ("[INVALID_HANDLE.SESSION_CLOSED] The handle 1 is invalid. Session was closed.", True),
        ("[INVALID_HANDLE.SESSION_NOT_FOUND] The handle 1 is invalid. Session not found.", True),
        ("PythonException: ValueError: the column STATUS has the value UNAVAILABLE", False),
        ('cumulant-error {"code": "storage", "error": "StatusCode.UNAVAILABLE"}', False),
    ],
)
def test_a_server_that_does_not_answer_is_told_from_a_text_with_that_word(text: str, away: bool):
    assert is_away(text) is away
