"""Labels that come for some of the mirrored rows only: what they show of these says nothing of the others."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from releases import QUICK, release, remembered

from cumulant.release.assumptions import assumption_notes
from cumulant.release.decide import lacking, start
from cumulant.release.figures import memory_of, seen
from cumulant.release.look import Look, Losses, Pairs
from cumulant.release.selection import ScoreSums, Selection
from cumulant.release.spec import MetricSpec, ReleaseSpec

#: scores of a calibrated champion, and of its positive rows
ALL, POSITIVE = (1.0, 9.0), (2.0, 9.0)


def look(rng: np.random.Generator, labelled: tuple[float, float], *, gain: float) -> Look:
    scores = rng.beta(*ALL, 600)
    return Look(
        seconds=10,
        pairs=Pairs(champion=scores, candidate=scores + 0.01, differs=np.zeros(600, dtype=bool)),
        losses=Losses(
            champion=0.1 + 0.1 * rng.normal(size=300),
            candidate=0.1 - gain + 0.1 * rng.normal(size=300),
            score=rng.beta(*labelled, 300),
        ),
    )


def released(labelled: tuple[float, float], *, gain: float, **metrics: MetricSpec):
    """A release of one canary step after looks with labels of such rows."""
    rng = np.random.default_rng(5)
    stages = msgspec.structs.replace(QUICK, shadow=None, ab=None)
    spec = ReleaseSpec(stages=stages, warm_up="0s", metrics={"quality": MetricSpec(block="10s"), **metrics})
    now = remembered(release(spec))
    now = start(msgspec.structs.replace(now, steps=now.steps[-1:]))
    for _ in range(60):
        now, _ = seen(now, look(rng, labelled, gain=gain))
    return now


def words(now) -> str:
    return " ".join([*lacking(now), *assumption_notes(now)])


def test_labels_of_all_rows_show_quality():
    now = released(ALL, gain=0.02)
    assert now.boards["quality"].acceptable
    assert "another kind" not in words(now)


def test_labels_of_positives_alone_show_no_quality():
    now = released(POSITIVE, gain=0.02)
    assert not now.boards["quality"].acceptable
    assert "labels come only for rows of another kind than those that are scored" in words(now)
    assert "18,000 rows that have a label" in words(now)


def test_labels_of_positives_alone_are_no_harm():
    assert released(ALL, gain=-0.02).boards["quality"].harmful
    assert not released(POSITIVE, gain=-0.02).boards["quality"].harmful


@pytest.mark.parametrize("required", [True, False])
def test_a_project_may_declare_whether_quality_is_needed(required):
    now = released(POSITIVE, gain=0.02, quality=MetricSpec(block="10s", required=required))
    assert ("quality is not yet shown" in words(now)) is required
    assert "required: false goes on without" not in words(now)


def test_sums_are_those_of_the_known_scores():
    scores = np.array([0.1, 0.5, np.nan, 0.9])
    found = ScoreSums().with_scores(scores[:2]).with_scores(scores[2:])
    assert (found.count, found.mean) == (3, pytest.approx(0.5))
    assert found.deviation == pytest.approx(np.nanstd(scores))


@pytest.mark.parametrize("seed", range(5))
def test_rows_drawn_at_random_are_no_selection(seed):
    rng = np.random.default_rng(seed)
    wrong = 0
    for _ in range(200):
        scores = rng.beta(*ALL, 2000)
        chosen = Selection(
            mirrored=ScoreSums().with_scores(scores), labelled=ScoreSums().with_scores(rng.choice(scores, 60))
        )
        wrong += chosen.selective
    assert wrong <= 1
    assert memory_of(release(ReleaseSpec())).selection == Selection()
