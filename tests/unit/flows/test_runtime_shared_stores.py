"""40 projects of several tenants and environments in one store: each cleans up its own, at the same time."""

from __future__ import annotations

import inspect
import subprocess
import sys
from itertools import product
from pathlib import Path

import polars as pl
import pytest
from shared_store_worker import ME, STRAY

from cumulant.drivers.local.journal import SqliteJournal
from cumulant.flows.data.validate import newest_snapshot
from cumulant.flows.features.feature_table import featurize
from cumulant.flows.maintenance.cleanup import clean
from cumulant.ports.objects import ObjectStore
from cumulant.project.file.loading import load
from cumulant.project.project import Project

pytestmark = pytest.mark.slow

FILE = """version: 1
model: {{name: {name}}}
data: {{visits: {{path: visits.csv, key: id, event_time: {{column: at, zone: UTC}}}}}}
training: {{target: bought, predict_at: at, trainers: [naive]}}
environments:
  staging: &shared
    tenant: {tenant}
    store: {store}
    tracking_uri: mlflow+sqlite://{shared}/mlflow.db
{journal}  prod: *shared
"""
FEATURES = 'from cumulant.features import source\nvisits = source("visits")\npages = visits.by("who").mean("pages", window="2d")\n'
#: names that begin with each other, differ in case alone, or are of a device
NAMES = ("visits", "visits-eu", "visit", "Visits", "aux")
TENANTS = ("acme", "acme-eu", "ACME", "nul")
ENVIRONMENTS = ("staging", "prod")
SCOPES = list(product(TENANTS, NAMES, ENVIRONMENTS))
PROCESSES = 4


def rows(content: int) -> str:
    lines = (f"{n},2026-01-{1 + n % 28:02} 10:00,w{n % 3},{n + content},{n % 2}\n" for n in range(40))
    return "id,at,who,pages,bought\n" + "".join(lines)


def make(folder: Path, tenant: str, name: str, *, shared: Path, store: str, content: int, journal: str = "") -> Path:
    folder.mkdir(parents=True)
    text = FILE.format(name=name, tenant=tenant, store=store, shared=shared, journal=journal)
    (folder / "cumulant.yaml").write_text(text)
    (folder / "features.py").write_text(FEATURES)
    (folder / "visits.csv").write_text(rows(content))
    return folder


def work(action: str, folders: list[Path]) -> None:
    """`action` in all projects and environments at once: processes, each with a thread a project."""
    commands = [
        [sys.executable, str(Path(__file__).with_name("shared_store_worker.py")), action, environment, *map(str, part)]
        for environment in ENVIRONMENTS
        for part in (folders[start :: PROCESSES // 2] for start in range(PROCESSES // 2))
    ]
    started = [subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) for line in commands]
    outputs = [process.communicate()[0] for process in started]
    assert [process.returncode for process in started] == [0] * PROCESSES, "\n".join(outputs)[-4000:]


def read(objects: ObjectStore, key: str) -> bytes:
    with objects.open(key) as path:
        return path.read_bytes()


def content_of(project: Project) -> dict[str, object]:
    """Every table and object of a project that its snapshots and features are made of, as rows and bytes."""
    tables, objects = project.tables(), project.objects()
    return {
        **{key: tables.scan(key).collect().rows() for key in tables.keys("") if not key.startswith("reproductions/")},
        **{key: read(objects, key) for key in objects.keys("") if key != STRAY},
    }


@pytest.mark.parametrize("journal", ["own", "shared"])
def test_each_cleans_up_its_own_and_nothing_of_the_others(tmp_path: Path, journal: str) -> None:
    if journal == "shared" and "scope" not in inspect.signature(SqliteJournal).parameters:
        pytest.skip("rows of the journal do not carry a scope")
    shared = tmp_path / "shared"
    line = f"    journal: sqlite://{shared}/journal.db\n" if journal == "shared" else ""
    # With journals of their own a project knows of no other; two tenants are as many as can differ in case alone.
    tenants = TENANTS if journal == "shared" else ("acme", "ACME")
    folders = [
        # Projects of one name in two tenants have the same rows, so that their tables have the same names.
        make(tmp_path / tenant / name, tenant, name, shared=shared, store=f"file://{shared}", content=n, journal=line)
        for tenant in tenants
        for n, name in enumerate(NAMES)
    ]
    assert len(folders) * len(ENVIRONMENTS) == {"shared": len(SCOPES), "own": 20}[journal]
    assert len(SCOPES) == 40
    with load(folders[0], environment="prod") as project:
        project.registry().models()  # makes the database that all share
    work("fill", folders)
    opened = [load(folder, environment=environment) for folder in folders for environment in ENVIRONMENTS]
    before = [content_of(project) for project in opened]
    keys = [set(content) for content in before]
    assert keys[0] == keys[1] == keys[2 * len(NAMES)], "what has the same content has the same names"
    work("clean", folders)
    for project, content in zip(opened, before, strict=True):
        assert content_of(project) == content, project.scope
        assert project.objects().find(STRAY) is None
        assert project.tables().keys("reproductions/") == []
        assert featurize(project, principal=ME).reused
        snapshot = newest_snapshot(project, "visits")
        assert snapshot is not None
        assert snapshot.rows_passed == 40
        project.close()


def test_the_store_holds_nothing_outside_of_the_projects_prefixes(tmp_path: Path) -> None:
    folder = make(tmp_path / "p", "acme", "visits", shared=tmp_path, store=f"file://{tmp_path}/store", content=0)
    with load(folder, environment="prod") as project:
        featurize(project, principal=ME)
        project.objects().put(STRAY, folder / "features.py")
        assert project.scope.prefix == "acme/visits/prod/"
        for place in ("tables", "objects"):
            files = [path for path in (tmp_path / "store" / place).rglob("*") if path.is_file()]
            assert files
            assert {path.relative_to(tmp_path / "store" / place).parts[:3] for path in files} == {
                ("acme", "visits", "prod")
            }


def test_the_embedded_store_has_the_same_layout(tmp_path: Path) -> None:
    folder = make(tmp_path / "p", "acme", "visits", shared=tmp_path, store="file://", content=0)
    with load(folder) as project:
        reference = featurize(project, principal=ME).table
        path = project.state / "tables" / project.scope.prefix / f"{reference.key}.parquet"
        assert pl.read_parquet(path / "*.parquet").height == 40
        assert clean(project, principal=ME) == []
