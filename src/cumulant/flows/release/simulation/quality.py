"""Simulated mirrored rows: answers of both versions, and losses once the label is known."""

from __future__ import annotations

from collections import deque
from dataclasses import replace

import numpy as np
from scipy import stats

from cumulant.core.units import duration
from cumulant.flows.release.simulation.random_series import Days, Floats
from cumulant.flows.release.simulation.schedule import WorldSchedule
from cumulant.flows.release.simulation.world import Quality, ReleaseWorld
from cumulant.release.evidence.look import Bools, LossPairs, ScorePairs

#: share of the rows that are positive, and of those with high scores that are
POSITIVE, POSITIVE_HIGH = 0.1, 0.6
#: what a shift of the scores by 1 changes of the loss of a positive row, and of another
_OF_POSITIVE, _OF_OTHER = -1.8, 0.2
#: spread of the champion's scores, and of the candidate's about them
_SCORES, _APART = (1.0, 9.0), 0.03


class Mirror:
    """Pairs of answers now, and their losses once the labels have come."""

    def __init__(self, world: ReleaseWorld, scene: WorldSchedule, rng: np.random.Generator) -> None:
        self._world, self._scene, self._rng = world, scene, rng
        deviation = world.quality.day_sd if world.quality is not None else 0.0
        self.days = Days(rng.spawn(1)[0], deviation=deviation)
        #: rows whose labels are due: when, how many, of which day and hour
        self._due: deque[tuple[float, int, int, int]] = deque()

    def pairs(self, count: int) -> ScorePairs:
        scores, rng = self._world.scores, self._rng
        champion = rng.beta(*_SCORES, count)
        candidate = champion + scores.shift + _APART * rng.normal(size=count)
        return ScorePairs(champion=champion, candidate=candidate, differs=rng.random(count) < scores.disagreement)

    def record_mirrored(self, count: int, at: float) -> None:
        """Note rows that were mirrored at `at`: their labels come later."""
        if self._world.quality is not None and count:
            self._due.append((at + label_delay_seconds(self._world.quality), count, self._scene.day(at), hour_of(at)))

    def losses(self, until: float) -> LossPairs:
        """Losses of all rows whose label has come by `until` and was not counted before."""
        quality = self._world.quality
        by_hour: list[LossPairs] = []
        while quality is not None and self._due and self._due[0][0] <= until:
            _, count, day, hour = self._due.popleft()
            shift, effect = self._world.scores.shift, self.days.effect(day)
            of_hour = labelled_losses(quality, count, shift=shift, effect=effect, rng=self._rng)
            by_hour.append(replace(of_hour, hour=np.full(len(of_hour), hour)))
        if not by_hour:
            return LossPairs()
        return LossPairs(
            champion=np.concatenate([losses.champion for losses in by_hour]),
            candidate=np.concatenate([losses.candidate for losses in by_hour]),
            score=np.concatenate([losses.score for losses in by_hour]),
            hour=np.concatenate([losses.hour for losses in by_hour]),
        )


def hour_of(at: float) -> int:
    return int(at // 3600)


def label_delay_seconds(quality: Quality) -> float:
    given = quality.label_delay
    return duration(given).total_seconds() if isinstance(given, str) else float(given)


def labelled_losses(quality: Quality, rows: int, *, shift: float, effect: float, rng: np.random.Generator) -> LossPairs:
    """Losses of those of so many rows of one day that get a label; `effect` is the day's."""
    count, positive = _labelled(quality, rows, rng)
    difference = quality.difference + effect + quality.loss_sd * rng.normal(size=count)
    if quality.rare_loss is not None:
        rare = rng.random(count) < quality.rare_loss.share
        difference += quality.rare_loss.size * (rare - quality.rare_loss.share)
    difference += shift * np.where(positive, _OF_POSITIVE, _OF_OTHER)
    champion = quality.loss + quality.loss_sd * rng.normal(size=count)
    return LossPairs(champion=champion, candidate=champion + difference, score=_scores(quality, count, rng))


def _scores(quality: Quality, count: int, rng: np.random.Generator) -> Floats:
    low, high = _SCORES
    if quality.labelled == "positives":  # a score is the chance of being positive
        return np.asarray(rng.beta(low + 1, high, count))
    first = 1 - POSITIVE if quality.labelled == "high_scores" else 0.0
    return np.asarray(stats.beta.ppf(rng.uniform(first, 1.0, count), low, high))


def _labelled(quality: Quality, rows: int, rng: np.random.Generator) -> tuple[int, Bools]:
    if quality.labelled == "positives":
        count = int(rng.binomial(rows, POSITIVE))
        return count, np.ones(count, dtype=np.bool_)
    if quality.labelled == "high_scores":  # a tenth of the rows, as many as are positive
        count = int(rng.binomial(rows, POSITIVE))
        return count, rng.random(count) < POSITIVE_HIGH
    return rows, rng.random(rows) < POSITIVE
