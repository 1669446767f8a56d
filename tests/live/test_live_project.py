"""A whole project whose source, tables and objects are in S3 (a real server): the same file, another store."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from test_live_objectstore import KEY, SECRET, endpoint  # noqa: F401 - a fixture

from cumulant.drivers.objectstore.bucket import open_bucket
from cumulant.testing.secrets import MemorySecrets

pytestmark = pytest.mark.live

PROJECT = """\
version: 1
model: {name: visits}
data:
  visits:
    path: s3://bucket/raw/*.parquet
    key: id
    event_time: at
training: {target: bought, trials: 2, time: null, folds: 2, ensemble: 1}
environments:
  cloud: {store: "s3://bucket/store"}
"""
FEATURES = """\
from cumulant.features import source

visits = source("visits")
row = visits.columns("pages")
pages_mean = visits.by("person").mean("pages", window="7d")
"""


def visits(count, seed=0):
    rng = np.random.default_rng(seed)
    pages = rng.integers(1, 30, count)
    at = pl.datetime_range(pl.datetime(2026, 1, 1), pl.datetime(2026, 3, 1), "30m", time_zone="UTC", eager=True)
    frame = pl.DataFrame({"id": range(count), "at": at[:count], "person": rng.integers(0, 40, count), "pages": pages})
    return frame.with_columns(bought=pl.Series(rng.random(count) < 1 / (1 + np.exp(8 - pages / 2))))


def cumulant(project, environment, *arguments):
    command = [
        str(Path(sys.executable).with_name("cumulant")),
        *arguments,
        "--project",
        str(project),
        "--env",
        "cloud",
        "--json",
    ]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode in (0, 1), done.stderr + done.stdout
    return json.loads(done.stdout)


@pytest.mark.parametrize("endpoint", ["weed"], indirect=True)
def test_source_tables_and_objects_in_s3(endpoint, tmp_path):  # noqa: F811
    values = {
        "AWS_ACCESS_KEY_ID": KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_REGION": "us-east-1",
    }
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), **values}
    raw = tmp_path / "raw.parquet"
    visits(2000).write_parquet(raw)
    bucket = open_bucket("s3://bucket", MemorySecrets(values))
    bucket.upload("raw/one.parquet", raw)
    project = tmp_path / "visits"
    project.mkdir()
    (project / "cumulant.yaml").write_text(PROJECT)
    (project / "features.py").write_text(FEATURES)

    first = cumulant(project, environment, "train")
    assert first["data"]["rows_in"] == first["data"]["rows_passed"] == 2000
    assert first["model"]["version"] == "1"
    stored = [entry.path for entry in bucket.entries("store/")]
    assert any("features" in key for key in stored)
    assert any("servables" in key for key in stored)

    lineage = cumulant(project, environment, "lineage")
    assert lineage["sources"][0]["files"][0]["url"] == "s3://bucket/raw/one.parquet"

    again = cumulant(project, environment, "train")
    assert again["model"]["version"] == "1"
