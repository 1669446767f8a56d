"""The gate: naive must be beaten, margins are held against the champion, limits are kept."""

from dataclasses import replace
from functools import partial

import msgspec
import numpy as np
import pytest

from cumulant.core.errors import UsageError
from cumulant.statistics import Rows
from cumulant.statistics import metric as metric_of
from cumulant.training.evaluation.comparisons import Rival
from cumulant.training.evaluation.gate import gate
from cumulant.training.evaluation.one_class import one_class_warning
from cumulant.training.records import Verdict
from cumulant.training.spec import GateRule
from cumulant.training.trainers.baseline import Naive
from cumulant.training.trainers.trainer import Problem, TrainingSample


def rows(noise, *, count=3000, seed=0, costs=True):
    """Predictions of the same rows, the better the less `noise`; None is the constant answer."""
    base = np.random.default_rng(0)
    chance = base.beta(0.6, 3, count)
    truth = (base.random(count) < chance).astype(float)
    own = np.random.default_rng(seed + 1)
    p = np.full(count, truth.mean()) if noise is None else np.clip(chance + own.normal(0, noise, count), 0.001, 0.999)
    return Rows(
        truth=truth,
        prediction=p,
        cluster=np.arange(count) // 100,
        decision=p >= 0.25,
        cost_false_negative=np.full(count, 3.0) if costs else None,
        cost_false_positive=np.ones(count) if costs else None,
    )


def judged(candidate, *, champion=None, before=None, doubt="", **rules):
    return gate(
        candidate,
        task="binary",
        main="average_precision",
        naive=rows(None, count=len(candidate)),
        champion=champion,
        before=before,
        doubt=doubt,
        rules={name: GateRule(**rule) for name, rule in rules.items()},
    )


#: of so many that small differences are sure
many = partial(rows, count=6000)


def words(verdict):
    return [(rule.metric, rule.against, rule.word, rule.passed) for rule in verdict.rules]


def test_a_first_model_must_beat_naive():
    good = judged(rows(0.02))
    assert words(good) == [("average_precision", "naive", "better", True), ("cost", "naive", "better", True)]
    assert (good.passed, good.word, good.text) == (True, "better", "passed")
    useless = judged(rows(9.0))
    assert not useless.passed
    assert useless.word in ("cannot_tell", "worse")
    assert "average precision" in useless.text


def test_a_first_model_must_beat_naive_in_every_margin():
    found = judged(rows(0.02), average_precision={"margin": 0.01}, cost={"margin": 0.0})
    assert words(found) == [
        ("average_precision", "naive", "better", True),
        ("cost", "naive", "better", True),
    ]


@pytest.mark.slow
def test_margins_are_held_against_the_champion():
    champion = many(0.05)
    better = judged(many(0.01), champion=champion, average_precision={"margin": 0.005})
    assert words(better)[1] == ("average_precision", "champion", "better", True)
    same = judged(many(0.05, seed=3), champion=champion, average_precision={"margin": 0.05})
    assert words(same)[1] == ("average_precision", "champion", "not_worse", True)
    assert same.word == "not_worse"
    worse = judged(many(0.5), champion=champion, average_precision={"margin": 0.005})
    assert words(worse)[1] == ("average_precision", "champion", "worse", False)
    assert not worse.passed
    assert "champion" in worse.text
    identical = judged(champion, champion=champion, average_precision={"margin": 0.0})
    assert words(identical)[1] == ("average_precision", "champion", "cannot_tell", False)
    costly = judged(many(0.5), champion=champion, cost={"margin": 0.0})
    gap = next(rule for rule in costly.rules if rule.metric == "cost").difference
    assert gap.value < 0  # oriented: a higher cost is worse


def test_without_rules_the_champion_may_be_missed_by_a_hundredth():
    champion = rows(0.03)
    found = judged(rows(0.031, seed=0), champion=champion)
    assert words(found)[1][:2] == ("average_precision", "champion")
    assert found.passed
    assert not judged(rows(0.6), champion=champion).passed


def test_a_limit_on_the_searched_metric_leaves_the_comparison_with_the_champion():
    for rule in ({"min": 0.1}, {"min": 0.1, "margin": 0.005}):
        found = judged(rows(0.5), champion=rows(0.02), average_precision=rule)
        assert ("average_precision", "champion", "worse", False) in words(found)
        assert not found.passed


def test_a_declared_cost_is_held_against_the_champion():
    """The scores are the same; of the candidate's decisions nearly all are wrong."""
    champion = rows(0.02)
    candidate = replace(champion, prediction=champion.prediction + 1e-9, decision=~champion.decision)
    found = judged(candidate, champion=champion, average_precision={"margin": 0.01})
    assert words(found)[-1] == ("cost", "champion", "worse", False)
    first = judged(candidate)
    assert words(first)[-1] == ("cost", "naive", "worse", False)


def test_margins_of_successors_do_not_add_up():
    """Each is worse by less than the margin than the one before; the fourth is worse than the first by more."""
    first, present, candidate = many(0.02), many(0.075), many(0.08)
    margin = {"average_precision": {"margin": 0.015}}
    alone = judged(candidate, champion=present, **margin)
    assert alone.rules[1].passed
    found = judged(candidate, champion=Rival(rows=present), before=Rival(rows=first), **margin)
    assert ("average_precision", "champion_before", "worse", False) in words(found)
    better = judged(many(0.02, seed=3), champion=Rival(rows=present), before=Rival(rows=first), **margin)
    assert all(rule.metric != "average_precision" or rule.against != "champion_before" for rule in better.rules)


def test_a_champion_is_compared_with_on_rows_that_it_did_not_learn_from():
    """Half of its answers are the truth itself, learned by heart."""
    honest = many(0.05)
    learned = np.arange(len(honest)) < len(honest) // 2
    champion = replace(honest, prediction=np.where(learned, honest.truth, honest.prediction))
    rule = {"average_precision": {"margin": 0.02}}
    assert not judged(many(0.05, seed=3), champion=champion, **rule).passed
    assert judged(many(0.05, seed=3), champion=Rival(rows=champion, unseen=~learned), **rule).passed
    none = judged(many(0.01), champion=Rival(rows=None, reason="the champion learned from all of them"), **rule)
    assert words(none)[1] == ("average_precision", "champion", "cannot_tell", False)
    assert "learned from all of them" in none.text
    doubted = judged(many(0.01), champion=champion, doubt="it is not known which rows it learned from")
    assert not doubted.passed


@pytest.mark.slow
@pytest.mark.parametrize(
    ("task", "main", "count"),
    [("binary", "average_precision", 400), ("regression", "pinball_90", 400), ("multiclass", "macro_f1", 300)],
)
def test_noise_does_not_pass(task, main, count):
    """Of models without information at most one in twenty passes, however the metric favours them."""
    passed, runs = 0, 24
    for seed in range(runs):
        candidate, naive = noise(task, count, seed)
        passed += gate(candidate, task=task, main=main, naive=naive).passed
    assert passed <= 3  # at a rate of 2.5% more in less than one of two hundred times


def test_beside_a_champion_that_fails_a_right_level_is_enough():
    good, constant = rows(0.02), rows(None)
    off = replace(constant, prediction=np.full(len(good), 0.5))
    inverted = replace(good, prediction=1 - good.prediction)
    terms = {"task": "binary", "main": "log_loss", "naive": off, "rules": {"cost": GateRule(margin=9)}}
    assert not gate(constant, **terms).passed
    assert gate(constant, champion=inverted, **terms).passed
    assert not gate(constant, champion=good, **terms).passed


def noise(task, count, seed):
    """Answers that know nothing of the rows, and the naive ones; positives are rare."""
    generator = np.random.default_rng(seed)
    if task == "binary":
        truth = (generator.random(count) < 0.03).astype(float)
        return Rows(truth=truth, prediction=generator.random(count)), Rows(truth=truth, prediction=np.full(count, 0.03))
    if task == "regression":
        truth = generator.exponential(size=count)
        near = np.log(10) + generator.normal(0, 0.05, count)
        return Rows(truth=truth, prediction=near), Rows(truth=truth, prediction=np.ones(count))
    truth = generator.integers(0, 3, count).astype(float)
    answers = generator.dirichlet(np.ones(3), count)
    return Rows(truth=truth, prediction=answers), Rows(truth=truth, prediction=np.tile([0.34, 0.33, 0.33], (count, 1)))


def test_the_naive_answer_of_a_quantile_is_the_quantile():
    generator = np.random.default_rng(0)
    target = generator.exponential(size=500)
    weight = np.where(target > 1, 1.0, 3.0)
    for metric, weights in (("pinball_90", None), ("pinball", None), ("mae", None), ("pinball_90", weight)):
        problem = Problem(task="regression", classes=(), inputs=(), metric=metric, seed=0)
        sample = TrainingSample(matrix=np.zeros((500, 0)), target=target, weight=weights)
        (value,) = Naive().fit(problem, {}, sample).payload.values  # type: ignore[attr-defined]
        share = np.average(target <= value, weights=weights)
        assert share == pytest.approx(0.9 if metric == "pinball_90" else 0.5, abs=0.005)


def test_limits_are_kept_by_the_value_and_not_surely_broken():
    found = judged(rows(0.02), calibration_error={"max": 0.05}, roc_auc={"min": 0.6})
    assert words(found)[1:3] == [("calibration_error", "limit", "better", True), ("roc_auc", "limit", "better", True)]
    broken = judged(rows(0.02), roc_auc={"min": 0.99})
    assert words(broken)[1] == ("roc_auc", "limit", "worse", False)
    value = broken.rules[1].candidate.value
    near = judged(rows(0.02), roc_auc={"min": value - 1e-4})
    assert words(near)[1] == ("roc_auc", "limit", "cannot_tell", True)
    assert "reaches beyond" in near.rules[1].text
    missed = judged(rows(0.02), roc_auc={"min": value + 1e-4})
    assert words(missed)[1] == ("roc_auc", "limit", "cannot_tell", False)
    assert missed.rules[1].limit == value + 1e-4


@pytest.mark.parametrize(
    ("rules", "text", "hint"),
    [
        ({"acuracy": {"min": 0.5}}, "does not measure", "accuracy"),
        ({"rmse": {"max": 1}}, "does not measure", "binary target"),
        ({"brier": {}}, "exactly one of", "margin"),
        ({"brier": {"min": 0.1, "max": 0.2}}, "exactly one of", "margin"),
        ({"brier": {"margin": 0.1, "min": 0.1, "max": 0.2}}, "exactly one of", "margin"),
    ],
)
def test_rules_that_mean_nothing_are_refused(rules, text, hint):
    with pytest.raises(UsageError, match=text) as caught:
        judged(rows(0.02), **rules)
    assert hint in caught.value.hint


def test_a_cost_rule_needs_costs():
    with pytest.raises(UsageError, match="no cost is declared"):
        judged(rows(0.02, costs=False), cost={"margin": 0.0})


def test_a_verdict_crosses_json():
    found = judged(rows(0.02), champion=rows(0.05), calibration_error={"max": 0.05})
    assert msgspec.json.decode(msgspec.json.encode(found), type=Verdict) == found


def test_regressions_are_judged_the_lower_the_better():
    generator = np.random.default_rng(0)
    truth = generator.normal(size=900)
    near, mean = (Rows(truth=truth, prediction=p) for p in (truth + generator.normal(0, 0.3, 900), np.zeros(900)))
    found = gate(near, task="regression", main="rmse", naive=mean, rules={"r2": GateRule(min=0.5)})
    assert found.passed
    assert not gate(mean, task="regression", main="rmse", naive=near).passed


def test_a_model_that_predicts_one_class_alone_is_named_as_such():
    """Scores that rank well pass, though no row reaches the threshold: recall is 0."""
    good = rows(0.02, costs=False)
    assert judged(good).warnings == ()
    for decision, named in ((False, "so recall is 0: it misses all"), (True, "positive for all 3,000 test rows")):
        verdict = judged(replace(good, decision=np.full(len(good), decision)))
        assert (verdict.passed, verdict.word) == (True, "better")
        assert named in verdict.warnings[0]
        assert "the verdict is about average precision, not about decisions" in verdict.warnings[0]
    truth = np.tile([0.0, 0.0, 1.0, 2.0], 50)
    chance = np.tile([0.4, 0.3, 0.3], (200, 1))
    for first in (0.4, 0.2):  # one class alone; then two
        chance[0] = [first, 0.3, 0.5 - first]
        warning = one_class_warning(Rows(truth=truth, prediction=chance), task="multiclass", main=metric_of("log_loss"))
        assert ("one class for all 200 test rows, 100 of which are of another" in warning) == (first == 0.4)
