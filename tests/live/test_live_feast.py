"""Import from a real Feast: `sh bench/online/peers.sh FOLDER` installs one; put FOLDER/bin/feast on the PATH."""

from __future__ import annotations

import shutil
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import numpy as np
import polars as pl
import pytest

from cumulant.cli.app import run
from cumulant.project.feast.importing import read_repository
from cumulant.project.feast.repository import parse_repository

FEAST = shutil.which("feast")
pytestmark = [
    pytest.mark.live,
    pytest.mark.skipif(FEAST is None, reason="no Feast: sh bench/online/peers.sh FOLDER, and FOLDER/bin/feast on PATH"),
]
HERE = Path(__file__).parent
RECORDED = HERE.parent / "unit/project/feast_repository"
#: our features to those of Feast
NAMES = {
    "conv_rate": "driver_stats__conv_rate",
    "driver_stats__trips": "driver_stats__trips",
    "rides_hour": "place_stats__rides_hour",
    "place_stats__trips": "place_stats__trips",
    "pair_stats__grade": "pair-stats__grade",
    "grade_all__grade": "grade_all__grade",
}


def write_data(repository: Path) -> pl.DataFrame:
    """Sources without ties, known with their events, and rows to look up."""
    dice, begin = np.random.default_rng(3), datetime(2024, 5, 1, tzinfo=UTC)

    def table(count: int, keys: dict[str, list], columns: dict[str, np.ndarray], time: str = "event_timestamp"):
        seconds = dice.choice(86_400 * 10, count, replace=False)
        drawn = {name: dice.choice(values, count) for name, values in keys.items()}
        at = pl.Series([begin + timedelta(seconds=int(second)) for second in seconds], dtype=pl.Datetime("us", "UTC"))
        return pl.DataFrame({**drawn, time: at, **columns})

    drivers, places = {"driver_id": list(range(6))}, {"place_id": list("abcdef")}
    driver = table(300, drivers, {"conv_rate": dice.random(300).astype("float32"), "trips": dice.integers(0, 50, 300)})
    driver = driver.with_columns(created="event_timestamp", embedding=pl.lit([0.5], pl.List(pl.Float32)))
    place = table(300, places, {"Rides-Hour": dice.integers(0, 99, 300), "trips": dice.integers(0, 99, 300)}, "at")
    grade = table(300, drivers | places, {"grade": dice.choice(list("xyz"), 300)})
    (repository / "data").mkdir()
    for name, frame in {"driver_stats": driver, "place": place, "grade": grade}.items():
        frame.write_parquet(repository / f"data/{name}.parquet")
    return table(400, drivers | places, {"label": dice.integers(0, 2, 400)})


def test_feast_describes_its_definitions_and_both_look_up_equal_values(tmp_path):
    assert FEAST is not None
    python = Path(FEAST).resolve().with_name("python")
    repository = shutil.copytree(RECORDED, tmp_path / "repository")
    rows = write_data(repository)
    rows.write_parquet(tmp_path / "rows.parquet")
    described = read_repository(repository, str(python))
    # Feast infers Json for texts of files that are not of an earlier pandas.
    texts = parse_repository(msgspec.json.encode(described).replace(b'"Json"', b'"String"'))
    recorded = parse_repository((RECORDED / "definitions.json").read_bytes())
    if described.feast == recorded.feast:  # later versions may describe more
        assert texts == recorded
    words = [
        "features",
        "import-feast",
        str(repository),
        "--python",
        str(python),
        "--rows",
        str(tmp_path / "rows.parquet"),
    ]
    project, ours, theirs = tmp_path / "project", tmp_path / "ours.parquet", tmp_path / "theirs.parquet"
    assert run([*words, "--project", str(project)]) == 0
    assert run(["plan", "--project", str(project)]) == 0
    assert run(["features", "get", "--project", str(project), "--out", str(ours)]) == 0
    line = [str(python), str(HERE / "feast_values.py"), str(repository), str(tmp_path / "rows.parquet"), str(theirs)]
    subprocess.run(line, check=True, capture_output=True, timeout=300)
    feast = pl.read_parquet(theirs)
    compared = pl.read_parquet(ours)[feast["number"].to_list()]  # Feast leaves out rows whose values are too old
    assert feast.height > 200
    for name, theirs_name in NAMES.items():
        values = feast[theirs_name]
        if values.dtype != pl.String:
            values = values.cast(pl.Float64).fill_nan(None)
        assert compared[name].cast(values.dtype).to_list() == values.to_list(), name
        assert values.drop_nulls().len() > 100
