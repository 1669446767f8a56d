"""What the stores of a project cost, other file formats, and what expires under `tick`."""

from __future__ import annotations

import json
import os
import time
from datetime import timedelta
from types import SimpleNamespace

import polars as pl
import pytest

from cumulant.cli.app import run
from cumulant.core.errors import ProjectFileError, UsageError
from cumulant.flows.data.validate import validate
from cumulant.flows.maintenance.cleanup import clean
from cumulant.flows.maintenance.schedule import JOBS, tick
from cumulant.flows.storage.cost import storage_cost
from cumulant.flows.storage.lifecycle import check_lifecycle, lifecycle_notes, lifecycle_warnings, show_lifecycle
from cumulant.flows.storage.stored_files import list_stored_files
from cumulant.ports.objects import FileClasses
from cumulant.project.file.loading import load
from cumulant.testing.registry import MemoryRegistry

PROJECT = """version: 1
model: {name: pay}
data:
  payments: {path: payments.parquet, key: id, event_time: at}
lifecycle:
  data: {cool: 30d, archive: 90d}
environments:
  production: {store: "s3://bucket/ml?region=eu-central-1", log: "s3://bucket/logs"}
  azure: {store: "az://models/ml", log: "az://logs/here", lifecycle: {logs: {cool: 31d}}}
  short: {store: "s3://bucket/ml", data: {payments: {keep: 100d}}}
  wrong: {store: "s3://bucket/ml", lifecycle: {data: {cool: 100d}, logs: {cool: 90d}}}
  hasty: {serving: {log: {keep: 5d}}, monitoring: {performance: {label_delay: 7d}}}
"""
PRICES = """date = "2026-12-01"
source = "our own disks"
currency = "EUR"
[[groups]]
store = "file"
regions = ["local"]
hot = 1000.0
cool = 1000.0
archive = 1000.0
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pay")
    (folder / "cumulant.yaml").write_text(PROJECT)
    (folder / "prices.toml").write_text(PRICES)
    for rows in (1_000, 2_000):  # the first snapshot is one that may expire
        pl.DataFrame(
            {
                "id": range(rows),
                "at": pl.Series(range(rows)).cast(pl.Datetime("ms", "UTC")),
                "card": [n % 7 for n in range(rows)],
                "place": [f"town {n % 90}" for n in range(rows)],
            }
        ).write_parquet(folder / "payments.parquet")
        with load(folder) as project:
            validate(project, principal=project.principal())
    return folder


@pytest.fixture
def project(folder):
    registry = MemoryRegistry()
    with load(folder) as loaded:
        loaded.registry = lambda: registry
        yield loaded


def test_costs_are_of_the_files_that_are_stored(project, folder):
    cost = storage_cost(project, principal=project.principal(), prices=folder / "prices.toml", formats=True)
    tables = project.endpoints.tables.removeprefix("file://")
    stored = sum(os.path.getsize(os.path.join(place, name)) for place, _, names in os.walk(tables) for name in names)
    (data,) = (row for row in cost.rows if row.kind == "data")
    assert (data.name, data.store, data.storage_class, data.bytes) == ("payments", "file", "hot", stored)
    assert data.monthly == pytest.approx(stored / 2**30 * 1000)
    assert {row.kind for row in cost.rows} == {"data", "journal"}
    assert cost.monthly == cost.hot_monthly == pytest.approx(sum(row.monthly for row in cost.rows))
    assert cost.move_fees == 0, "a folder has no classes"
    assert cost.prices.currency == "EUR"
    by_format = {item.format: item for item in cost.formats}
    assert by_format.keys() == {"csv", "parquet", "orc"}
    assert all(item.error is None and item.read_seconds > 0 for item in cost.formats)
    assert by_format["csv"].bytes > 2 * by_format["parquet"].bytes
    assert by_format["csv"].monthly == pytest.approx(by_format["csv"].bytes / 2**30 * 1000)
    assert not [path for path in (project.state / "spill").rglob("*") if path.is_file()], "the sample is deleted"


def test_commands(folder, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")  # no name is divided among lines

    def answer(*line):
        assert run([*line, "--project", str(folder)]) == 0
        return capsys.readouterr().out

    assert "in proportion to the rows measured" in answer("data", "cost", "--formats")
    assert run(["data", "cost", "--region", "eu-centrall-1", "--project", str(folder)]) == 2
    assert 'did you mean "eu-central-1"?' in capsys.readouterr().err
    text = answer("data", "cost")
    assert "payments" in text
    assert "files of this machine cost 0" in text
    view = json.loads(answer("data", "lifecycle", "--env", "production", "--render", "s3", "--json"))
    assert view["rules"]["bucket"]["Rules"][0]["Filter"]["And"]["Prefix"] == "ml/tables/default/pay/production/data/"
    assert [item["name"] for item in view["classes"]] == ["STANDARD_IA", "GLACIER_IR"]
    text = answer("data", "lifecycle", "--env", "production")
    assert "STANDARD_IA" in text
    assert "savings are before the fees for moving files" in text
    answer("data", "lifecycle", "--env", "production", "--render", "s3", "--out", str(folder / "rules"))
    assert json.loads((folder / "rules" / "bucket.json").read_text()) == view["rules"]["bucket"]


def test_a_bucket_that_does_not_say_classes_is_asked_once(folder, monkeypatch):
    entry, asked, warnings = SimpleNamespace(path="data/payments/1", bytes=9, modified=0.0), [], []

    def classes(paths):
        asked.append(paths)
        return FileClasses([""] * len(paths), "8 requests had no response: timed out")

    bucket = SimpleNamespace(entries=lambda prefix: iter([entry] * 3), classes=classes)
    with load(folder, environment="production") as project:
        monkeypatch.setattr(project, "artifacts", lambda url: bucket)
        stored = [*list_stored_files(project, classes=2, warn=warnings.append)]
    assert {file.read_class for file in stored} == {""}
    assert [len(paths) for paths in asked] == [2], "the other places are in the same bucket"
    (warning,) = warnings
    assert warning.startswith("the class of 0 of 2 files below s3://bucket/ml/")
    assert warning.endswith("was read: 8 requests had no response: timed out")


def test_azure_has_one_policy_for_all_containers(folder, tmp_path):
    """As the documented command replaces the policy of the account."""
    line = ["data", "lifecycle", "--env", "azure", "--render", "azure", "--out", str(tmp_path)]
    assert run([*line, "--project", str(folder)]) == 0
    (path,) = tmp_path.iterdir()
    assert path.name == "management-policy.json"
    rules = json.loads(path.read_text())["rules"]
    first = [rule["definition"]["filters"]["prefixMatch"][0].partition("/")[0] for rule in rules]
    assert first == ["logs", "models"]
    assert len({rule["name"] for rule in rules}) == 2


def test_what_plan_reports(folder):
    with load(folder) as project:
        assert "only `keep` has an effect there" in lifecycle_notes(project)[0]
        with pytest.raises(UsageError, match="no store of environment local is in s3://"):
            show_lifecycle(project, principal=project.principal(), render="s3")
    with load(folder, environment="short") as project:
        assert lifecycle_notes(project) == []
        assert "bills at least 90 days" in lifecycle_warnings(project)[0]
    with load(folder, environment="wrong") as project, pytest.raises(ProjectFileError) as caught:
        check_lifecycle(project)
    assert [line for _, line, _ in caught.value.problems] == [6, 11]
    with load(folder, environment="hasty") as project, pytest.raises(ProjectFileError, match=r"serving\.log\.keep"):
        check_lifecycle(project)


@pytest.mark.parametrize(
    ("declared", "text"),
    [
        ({"monitoring.drift.window": "14d"}, "compares windows of 98d"),
        ({"monitoring.performance.label_delay": "90d"}, "labels come when their predictions are deleted"),
        ({"serving.log.keep": "6d"}, "compares windows of 7d"),
    ],
)
def test_a_default_contradicts_nobody(folder, declared, text):
    """Such a project is planned, and told; where both ages are written it is refused."""
    with load(folder, overrides=declared) as project:
        check_lifecycle(project)
        (warning,) = lifecycle_warnings(project)
        assert text in warning
    both = {"serving.log.keep": "90d", "monitoring.drift.window": "1d"} | declared
    with load(folder, overrides=both) as project, pytest.raises(ProjectFileError, match=text):
        check_lifecycle(project)


def test_tick_removes_what_expired(folder, project):
    """And of it only what is older than `keep`; the newest snapshot is read as before."""
    who, jobs = project.principal(), [job for job in JOBS if job.name == "retention"]
    (result,), error = tick(project, principal=who, jobs=jobs)
    assert (result.sentence, error) == ("no source has a keep", None)
    assert clean(project, principal=who) == []
    time.sleep(1.1)  # so that the first snapshot is older than `keep`
    hours = timedelta(hours=-2)
    with load(folder, overrides={"data.payments.keep": "1s"}) as kept:
        kept.registry = project.registry
        later = [type(jobs[0])(name="retention", every=hours, run=jobs[0].run)]
        (result,), error = tick(kept, principal=who, jobs=later)
        assert error is None
        assert result.sentence.startswith("removed ")
        assert clean(kept, principal=who, expired_only=True) == []
        again = validate(kept, principal=who).snapshots["payments"]
        assert (again.processed, again.rows_passed) == ((), 2_000)
