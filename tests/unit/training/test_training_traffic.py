"""A capacity or a rate holds for all traffic, whichever of its rows have a label, were drawn or were reviewed."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from cumulant.core.errors import UsageError
from cumulant.core.units import Rate
from cumulant.project.training_section import threshold_policy
from cumulant.training.dataset import training_set
from cumulant.training.evaluation.threshold import decide
from cumulant.training.evaluation.traffic_rows import DAY, ScoredTraffic, TrafficRows
from cumulant.training.policy import EvaluationPolicy, ThresholdPolicy, TrainingPolicy
from cumulant.training.search.refit import refit
from cumulant.training.search.search import search
from cumulant.training.spec import Threshold
from cumulant.training.splits import folds, split

DAYS, FRESH, A_DAY = 80, 25, 150


def requests(seed, days, *, start=0, growth=0.0):
    """Rows of some days: three numbers, the outcome, the moment, and the true score, from which alerts should go."""
    generator = np.random.default_rng(seed)
    counts = generator.poisson(A_DAY * (1 + growth * np.arange(start, start + days) / 100))
    at = np.repeat(np.arange(start, start + days), counts) * DAY + generator.integers(0, DAY, counts.sum())
    at.sort()
    x = generator.normal(size=(len(at), 3))
    score = 1.4 * x[:, 0] + 0.6 * x[:, 1] - 2.5
    outcome = generator.random(len(at)) < 1 / (1 + np.exp(-score))
    return pl.DataFrame({f"x{place}": x[:, place] for place in range(3)}), outcome, at, score


def labelled(world, score, outcome, seed):
    """Which rows have a label, and which of these were reviewed."""
    generator = np.random.default_rng(seed)
    if world == "high scores":
        return score > np.quantile(score, 0.7), None
    if world == "low scores":
        return score < np.quantile(score, 0.9), None
    if world not in ("a part", "reviewed"):
        return np.ones(len(score), dtype=bool), None
    own = generator.random(len(score)) < 0.3
    if world == "a part":
        return own, None
    asked = np.zeros(len(score), dtype=bool)
    asked[
        np.argsort(np.where(own, np.inf, -score - generator.normal(scale=0.3, size=len(score))))[: len(score) // 25]
    ] = True
    return own | asked, asked


def times(at):
    return pl.Series(at).cast(pl.Datetime("us"))


def trained(world, rule, *, seed=0, growth=0.0, trainers=("linear",), timed=True):
    """The training rows and the search's result."""
    features, outcome, at, score = requests(seed, DAYS, growth=growth)
    has, asked = labelled(world, score, outcome, seed + 1)
    target = pl.Series([bool(value) if known else None for value, known in zip(outcome, has, strict=True)])
    spec = TrainingPolicy(target="y", threshold=rule, trainers=list(trainers), time=None, trials=2, ensemble=2, folds=3)
    rows = training_set(
        features,
        target,
        spec=spec,
        at=times(at) if timed else None,
        known=times(at) if timed else None,
        reviewed=None if asked is None else pl.Series(asked),
    )
    train = split(rows, EvaluationPolicy(test=0.1)).train
    if world.startswith("a sample"):
        train = train.sample(0.1, counted=world.endswith("counted"))
    return train, spec, search(train, spec)


def alerts(found, *, seed=7, growth=0.0):
    """How many alerts a day the model gives on all requests of later days, and of how many rows a day."""
    features, *_ = requests(seed, FRESH, start=DAYS, growth=growth)
    reached = found.best.predict_frame(features) >= found.best.threshold
    return reached.sum() / FRESH, reached.mean()


WORLDS = ["all", "a part", "high scores", "low scores", "reviewed"]


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("rule", [ThresholdPolicy(alerts=Rate(15, "day")), ThresholdPolicy(alerts=Rate(105, "week"))])
def test_a_capacity_counts_all_requests(world, rule):
    _, _, found = trained(world, rule)
    assert alerts(found)[0] == pytest.approx(15, rel=0.2)


@pytest.mark.parametrize("world", WORLDS)
def test_a_rate_is_of_all_requests(world):
    _, _, found = trained(world, ThresholdPolicy(rate=0.05))
    assert alerts(found)[1] == pytest.approx(0.05, rel=0.25)


@pytest.mark.parametrize("world", ["a part", "reviewed"])
def test_a_rate_is_of_all_requests_without_times_too(world):
    _, _, found = trained(world, ThresholdPolicy(rate=0.05), timed=False)
    assert alerts(found)[1] == pytest.approx(0.05, rel=0.25)


def test_a_sample_of_the_rows_stands_for_all_of_them():
    each = [alerts(trained("a sample", ThresholdPolicy(alerts=Rate(15, "day")), seed=seed)[2])[0] for seed in range(4)]
    assert np.mean(each) == pytest.approx(15, rel=0.25)


def test_rows_that_a_sample_leaves_out_are_counted_where_wanted():
    train, _, found = trained("a sample, counted", ThresholdPolicy(rate=0.05))
    assert len(train.traffic) == pytest.approx(9 * len(train), rel=0.02)
    assert "only counted" in found.summary.threshold_text
    assert alerts(found)[1] == pytest.approx(0.05, rel=0.2)


def test_boosted_trees_count_them_too_and_are_repeated_exactly(tmp_path):
    train, spec, found = trained("reviewed", ThresholdPolicy(alerts=Rate(15, "day")), trainers=("lightgbm",))
    assert alerts(found)[0] == pytest.approx(15, rel=0.25)
    again = refit(train, spec, found.summary, found.trials)
    assert again.threshold == found.best.threshold
    one, other = (model.to_folder(tmp_path / name) for name, model in (("a", again), ("b", found.best)))
    assert {file.name: file.read_bytes() for file in one.iterdir()} == {
        file.name: file.read_bytes() for file in other.iterdir()
    }


def test_a_search_killed_and_called_again_counts_the_same(tmp_path):
    train, spec, found = trained("a part", ThresholdPolicy(alerts=Rate(15, "day")), trainers=("lightgbm",))
    first = search(train, spec, scratch=tmp_path / "search")
    second = search(train, spec, scratch=tmp_path / "search")
    assert first.best.threshold == second.best.threshold == found.best.threshold


def test_growing_traffic_is_counted_as_it_is_now():
    now = requests(0, DAYS, growth=2.0)[0]
    _, _, found = trained("all", ThresholdPolicy(alerts=Rate(15, "day")), growth=2.0)
    assert "more rows than the mean" in found.summary.threshold_text
    assert len(now) > 0
    # it grows on: the later days have more rows still
    assert alerts(found, growth=2.0)[0] < 15 * 1.35


def test_folds_are_judged_without_reviewed_rows_and_learn_from_them():
    train, *_ = trained("reviewed", ThresholdPolicy(rate=0.05))
    made, _ = folds(train, 3)
    for fold in made:
        assert not train.reviewed[fold.validate].any()
        assert train.reviewed[fold.reviewed].all()
        assert len(fold.reviewed) > 0
    assert train.reviewed[made[-1].train].any()


def test_rows_whose_labels_are_not_known_yet_are_counted_up_to_the_test():
    features, outcome, at, _ = requests(3, DAYS)
    spec = TrainingPolicy(target="y", threshold=ThresholdPolicy(alerts=Rate(15, "day")))
    late = 12 * DAY
    rows = training_set(features, pl.Series(outcome), spec=spec, at=times(at), known=times(at + late))
    cut = split(rows, EvaluationPolicy(test=0.1))
    assert cut.train.at.max() < cut.cutoff - late
    made, _ = folds(cut.train, 3)
    begin, end = made[-1].span
    assert cut.cutoff - DAY < end <= cut.cutoff
    assert sum(fold.span[1] - fold.span[0] for fold in made) == end - made[0].span[0]
    # every row from the first fold to the test is scored once: with its label, or to be counted
    own = sum(len(fold.validate) for fold in made)
    others = cut.train.traffic.take(cut.train.traffic.at >= made[0].span[0])
    assert own + len(others) == ((at >= made[0].span[0]) & (at < cut.cutoff)).sum()
    assert begin < cut.train.at.max()


def test_where_only_reviewers_labelled_they_judge_and_it_is_told():
    train, _, _ = trained("reviewed", ThresholdPolicy(rate=0.05))
    only = replace(train, reviewed=np.ones(len(train), dtype=bool))
    made, notes = folds(only, 3)
    assert sum(len(fold.validate) for fold in made) > 0
    assert any("reviewed rows" in note for note in notes)


def test_a_capacity_over_reviewed_rows_alone_warns():
    train, spec, _ = trained("reviewed", ThresholdPolicy(alerts=Rate(15, "day")))
    found = search(replace(train, traffic=None), spec)
    assert any("source_share" in warning for warning in found.summary.warnings)
    assert not any("source_share" in warning for warning in search(train, spec).summary.warnings)


def test_a_source_that_is_a_sample_says_so():
    scores = np.linspace(0, 1, 1001)[:1000]
    traffic = ScoredTraffic(scores=scores, sampling_weight=np.ones(1000), at=np.repeat(np.arange(10), 100) * DAY)
    rows = trained("all", ThresholdPolicy(rate=0.05))[0]
    spec = TrainingPolicy(target="y", threshold=ThresholdPolicy(alerts=Rate(20, "day"), source_share=0.1))
    limit, text = decide(spec, rows, scores, traffic=traffic)
    assert (scores >= limit).sum() == 20
    assert "0.1 of the traffic" in text
    for wrong in ("0%", "120%"):
        with pytest.raises(UsageError, match="share"):
            threshold_policy(Threshold(alerts="20/day", source_share=wrong))


@pytest.mark.parametrize(
    ("days", "spans", "weeks"), [((0, 1), ((0, 2 * DAY),), 2 / 7), ((0, 13), ((0, 14 * DAY),), 2), ((0, 13), (), 2)]
)
def test_a_week_of_which_two_days_were_seen_is_two_sevenths_of_one(days, spans, weeks):
    traffic = ScoredTraffic(
        scores=np.array([0.1, 0.9]), sampling_weight=np.ones(2), at=np.array(days) * DAY, spans=spans
    )
    assert traffic.periods(7 * DAY) == pytest.approx(weeks)


def test_traffic_drawn_at_random_stands_for_all():
    whole = TrafficRows(features=pl.DataFrame({"x": range(1000)}), at=np.arange(1000), sampling_weight=np.ones(1000))
    part = whole.at_most(100, seed=1)
    assert len(part) == 100
    assert part.sampling_weight.sum() == pytest.approx(1000)
    assert part.at.tolist() == part.features["x"].to_list()
    assert whole.before(10).at.tolist() == list(range(10))
