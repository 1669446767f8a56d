"""`cumulant monitor run` with labels: what the rows lose, and whether that is harm."""

from datetime import datetime, timedelta

import numpy as np
import polars as pl
import pytest

SIZE = 200


def table(days, start, *, flipped=0.0, seed=0):
    """Scores that are the chance of the label; of `flipped` of the rows the label is the other one."""
    generator = np.random.default_rng(seed + start)
    n = days * SIZE
    score = generator.beta(0.7, 0.7, n)
    truth = (generator.random(n) < score) ^ (generator.random(n) < flipped)
    at = [datetime(2026, 1, 1) + timedelta(days=start + row // SIZE, seconds=row % SIZE) for row in range(n)]
    return pl.DataFrame({"key": np.arange(n) + start * SIZE, "at": at, "score": score, "paid": truth})


@pytest.fixture
def look(cumulant, tmp_path):
    def call(now, before, *words):
        names = []
        for name, frame in (("now", now.drop("paid")), ("before", before), ("labels", now.select("key", "paid"))):
            frame.write_parquet(tmp_path / f"{name}.parquet")
            names += [str(tmp_path / f"{name}.parquet")]
        options = ("--predictions", names[0], "--reference", names[1], "--labels", names[2], "--key", "key")
        return cumulant("monitor", "run", *options, *words)

    return call


def test_labels_say_the_loss_and_that_it_is_no_harm(look):
    ended = look(table(15, 30), table(30, 0), "--json")
    assert ended.code == 0, ended.out + ended.err
    loss = ended.document["loss"]
    assert (loss["measure"], loss["word"] != "worse", len(loss["windows"])) == ("brier", True, 15)
    assert loss["loss"] == pytest.approx(loss["reference"], rel=0.1)
    assert "of 3,000 labelled rows" in look(table(15, 30), table(30, 0)).out


def test_harm_is_told_and_is_exit_1(look):
    now = pl.concat([table(6, 30), table(20, 36, flipped=0.3)])
    ended = look(now, table(30, 0), "--json", "--columns", "score")
    loss = ended.document["loss"]
    assert (ended.code, loss["word"], loss["kind"]) == (1, "worse", "concept"), ended.err
    assert "2026-02-04" <= loss["since"] <= "2026-02-08"
    assert loss["sentence"].startswith(f"Since {loss['since']} 00:00 UTC the model loses")
    assert "the model loses" in look(now, table(30, 0)).out


@pytest.mark.parametrize("kind", ["texts", "numbers", "classes", "rows"])
def test_every_kind_of_answer(look, kind):
    before, now = table(30, 0), pl.concat([table(6, 30), table(20, 36, flipped=0.35)])
    words = ["--json"]

    def made(frame):
        if kind == "texts":
            named = pl.when("paid").then(pl.lit("yes")).otherwise(pl.lit("no"))
            answer = pl.when(pl.col("score") > 0.5).then(pl.lit("yes")).otherwise(pl.lit("no"))
            return frame.with_columns(paid=named, prediction=answer)
        if kind == "numbers":
            drawn = np.random.default_rng(1).normal(0, 1, frame.height)
            late = 2.0 * (frame["at"] > datetime(2026, 2, 6))
            return frame.with_columns(paid=pl.col("score") * 9 + drawn + late, prediction=pl.col("score") * 9).drop(
                "score"
            )
        if kind == "classes":
            several = pl.Series(np.random.default_rng(2).choice(["a", "b", "c"], frame.height))
            wrong = pl.col("score") < 0.2
            return frame.with_columns(
                paid=several, prediction=pl.when(wrong).then(pl.lit("a")).otherwise(several)
            ).drop("score")
        return frame.drop("at")

    if kind == "rows":
        words += ["--windows", "26"]
    ended = look(made(now), made(before), *words)
    loss = ended.document["loss"]
    if kind == "classes":
        assert (loss["measure"], "probabilities" in loss["refused"]) == ("zero_one", True)
    else:
        assert (ended.code, loss["word"]) == (1, "worse"), (loss, ended.err)
        assert loss["measure"] == ("squared_error" if kind == "numbers" else "brier")


def test_a_reference_without_labels_says_so(look):
    ended = look(table(10, 30), table(30, 0).drop("paid"), "--json")
    loss = ended.document["loss"]
    assert (ended.code, loss["reference"], "lacks paid" in loss["refused"]) == (0, None, True)


@pytest.mark.parametrize("beyond", [1e-7, 0.2])
def test_a_few_probabilities_beyond_one_hide_no_loss(look, beyond):
    now = table(15, 30).with_columns(
        score=pl.when(pl.col("score") > 0.99).then(1.0 + beyond * (pl.col("key") % 9 == 0)).otherwise("score")
    )
    loss = look(now, table(30, 0), "--json").document["loss"]
    assert (loss["measure"], loss["word"] != "worse") == ("brier", True)
    assert loss["loss"] == pytest.approx(loss["reference"], rel=0.1)
