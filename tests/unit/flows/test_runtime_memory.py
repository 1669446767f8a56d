"""`resources.memory`: features beyond it are computed in parts, and are the same table."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from cumulant.cli.errors import as_known
from cumulant.core.errors import ProjectFileError
from cumulant.features.offline import partitions
from cumulant.flows.data.memory_budget import scratch_folder
from cumulant.flows.features.feature_table import featurize
from cumulant.ports.access import Principal
from cumulant.project.file.loading import load

PROJECT = """\
version: 1
model: {{name: payments}}
data: {{tx: {{path: tx.parquet, key: [id], event_time: at}}}}
training: {{target: fraud, predict_at: at}}
{resources}
"""
FEATURES = """\
from cumulant.features import col, source

tx = source("tx")
n = tx.by("card").count(window=["1d", "7d", "30d"])
mean = tx.by("card").mean("amount", window=["1d", "7d", "30d"])
ratio = col("amount") / mean["7d"]
"""


def project(folder: Path, resources: str) -> Path:
    folder.mkdir()
    rng = np.random.default_rng(4)
    rows = 60_000
    at = np.sort(rng.integers(0, 300 * 86_400_000_000, rows))
    frame = pl.DataFrame(
        {"id": np.arange(rows), "card": rng.integers(0, 2000, rows), "amount": rng.lognormal(3, 1, rows)}
    )
    frame = frame.with_columns(at=pl.Series(at).cast(pl.Datetime("us", "UTC")), fraud=pl.Series(rng.random(rows) < 0.1))
    frame.write_parquet(folder / "tx.parquet")
    (folder / "features.py").write_text(FEATURES)
    (folder / "cumulant.yaml").write_text(PROJECT.format(resources=resources))
    return folder


def test_features_beyond_the_memory_are_the_same_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = []
    original = partitions.compute_partitioned
    monkeypatch.setattr(partitions, "compute_partitioned", lambda *args, **kw: parts.append(1) or original(*args, **kw))
    tables = []
    for name, resources in (("whole", ""), ("parts", "resources: {memory: 1MiB}")):
        made = load(project(tmp_path / name, resources))
        found = featurize(made, principal=Principal("tester"))
        tables.append((found.table.key, made.tables().scan(found.table).collect()))
        assert len(parts) == (name == "parts")
        assert not scratch_folder(made).exists() or not list(scratch_folder(made).iterdir())
    assert tables[0][0] == tables[1][0]  # what may be taken of the machine names no table
    assert tables[0][1].equals(tables[1][1])


def test_a_memory_that_is_no_size_is_refused_with_the_line(tmp_path: Path) -> None:
    folder = project(tmp_path / "lots", "resources: {memory: lots}")
    with pytest.raises(ProjectFileError, match=r'resources\.memory: "lots" is not a size'):
        load(folder)


def test_too_little_memory_is_an_error_that_says_what_to_set() -> None:
    error = as_known(MemoryError())
    assert error.subject == "resources.memory"
    assert "training.since" in str(error.hint)
