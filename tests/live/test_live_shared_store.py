"""Projects of two tenants and two environments whose tables and objects are in one bucket: each cleans up its own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from test_live_objectstore import KEY, SECRET, endpoint  # noqa: F401 - a fixture

from cumulant.core.scope import Scope
from cumulant.drivers.objectstore.bucket import open_bucket
from cumulant.testing.secrets import MemorySecrets

# one store: what another one does differently is that of the conformance tests
pytestmark = [pytest.mark.live, pytest.mark.parametrize("endpoint", ["weed"], indirect=True)]

WORKER = Path(__file__).parents[1] / "unit" / "flows" / "shared_store_worker.py"
PROJECT = """version: 1
model: {{name: {name}}}
data: {{visits: {{path: visits.csv, key: id, event_time: {{column: at, zone: UTC}}}}}}
training: {{target: bought, predict_at: at, trainers: [naive]}}
environments:
  staging: &shared
    tenant: {tenant}
    store: s3://bucket/shared
    tracking_uri: mlflow+sqlite://{registry}
  prod: *shared
"""
FEATURES = """from cumulant.features import source
visits = source("visits")
pages = visits.by("who").mean("pages", window="2d")
"""
ROWS = "id,at,who,pages,bought\n" + "".join(
    f"{n},2026-01-{1 + n % 28:02} 10:00,w{n % 3},{n},{n % 2}\n" for n in range(40)
)
TENANTS, NAMES, ENVIRONMENTS = ("acme", "ACME"), ("visits", "visit"), ("staging", "prod")


def work(action, folders, values):
    started = [
        subprocess.Popen([sys.executable, WORKER, action, environment, *folders], env=os.environ | values)
        for environment in ENVIRONMENTS
    ]
    assert [process.wait() for process in started] == [0, 0]


def test_each_cleans_up_its_own_in_one_bucket(endpoint, tmp_path):  # noqa: F811
    values = {"AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_ENDPOINT_URL": endpoint}
    values |= {"AWS_REGION": "us-east-1", "HOME": str(tmp_path)}
    folders = []
    for tenant in TENANTS:
        for name in NAMES:
            folder = tmp_path / tenant / name
            folder.mkdir(parents=True)
            text = PROJECT.format(name=name, tenant=tenant, registry=tmp_path / "mlflow.db")
            (folder / "cumulant.yaml").write_text(text)
            (folder / "features.py").write_text(FEATURES)
            (folder / "visits.csv").write_text(ROWS)
            folders.append(folder)
    work("fill", folders, values)
    bucket = open_bucket("s3://bucket", MemorySecrets(values))
    filled = {entry.path: entry.bytes for entry in bucket.entries("shared")}
    scopes = [
        Scope(tenant=tenant, project=name, environment=environment)
        for tenant in TENANTS
        for name in NAMES
        for environment in ENVIRONMENTS
    ]
    folders_of = [f"shared/{port}/{scope.prefix}" for scope in scopes for port in ("tables", "objects")]
    assert all(any(path.startswith(folder) for path in filled) for folder in folders_of)
    assert all(path.startswith(tuple(folders_of)) for path in filled)
    work("clean", folders, values)
    left = {entry.path: entry.bytes for entry in bucket.entries("shared")}
    assert left == {path: size for path, size in filled.items() if "stray" not in path}
    assert len(left) < len(filled)
