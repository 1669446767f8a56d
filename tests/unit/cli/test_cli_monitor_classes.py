"""`cumulant monitor run` of several classes without labels: accuracy and losses with intervals, or why there are none."""

from datetime import datetime, timedelta

import numpy as np
import polars as pl
import pytest

pytestmark = pytest.mark.slow

NAMES, SIZE = ("a", "b", "c"), 200


def table(seed, days, start, *, sharpness=1.0, sure=1.5, label=True, how="struct"):
    """Rows of three classes that their probabilities draw; scores are these to the power of `sharpness`."""
    generator = np.random.default_rng([seed, start])
    n = days * SIZE
    logits = generator.normal(0, sure, (n, 3)) + np.log([0.5, 0.3, 0.2])
    chance, score = (np.exp(one) / np.exp(one).sum(axis=1, keepdims=True) for one in (logits, sharpness * logits))
    truth = (generator.random(n)[:, None] > chance.cumsum(axis=1)[:, :2]).sum(axis=1)
    frame = pl.DataFrame(
        {
            "key": np.arange(n) + start * SIZE,
            "at": [datetime(2026, 1, 1) + timedelta(days=start + row // SIZE, seconds=row % SIZE) for row in range(n)],
            "prediction": np.array(NAMES)[score.argmax(axis=1)],
            "kind": np.array(NAMES)[truth],
        }
    )
    each = pl.DataFrame(score, schema=list(NAMES))
    probabilities = {"probabilities": each.to_struct()} if how == "struct" else {}
    columns = {} if how == "struct" else {f"probabilities.{name}": each[name] for name in NAMES}
    found = frame.with_columns(**probabilities, **columns)
    right = float((score.argmax(axis=1) == truth).mean())
    lost = float(-np.log(score[np.arange(n), truth]).mean())
    return (found if label else found.drop("kind")), {"accuracy": right, "log_loss": lost}


@pytest.fixture
def look(cumulant, tmp_path):
    def call(now, before, *words):
        for name, frame in (("now", now), ("before", before)):
            frame.write_parquet(tmp_path / f"{name}.parquet")
        paths = ("--predictions", str(tmp_path / "now.parquet"), "--reference", str(tmp_path / "before.parquet"))
        return cumulant("monitor", "run", *paths, "--label", "kind", *words)

    return call


def numbered(frame):
    """Classes that are numbers, and a probability that rounding made negative."""
    fields = pl.col("probabilities").struct.rename_fields(["1", "2", "3"])
    lowest = fields.struct.with_fields(pl.lit(-1e-9).alias("3"), (1.0 - pl.field("1")).alias("2"))
    places = [pl.col(name).replace_strict(NAMES, [1, 2, 3]) for name in ("kind",) if name in frame.columns]
    tiny = pl.col("probabilities").struct.field("c") < 1e-4
    return frame.with_columns(pl.when(tiny).then(lowest).otherwise(fields).alias("probabilities"), *places)


@pytest.mark.parametrize("how", ["struct", "columns", "numbers"])
def test_metrics_without_labels_hold_the_truth(look, how):
    before, _ = table(1, 20, 0, how="columns" if how == "columns" else "struct")
    now, true = table(1, 7, 20, label=False, how="columns" if how == "columns" else "struct")
    if how == "numbers":
        before, now = numbered(before), numbered(now)
    ended = look(now, before, "--json")
    found = ended.document["estimates"]
    assert (ended.code, found["refused"], found["rows"], len(found["windows"])) == (0, None, 7 * SIZE, 7), ended.err
    for name, value in true.items():
        assert found["figures"][name]["low"] < value < found["figures"][name]["high"]
        assert found["reference"][name] == pytest.approx(value, abs=0.05)
    assert all({"accuracy", "log_loss", "brier"} == {*one["figures"]} for one in found["windows"])


def test_a_line_and_the_page_show_them(look, tmp_path):
    now, _ = table(1, 3, 20, label=False)
    out = look(now, table(1, 20, 0)[0], "--out", str(tmp_path / "drift.html")).out
    assert "estimated without labels, with 95%, of 600 rows of the newest windows: accuracy 0." in " ".join(out.split())
    assert "log loss" in out
    page = (tmp_path / "drift.html").read_text()
    assert "Without labels" in page
    assert "log loss" in page


def test_where_calibration_does_not_carry_words_say_so(look, tmp_path):
    now, _ = table(1, 7, 20, sharpness=0.5, sure=0.7, label=False)
    before, _ = table(1, 20, 0, sharpness=0.5)
    found = look(now, before, "--json").document["estimates"]
    assert found["figures"] == {}
    assert "calibrat" in found["refused"]
    out = " ".join(look(now, before, "--out", str(tmp_path / "drift.html")).out.split())
    assert "nothing is estimated of the newest windows" in out
    assert "not estimated" in (tmp_path / "drift.html").read_text()


def test_labels_that_disagree_with_the_estimates_refuse_the_newest(look):
    now, _ = table(1, 7, 20)
    other = now.with_columns(kind=pl.col("kind").replace({"a": "b", "b": "a"}))
    found = look(other, table(1, 20, 0)[0], "--json").document["estimates"]
    assert (found["figures"], found["audit"]["holds"]) == ({}, False)
    assert "windows with labels lay outside" in found["refused"]
    kept = look(now, table(1, 20, 0)[0], "--json").document["estimates"]
    assert kept["audit"]["holds"]


@pytest.mark.parametrize("case", ["no labels", "no probabilities", "some rows without", "other classes"])
def test_what_lacks_for_an_estimate_is_named(look, case):
    before, now = table(1, 20, 0)[0], table(1, 7, 20, label=False)[0]
    if case == "no labels":
        before = before.drop("kind")
    elif case == "no probabilities":
        now = now.drop("probabilities")
    elif case == "some rows without":
        now = now.with_columns(pl.when(pl.col("key") % 10 > 0).then("probabilities").alias("probabilities"))
    else:
        now = now.with_columns(pl.col("probabilities").struct.rename_fields(["a", "b", "d"]))
    found = look(now, before, "--json").document["estimates"]
    if case == "no probabilities":
        assert found is None
        return
    words = {"no labels": "--label", "some rows without": "10.0% of the rows", "other classes": "lack"}
    assert found["figures"] == {}
    assert words[case] in found["refused"]
