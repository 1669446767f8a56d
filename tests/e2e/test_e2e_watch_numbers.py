"""`cumulant monitor watch` of a model of numbers: its loss is estimated from what it is asked, and labels audit that."""

import shutil
from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest
from e2e_support import opened, run

from cumulant.flows.serving.predict import predict

pytestmark = pytest.mark.slow

START = datetime(2024, 1, 1, tzinfo=UTC)
LEARNED, FARTHER, LAST = (START + timedelta(days=days) for days in (36, 46, 56))
PROJECT = """\
version: 1
model: {name: minutes, owner: trips@example.com, purpose: Say how long a trip takes}
data:
  trips: {path: data/trips.parquet, key: trip, event_time: left, known_time: {3d: minutes}}
features: features.py
training: {target: minutes, trainers: [linear], trials: 1, time: null, folds: 2, ensemble: 1}
evaluation: {test: 10d}
"""
FEATURES = """\
from cumulant.features import source

trips = source("trips")
row = trips.columns("distance", "weather", "night")
"""


def trips(rows=9000):
    """Trips of 56 days. The longer one is, and in snow, the less it can be known how long it takes; from FARTHER on most are long."""
    rng = np.random.default_rng(11)
    seconds = np.sort(rng.integers(0, 56 * 86_400, rows))
    late = seconds >= (FARTHER - START).total_seconds()
    distance = np.where(late & (rng.random(rows) < 0.7), rng.uniform(12, 20, rows), rng.uniform(1, 20, rows))
    weather = rng.choice(["sun", "rain", "snow"], rows, p=[0.6, 0.3, 0.1])
    night = rng.random(rows) < 0.3
    noise = rng.normal(0, 0.25 * distance * np.where(weather == "snow", 1.5, 1.0))
    return pl.DataFrame(
        {
            "trip": np.arange(rows),
            "left": pl.Series(seconds * 1_000_000 + int(START.timestamp()) * 1_000_000).cast(pl.Datetime("us", "UTC")),
            "distance": distance,
            "weather": weather,
            "night": night,
            "minutes": 5 + 2 * distance - 3 * night + noise,
        }
    )


@pytest.fixture(scope="module")
def taxi(tmp_path_factory):
    """A trained project, everything that its model answered since, and what became known of it in a file."""
    folder = tmp_path_factory.mktemp("numbers") / "taxi"
    (folder / "data").mkdir(parents=True)
    table = trips()
    table.write_parquet(folder / "data" / "trips.parquet")
    (folder / "cumulant.yaml").write_text(PROJECT)
    (folder / "features.py").write_text(FEATURES)
    run(folder, "train", "--as-of", LEARNED.isoformat())
    answered(folder, table.filter(pl.col("left") >= LEARNED), "sent")
    table.filter(pl.col("left") >= LEARNED).select(
        pl.format("t{}", "trip").alias("id"), "minutes", (pl.col("left") + timedelta(days=3)).alias("known_time")
    ).write_parquet(folder / "known.parquet")
    return folder


def answered(folder, rows, name, *, logged=None):
    with opened(folder) as project:
        answers = predict(project, project.name, rows.drop("minutes"), principal=project.principal())
    rows.drop("minutes").with_columns(
        pl.format("t{}", "trip").alias("id"),
        pl.col("left").alias("moment"),
        pl.lit("1").alias("version"),
        answers["prediction"],
        pl.col("left").alias("logged") if logged is None else pl.lit(logged).alias("logged"),
    ).write_parquet(folder / f"{name}.parquet")
    parts = "id=id,time=logged,event_time=moment,prediction=prediction,version=version"
    run(folder, "labels", "import-predictions", str(folder / f"{name}.parquet"), "--map", parts)


def copied(taxi, tmp_path):
    return shutil.copytree(taxi, tmp_path / "taxi")


def look(folder, at):
    return run(folder, "monitor", "watch", "--once", "--at", at.isoformat(), codes=(0, 1))


def rules(folder):
    return [one["rule"] for one in run(folder, "alerts", "list")["alerts"]]


def test_without_a_label_rows_that_are_harder_to_tell_are_seen_to_lose_more(taxi, tmp_path):
    folder = copied(taxi, tmp_path)
    calm = look(folder, FARTHER)
    assert calm["estimate"]["word"] in ("not_worse", "cannot_tell")
    assert "estimated_loss" not in rules(folder)
    found = look(folder, LAST)
    assert (found["harm"], found["audit"]) == (None, None)
    assert all(one["loss"] is None for one in found["windows"])
    assert all(one["low"] <= one["estimated"] <= one["high"] for one in found["windows"]), found["notes"]
    assert found["estimate"]["word"] == "worse"
    assert found["estimate"]["low"] > found["reference_loss"]
    told = {one["feature"]: one for one in found["findings"]}
    assert told["estimated_loss"]["active"]
    assert told["estimated_loss"]["loss_estimated"] > found["reference_loss"] * 1.3
    assert told["distance"]["loss_estimated"] > found["reference_loss"]
    assert told["distance"]["loss_measured"] is None
    assert "estimated_loss" in rules(folder)


def test_labels_show_how_good_the_estimates_were(taxi, tmp_path):
    folder = copied(taxi, tmp_path)
    run(folder, "labels", "ingest", str(folder / "known.parquet"))
    found = look(folder, LAST)
    waiting = [one for one in found["windows"] if one["loss"] is None]
    assert 3 <= len(waiting) <= 4
    assert found["audit"]["windows"] == len(found["windows"]) - len(waiting)
    assert found["audit"]["holds"]
    assert found["audit"]["mean_absolute_error"] < found["audit"]["unmoved"]
    told = {one["feature"]: one for one in found["findings"]}
    assert told["distance"]["loss_measured"] == pytest.approx(told["distance"]["loss_estimated"], rel=0.25)
    # What is harder to tell for every model is no harm.
    assert found["harm"]["word"] != "worse"


def test_where_nothing_is_known_of_the_loss_it_is_refused_in_words(taxi, tmp_path):
    folder = copied(taxi, tmp_path)
    shutil.rmtree(folder / ".cumulant" / "predictions")
    far = trips().filter(pl.col("left") >= FARTHER).with_columns(pl.col("distance") * 3)
    answered(folder, far, "far")
    found = look(folder, LAST)
    assert found["estimate"] is None
    assert all(one["estimated"] is None for one in found["windows"])
    assert any('have a "distance" beyond every value of the reference' in note for note in found["notes"])
    assert "estimated_loss" not in rules(folder)


def test_trips_that_are_hard_to_tell_come_into_the_review_queue(taxi, tmp_path):
    folder = copied(taxi, tmp_path)
    queue = "monitoring: {review: {budget: 40/day, reasons: [unsure], blind: false}}\n"
    (folder / "cumulant.yaml").write_text(PROJECT + queue)
    new = trips().filter(pl.col("left").is_between(LEARNED, LEARNED + timedelta(days=3)))
    answered(folder, new, "new", logged=datetime.now(UTC) - timedelta(minutes=5))
    drawn = run(folder, "review", "fill", "--now")["draw"]
    assert drawn["notes"] == []
    assert drawn["reasons"]["unsure"] >= 20
    cases = {one["request_id"]: one["reasons"] for one in run(folder, "review", "list")}
    hard = pl.col("distance") * pl.when(pl.col("weather") == "snow").then(1.5).otherwise(1.0)
    hardness = dict(new.select(pl.format("t{}", "trip"), hard).rows())
    usual = np.quantile(list(hardness.values()), 0.75)
    chosen = [name for name, why in cases.items() if "unsure" in why]
    assert np.mean([hardness[name] > usual for name in chosen]) > 0.9
