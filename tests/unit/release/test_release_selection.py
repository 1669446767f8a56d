"""Labels that come for some of the mirrored rows only: what they show of these says nothing of the others."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from releases import QUICK, policy_with, release, remembered, with_steps

from cumulant.release.assumptions import assumption_notes
from cumulant.release.decide import list_unmet_conditions, start
from cumulant.release.evidence.accumulate import count_look, read_memory
from cumulant.release.evidence.label_selection import HourlyScores, ScoreSums
from cumulant.release.evidence.look import Look, LossPairs, ScorePairs
from cumulant.release.spec import MetricSpec

#: scores of a calibrated champion, and of its positive rows
ALL, POSITIVE = (1.0, 9.0), (2.0, 9.0)


def look(rng: np.random.Generator, labelled: tuple[float, float], *, gain: float) -> Look:
    scores = rng.beta(*ALL, 600)
    return Look(
        seconds=10,
        pairs=ScorePairs(champion=scores, candidate=scores + 0.01, differs=np.zeros(600, dtype=bool)),
        losses=LossPairs(
            champion=0.1 + 0.1 * rng.normal(size=300),
            candidate=0.1 - gain + 0.1 * rng.normal(size=300),
            score=rng.beta(*labelled, 300),
            hour=np.zeros(300, dtype=np.int64),
        ),
    )


def released(labelled: tuple[float, float], *, gain: float, **metrics: MetricSpec):
    """A release of one canary step after looks with labels of such rows."""
    rng = np.random.default_rng(5)
    stages = msgspec.structs.replace(QUICK, shadow=None, ab=None)
    spec = policy_with(stages=stages, warm_up="0s", metrics={"quality": MetricSpec(block="10s"), **metrics})
    now = remembered(release(spec))
    now = start(with_steps(now, now.steps[-1]))
    for _ in range(60):
        now, _ = count_look(now, look(rng, labelled, gain=gain))
    return now


def words(now) -> str:
    return " ".join([*list_unmet_conditions(now), *assumption_notes(now)])


def test_labels_of_all_rows_show_quality():
    now = released(ALL, gain=0.02)
    assert now.boards["quality"].verdict.acceptable
    assert "another kind" not in words(now)


def test_labels_of_positives_alone_show_no_quality():
    now = released(POSITIVE, gain=0.02)
    assert not now.boards["quality"].verdict.acceptable
    assert "labels come only for rows of another kind than those that are scored" in words(now)
    assert "18,000 rows that have a label" in words(now)


def test_labels_of_positives_alone_are_no_harm():
    assert released(ALL, gain=-0.02).boards["quality"].verdict.harmful
    assert not released(POSITIVE, gain=-0.02).boards["quality"].verdict.harmful


@pytest.mark.parametrize("required", [True, False])
def test_a_project_may_declare_whether_quality_is_needed(required):
    now = released(POSITIVE, gain=0.02, quality=MetricSpec(block="10s", required=required))
    assert ("quality is not yet shown" in words(now)) is required
    assert "required: false goes on without" not in words(now)


def test_sums_are_those_of_the_known_scores():
    scores = 1.7e9 + np.array([0.1, 0.5, np.nan, 0.9])
    found = ScoreSums().with_scores(scores[:2]).with_scores(scores[2:]).with_scores(scores[2:3])
    assert (found.count, found.mean) == (3, pytest.approx(np.nanmean(scores)))
    assert found.squares == pytest.approx(3 * np.nanvar(scores), rel=1e-6)


def hourly(hour: int, scores: np.ndarray, labelled: list[tuple[int, np.ndarray]]) -> Look:
    rows = [np.full(len(one), at) for at, one in labelled]
    known = np.concatenate([np.zeros(0), *(one for _, one in labelled)])
    hours = np.concatenate([np.zeros(0, dtype=np.int64), *rows])
    return Look(
        seconds=3600,
        hour=hour,
        pairs=ScorePairs(champion=scores, candidate=scores, differs=np.zeros(len(scores), dtype=bool)),
        losses=LossPairs(champion=known, candidate=known, score=known, hour=hours),
    )


@pytest.mark.parametrize("seed", range(5))
def test_rows_drawn_at_random_are_no_selection(seed):
    rng = np.random.default_rng(seed)
    wrong = 0
    for _ in range(200):
        scores = rng.beta(*ALL, 2000)
        wrong += HourlyScores().with_look(hourly(0, scores, [(0, rng.choice(scores, 60))])).selective
    assert wrong <= 1
    assert read_memory(release(policy_with())).selection == HourlyScores()


@pytest.mark.parametrize("delay", [0, 1, 7, 12])
def test_labels_that_come_late_are_no_selection_though_scores_have_a_daily_cycle(delay):
    rng = np.random.default_rng(3)
    scores = [0.1 * np.sin(hour / 24 * 2 * np.pi) + rng.beta(*ALL, 400) for hour in range(96)]
    found = HourlyScores()
    for hour, now in enumerate(scores):
        late = [(hour - delay, scores[hour - delay])] if hour >= delay else []
        found = found.with_look(hourly(hour, now, late))
        assert not found.selective


def after_all_labels(now, seed: int = 5):
    """Looks in which positives have their label at once and the others 60 looks later; the candidate is better over all
    rows, and worse on positives.
    """
    rng = np.random.default_rng(seed)
    waiting: list[np.ndarray] = []
    for _ in range(200):
        scores = rng.beta(*ALL, 600)
        positive = rng.random(600) < scores
        waiting.append(scores[~positive])
        late = waiting.pop(0) if len(waiting) > 60 else np.zeros(0)
        shown = np.concatenate([scores[positive], late])
        worse = np.where(np.arange(len(shown)) < positive.sum(), 0.1, -0.04)
        champion = 0.2 + 0.05 * rng.normal(size=len(shown))
        losses = LossPairs(
            champion=champion,
            candidate=champion + worse + 0.05 * rng.normal(size=len(shown)),
            score=shown,
            hour=np.zeros(len(shown), dtype=np.int64),
        )
        pairs = ScorePairs(champion=scores, candidate=scores, differs=np.zeros(600, dtype=bool))
        now, _ = count_look(now, Look(seconds=10, pairs=pairs, losses=losses))
        yield now


def test_what_positives_alone_showed_is_forgotten_once_all_labels_come():
    stages = msgspec.structs.replace(QUICK, shadow=None, ab=None)
    spec = policy_with(stages=stages, warm_up="0s", metrics={"quality": MetricSpec(block="10s")})
    begun = remembered(release(spec))
    flagged = []
    for now in after_all_labels(start(with_steps(begun, begun.steps[-1]))):
        flagged.append(read_memory(now).selection.selective)
        board = now.boards["quality"]
        assert not board.verdict.harmful
        assert not (flagged[-1] and board.beyond)
    assert flagged[5]
    assert not flagged[-1]
    assert now.boards["quality"].verdict.acceptable
