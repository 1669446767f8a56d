"""The paired evaluation of two versions: what it says of their losses, its error rates, and the default margins."""

from __future__ import annotations

import dataclasses
import math

import msgspec
import numpy as np
import pytest

from cumulant.release.paired.paired_evaluation import (
    DISAGREEMENT_CAP,
    block_days,
    disagreement_margin,
    distance_margin,
    evidence,
    fewest_pairs,
    log_harm,
    prediction_margin,
    prior_evidence,
    quality_margin,
)
from cumulant.release.paired.paired_records import PairedEvaluation
from cumulant.release.paired.paired_rows import PairedRows, paired_evaluation
from cumulant.release.paired.segments import broken_segment

_DAY = 86_400_000_000
_BAR = math.log(20)


def _evaluated(rows: PairedRows) -> PairedEvaluation:
    found = paired_evaluation(rows)
    assert found is not None
    return found


def _rows(difference: np.ndarray, *, days: int, champion: float = 0.2, **more: object) -> PairedRows:
    """Rows [days * n] whose losses differ by so much, spread evenly over so many days."""
    count = len(difference)
    given: dict[str, object] = {
        "champion": np.full(count, 0.5),
        "candidate": np.full(count, 0.5),
        "champion_loss": np.full(count, champion),
        "candidate_loss": champion + difference,
        "baseline_loss": 0.25,
        "loss": "brier",
        "at": np.repeat(np.arange(days), count // days) * _DAY + 20_000 * _DAY,
    }
    return PairedRows(**{**given, **more})  # type: ignore[arg-type]


def _models(seed: int, *, flip: float = 0.0, count: int = 6000, days: int = 30) -> PairedRows:
    """A champion and a candidate that answer nearly alike; a share of the candidate's answers is inverted."""
    rng = np.random.default_rng(seed)
    truth = rng.beta(1, 3, count)
    label = (rng.random(count) < truth).astype(float)
    champion = np.clip(truth + rng.normal(0, 0.05, count), 0, 1)
    candidate = np.clip(truth + rng.normal(0, 0.05, count), 0, 1)
    segment = np.where(rng.random(count) < 0.05, "broken", "sound")
    inverted = (rng.random(count) < flip) if flip else np.zeros(count, dtype=bool)
    candidate = np.where(inverted, 1 - candidate, candidate)
    return PairedRows(
        champion=champion,
        candidate=candidate,
        champion_loss=(champion - label) ** 2,
        candidate_loss=(candidate - label) ** 2,
        baseline_loss=float(label.var()),
        loss="brier",
        differs=(champion > 0.5) != (candidate > 0.5),
        at=np.repeat(np.arange(days), count // days) * _DAY + 20_000 * _DAY,
        segments={"region": segment},
    )


def log_not_worse(evaluation: PairedEvaluation, *, margin: float) -> float:
    return float(evidence(evaluation, margin=margin).log_not_worse())


def test_equal_versions_are_shown_to_be_within_the_margin_and_inverted_answers_to_be_harm() -> None:
    sound, broken = _evaluated(_models(1)), _evaluated(_models(1, flip=1.0))
    margin = quality_margin(sound, most=0.005)
    assert log_not_worse(sound, margin=margin) > _BAR > log_harm(sound, margin=margin)
    assert log_harm(broken, margin=margin, edge=margin) > _BAR > log_not_worse(broken, margin=margin)
    assert msgspec.json.decode(msgspec.json.encode(sound), type=PairedEvaluation) == sound


def test_days_that_differ_at_the_margin_are_rarely_taken_as_proof() -> None:
    """Thirty days of 400 rows; each day has a difference of its own with standard deviation .01, .005 on average."""
    shown = 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        difference = rng.normal(np.repeat(0.005 + rng.normal(0, 0.01, 30), 400), 0.17)
        found = _evaluated(_rows(difference, days=30))
        shown += log_not_worse(found, margin=0.005) >= _BAR
    assert shown <= 16  # 8%: with a rate of 5% exceeded once in 30


def test_rare_large_losses_at_the_margin_are_rarely_taken_as_proof() -> None:
    """1.25 is lost in 0.4% of the rows, nothing in the others: small blocks would show no loss at all."""
    shown = 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        difference = np.where(rng.random(30_000) < 0.004, 1.25, 0.0)
        shown += log_not_worse(_evaluated(_rows(difference, days=30)), margin=0.005) >= _BAR
    assert shown <= 16


def test_days_that_depend_on_each_other_make_longer_blocks() -> None:
    def means(rho: float, seed: int) -> np.ndarray:
        rng = np.random.default_rng(seed)
        noise, found = rng.normal(0, 0.01, 64), np.zeros(64)
        for day in range(1, 64):
            found[day] = rho * found[day - 1] + noise[day]
        return found

    depending = [block_days(_evaluated(_rows(np.repeat(means(0.8, seed), 50), days=64))) for seed in range(30)]
    independent = [block_days(_evaluated(_rows(np.repeat(means(0.0, seed), 50), days=64))) for seed in range(30)]
    assert np.median(depending) >= 4
    assert np.median(independent) == 1


def test_a_skewed_difference_needs_many_pairs_in_a_block() -> None:
    rng = np.random.default_rng(0)
    rare = _evaluated(_rows(np.where(rng.random(30_000) < 0.004, 1.25, 0.0), days=30))
    assert 1500 < fewest_pairs(rare) < 5000
    assert fewest_pairs(_evaluated(_rows(rng.normal(0, 0.1, 3000), days=30))) == 50


def test_margins_are_what_the_versions_differ_by_and_a_change_has_to_be_declared() -> None:
    sound, other = _evaluated(_models(2)), _evaluated(_models(2, flip=1.0))
    margin = disagreement_margin(sound)
    assert sound.disagreement is not None
    assert margin is not None
    assert 1.5 * sound.disagreement < margin < 0.15
    assert disagreement_margin(other) == DISAGREEMENT_CAP
    assert prediction_margin(sound) < 0.02 < distance_margin(sound) < 0.1
    numbers = _evaluated(_rows(np.zeros(3000), days=30))
    assert disagreement_margin(numbers) is None


def test_the_margin_of_quality_of_a_model_of_rare_events_is_below_all_that_it_knows() -> None:
    """A constant answer loses .0099 here and the champion .006: half a point would accept the constant."""
    found = _evaluated(_rows(np.full(3000, 0.0039), days=30, champion=0.006, baseline_loss=0.0099))
    margin = quality_margin(found, most=0.005)
    assert margin == pytest.approx(0.00078)
    assert log_harm(found, margin=margin, edge=margin) > _BAR


def test_answers_without_a_number_are_failed() -> None:
    rows = _models(3)
    rows.candidate[::50] = np.nan
    rows.candidate_loss[::50] = np.nan
    found = _evaluated(rows)
    assert (found.rows, found.failed) == (6000, 120)


def test_a_segment_of_a_twentieth_of_the_rows_that_is_broken_is_named() -> None:
    named = []
    for seed in range(20):
        rows = _models(seed)
        wrong = rows.segments["region"] == "broken"
        rows.candidate_loss[wrong] = 1 - 2 * np.sqrt(rows.candidate_loss[wrong]) + rows.candidate_loss[wrong]
        named.append(broken_segment(_evaluated(rows), margin=0.005))
    assert [one.value for one in named if one] == ["broken"] * 20


def test_sound_versions_have_no_broken_segment() -> None:
    named = [broken_segment(_evaluated(_models(seed)), margin=0.005) for seed in range(100)]
    assert not any(named)


def test_a_segment_that_answers_by_something_else_is_named_without_its_losses() -> None:
    """Answers of a segment are dealt anew among its rows; labels are too rare there to tell."""
    named, sound = [], []
    for seed in range(20):
        rows = _models(seed)
        sound.append(_evaluated(rows).unlike)
        wrong = np.flatnonzero(rows.segments["region"] == "broken")
        rows.candidate[wrong] = np.random.default_rng(seed).permutation(rows.candidate[wrong])
        named.append(_evaluated(rows).unlike)
    assert [one.value for one in named if one] == ["broken"] * 20
    assert not any(sound)


def test_a_segment_that_answers_by_something_else_is_named_where_few_scores_say_anything() -> None:
    """Six of a thousand rows are scored high, one in seven of them by one version alone; the rest is noise."""
    named, sound = [], []
    for seed in range(10):
        rng, count = np.random.default_rng(seed), 40_000
        high, level = rng.random(count) < 0.006, rng.normal(0, 1, count)
        scores = []
        for _ in range(2):
            logit = np.where(high & (rng.random(count) > 0.07), level + rng.normal(0, 0.3, count), -6.0)
            scores.append(1 / (1 + np.exp(-logit - rng.normal(0, 0.7, count) * (logit == -6.0))))
        segment = np.where(rng.random(count) < 0.05, "broken", rng.integers(100, 140, count).astype(str))
        rows = _rows(np.zeros(count), days=20, champion=0.01, segments={"region": segment})
        rows = dataclasses.replace(rows, champion=scores[0], candidate=scores[1])
        sound.append(_evaluated(rows).unlike)
        wrong = np.flatnonzero(segment == "broken")
        rows.candidate[wrong] = rng.permutation(rows.candidate[wrong])
        named.append(_evaluated(rows).unlike)
    values = [one.value for one in named if one]
    assert set(values) == {"broken"}
    assert len(values) >= 9
    assert not any(sound)


def test_rows_without_a_time_are_compared_in_runs_of_neighbours() -> None:
    found = _evaluated(_rows(np.random.default_rng(0).normal(0, 0.1, 4000), days=1, at=None))
    assert (len(found.days), found.days[0].start, found.first) == (40, None, None)


def test_where_the_candidate_answers_nothing_there_is_no_evaluation() -> None:
    nothing = np.full(3000, np.nan)
    assert paired_evaluation(_rows(nothing, days=30, candidate=nothing)) is None


def test_the_evidence_of_the_past_is_all_or_nothing_and_keeps_its_rate_at_the_margin() -> None:
    """Twenty days of 300 rows with a difference of their own: at the margin they are rarely taken as proof."""
    bar, shown, sound = math.log(20), 0, 0
    for seed in range(400):
        rng = np.random.default_rng(seed)
        days = np.repeat(rng.normal(0, 0.01, 20), 300)
        noise = rng.normal(0, 0.17, 6000)
        worse = _evaluated(_rows(0.005 + days + noise, days=20))
        better = _evaluated(_rows(-0.005 + days + noise, days=20))
        shown += prior_evidence(worse, margin=0.005, bar=bar) > 0
        sound += prior_evidence(better, margin=0.005, bar=bar) == pytest.approx(math.log(40))
    assert shown <= 22  # 5.5%, where its half of the rate is 2.5%
    assert sound >= 240


def test_few_days_and_rows_that_the_candidate_knew_are_no_evidence() -> None:
    noise = np.random.default_rng(0).normal(-0.05, 0.1, 5000)
    assert prior_evidence(_evaluated(_rows(noise, days=5)), margin=0.005, bar=3.0) == 0
    assert prior_evidence(_evaluated(_rows(noise, days=25)), margin=0.005, bar=3.0) > 3
    known = _evaluated(_rows(noise, days=25, seen_by=("candidate",)))
    assert prior_evidence(known, margin=0.005, bar=3.0) == 0
