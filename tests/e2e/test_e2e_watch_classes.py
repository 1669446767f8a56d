"""`cumulant monitor watch` of several classes: loss without labels and with them, harm, and another mix of outcomes."""

import shutil
from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest
from e2e_support import opened, run

from cumulant.flows.serving.predict import predict

pytestmark = pytest.mark.slow

START = datetime(2024, 1, 1, tzinfo=UTC)
LEARNED, MIXED, LAST = (START + timedelta(days=days) for days in (24, 60, 80))
CLASSES = ("bulky", "odd shape", "small")
PROJECT = """\
version: 1
model: {name: parcel, owner: parcels@example.com, purpose: Say of which kind a parcel is}
data:
  parcels: {path: data/parcels.parquet, key: parcel, event_time: sent, known_time: {2d: kind}}
features: features.py
training: {target: kind, trainers: [linear], trials: 1, time: null, folds: 2, ensemble: 1}
evaluation: {test: 8d}
"""
FEATURES = """\
from cumulant.features import source

parcels = source("parcels")
row = parcels.columns("weight", "length", "shop")
"""


def parcels(rows=11_000):
    """Parcels of 80 days; from MIXED on what was small is called bulky, and the other way round."""
    rng = np.random.default_rng(3)
    seconds = np.sort(rng.integers(0, 80 * 86_400, rows))
    weight, length = rng.normal(0, 1, rows), rng.normal(0, 1, rows)
    shop = rng.choice(["north", "south"], rows)
    margin = np.stack([1.5 * weight - 0.8, 1.5 * length - 0.5 + (shop == "north"), -1.2 * weight + 0.6], axis=1)
    kind = (margin + rng.gumbel(0, 1, (rows, 3))).argmax(axis=1)
    late = seconds >= (MIXED - START).total_seconds()
    kind = np.where(late, 2 - kind, kind)
    return pl.DataFrame(
        {
            "parcel": np.arange(rows),
            "sent": pl.Series(seconds * 1_000_000 + int(START.timestamp()) * 1_000_000).cast(pl.Datetime("us", "UTC")),
            "weight": weight,
            "length": length,
            "shop": shop,
            "kind": np.array(CLASSES)[kind],
        }
    )


@pytest.fixture(scope="module")
def post(tmp_path_factory):
    """A trained project, everything that its model answered since, and what became known of it in a file."""
    folder = tmp_path_factory.mktemp("classes") / "post"
    (folder / "data").mkdir(parents=True)
    table = parcels()
    table.write_parquet(folder / "data" / "parcels.parquet")
    (folder / "cumulant.yaml").write_text(PROJECT)
    (folder / "features.py").write_text(FEATURES)
    run(folder, "train", "--as-of", LEARNED.isoformat())
    since = table.filter(pl.col("sent") >= LEARNED)
    with opened(folder) as project:
        answers = predict(project, project.name, since.drop("kind"), principal=project.principal())
    since.drop("kind").with_columns(
        pl.format("p{}", "parcel").alias("id"),
        pl.col("sent").alias("moment"),
        pl.lit("1").alias("version"),
        *answers.get_columns(),
    ).write_parquet(folder / "sent.parquet")
    since.select(
        pl.format("p{}", "parcel").alias("id"), "kind", (pl.col("sent") + timedelta(days=2)).alias("known_time")
    ).write_parquet(folder / "known.parquet")
    return folder


def brought(post, tmp_path, parts, *, labels=True):
    folder = shutil.copytree(post, tmp_path / "post")
    named = f"id=id,time=moment,event_time=moment,version=version,{parts}"
    run(folder, "labels", "import-predictions", str(folder / "sent.parquet"), "--map", named)
    if labels:
        run(folder, "labels", "ingest", str(folder / "known.parquet"))
    return folder


WHOLE = "prediction=prediction,score=probability,probabilities=probabilities"


def look(folder, at):
    return run(folder, "monitor", "watch", "--once", "--at", at.isoformat(), "--no-retrain", codes=(0, 1))


def test_classes_that_change_places_are_harm_and_another_mix(post, tmp_path):
    folder = brought(post, tmp_path, WHOLE)
    calm = look(folder, MIXED)
    assert calm["harm"]["word"] in ("not_worse", "cannot_tell")
    assert [one["question"] for one in calm["harm"]["findings"]] == ["refit", "skill"]
    judged = [one for one in calm["windows"] if one["loss"] is not None]
    assert all(one["refit"] is not None for one in judged)
    assert len(judged) > 30
    # In a small window three rows beyond all of the reference are 2%, and reason to refuse.
    assert len(judged) - 2 <= calm["audit"]["windows"] <= len(judged)
    assert calm["audit"]["holds"]
    assert {"loss", "label", "estimated_loss"}.isdisjoint(one["feature"] for one in calm["findings"])
    found = look(folder, LAST)
    told = {one["feature"]: one for one in found["findings"]}
    assert found["harm"]["word"] == "worse"
    assert abs(datetime.fromisoformat(told["loss"]["since"]) - MIXED) <= timedelta(days=2)
    assert told["loss"]["loss_measured"] > found["reference_loss"] * 1.3
    # Scores know nothing of it, and say so once labels have shown it.
    assert told["loss"]["loss_estimated"] == pytest.approx(found["reference_loss"], rel=0.2)
    assert found["estimate"] is None
    assert any("labels show harm" in note for note in found["notes"])
    assert found["estimates"] == {}
    assert "labels show harm" in found["estimate_refused"]
    assert told["label"]["active"]
    assert "bulky" in told["label"]["says"]
    assert {"loss", "outcome"} <= {one["rule"] for one in run(folder, "alerts", "list")["alerts"]}


def test_without_labels_the_loss_is_estimated(post, tmp_path):
    found = look(brought(post, tmp_path, WHOLE, labels=False), MIXED)
    assert (found["harm"], found["audit"]) == (None, None)
    assert found["estimate"]["low"] < found["reference_loss"] < found["estimate"]["high"]
    assert sum(one["estimated"] is None for one in found["windows"]) <= 2
    assert found["estimates"]["brier"] == found["estimate"]
    for one in (found["estimates"][name] for name in ("accuracy", "log_loss")):
        assert one["low"] < one["value"] < one["high"]


def test_a_look_at_the_rows_estimates_the_newest_windows_of_the_log(post, tmp_path):
    folder = brought(post, tmp_path, WHOLE, labels=False)
    found = run(folder, "monitor", "run", codes=(0, 1))["estimates"]
    assert (found["refused"], len(found["windows"]), found["audit"]) == (None, 7, None)
    assert found["rows"] == sum(one["rows"] for one in found["windows"])
    for name, one in found["figures"].items():
        assert one["low"] < one["value"] < one["high"]
        assert one["value"] == pytest.approx(found["reference"][name], rel=0.15)


def test_answers_without_the_probability_of_each_class_are_named(post, tmp_path):
    found = look(brought(post, tmp_path, "prediction=prediction,score=probability"), LAST)
    assert (found["windows"], found["harm"]) == ([], None)
    assert any("lack the probability of each class" in note for note in found["notes"])
    # What became of them needs no scores.
    assert "label" in {one["feature"] for one in found["findings"]}
