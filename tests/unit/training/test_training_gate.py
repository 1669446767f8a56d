"""The gate: naive must be beaten, margins are held against the champion, limits are kept."""

import msgspec
import numpy as np
import pytest

from cumulant.core.errors import GateRefusedError, UsageError
from cumulant.statistics import Rows
from cumulant.training import GateRule, Verdict, gate


def rows(noise, *, count=6000, seed=0, costs=True):
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


def judged(candidate, *, champion=None, **rules):
    return gate(
        candidate,
        task="binary",
        main="average_precision",
        naive=rows(None),
        champion=champion,
        rules={name: GateRule(**rule) for name, rule in rules.items()},
    )


def words(verdict):
    return [(rule.metric, rule.against, rule.word, rule.passed) for rule in verdict.rules]


def test_a_first_model_must_beat_naive():
    good = judged(rows(0.02))
    assert words(good) == [("average_precision", "naive", "better", True)]
    assert (good.passed, good.word, good.text) == (True, "better", "passed")
    useless = judged(rows(9.0))
    assert not useless.passed
    assert useless.word in ("cannot_tell", "worse")
    with pytest.raises(GateRefusedError, match="average precision") as caught:
        useless.raise_for_refusal("flight-late")
    assert caught.value.subject == "flight-late"
    good.raise_for_refusal("flight-late")


def test_a_first_model_must_beat_naive_in_every_margin():
    found = judged(rows(0.02), average_precision={"margin": 0.01}, cost={"margin": 0.0})
    assert words(found) == [
        ("average_precision", "naive", "better", True),
        ("cost", "naive", "better", True),
    ]


def test_margins_are_held_against_the_champion():
    champion = rows(0.05)
    better = judged(rows(0.01), champion=champion, average_precision={"margin": 0.005})
    assert words(better)[1] == ("average_precision", "champion", "better", True)
    same = judged(rows(0.05, seed=3), champion=champion, average_precision={"margin": 0.05})
    assert words(same)[1] == ("average_precision", "champion", "not_worse", True)
    assert same.word == "not_worse"
    worse = judged(rows(0.5), champion=champion, average_precision={"margin": 0.005})
    assert words(worse)[1] == ("average_precision", "champion", "worse", False)
    assert not worse.passed
    assert "champion" in worse.text
    identical = judged(champion, champion=champion, average_precision={"margin": 0.0})
    assert words(identical)[1] == ("average_precision", "champion", "cannot_tell", False)
    costly = judged(rows(0.5), champion=champion, cost={"margin": 0.0})
    gap = next(rule for rule in costly.rules if rule.metric == "cost").difference
    assert gap.value < 0  # oriented: a higher cost is worse


def test_without_rules_the_champion_may_be_missed_by_a_hundredth():
    champion = rows(0.03)
    found = judged(rows(0.031, seed=0), champion=champion)
    assert words(found)[1][:2] == ("average_precision", "champion")
    assert found.passed
    assert not judged(rows(0.6), champion=champion).passed


def test_limits_are_kept_by_the_value_and_not_surely_broken():
    found = judged(rows(0.02), calibration_error={"max": 0.05}, roc_auc={"min": 0.6})
    assert words(found)[1:] == [("calibration_error", "limit", "better", True), ("roc_auc", "limit", "better", True)]
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
