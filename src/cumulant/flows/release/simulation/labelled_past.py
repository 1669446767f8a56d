"""Simulated labelled rows of the recent past, which both versions score before a release."""

from __future__ import annotations

import numpy as np

from cumulant.flows.release.simulation.quality import Mirror, labelled_losses
from cumulant.flows.release.simulation.random_series import Floats
from cumulant.flows.release.simulation.schedule import DAY
from cumulant.flows.release.simulation.world import ReleaseWorld
from cumulant.release.paired.paired_records import PairedEvaluation
from cumulant.release.paired.paired_rows import PairedRows, paired_evaluation

#: days of labelled rows that both versions score, and rows of one day at most
DAYS, ROWS = 28, 1000
#: loss of the best constant answer over the champion's
_BASELINE = 1.5
_MICROS = 1_000_000


def simulate_evaluation(
    world: ReleaseWorld, mirror: Mirror, *, days: int = DAYS, rng: np.random.Generator
) -> PairedEvaluation | None:
    """Both versions on labelled rows of the days before the release; None where no row has a label.

    Labels of one class only are no evaluation, as in `start.paired_evaluation`.
    """
    quality, scores = world.quality, world.scores
    if quality is None or quality.labelled == "positives":
        return None
    a_day = min(ROWS, int(world.traffic.requests_per_second * DAY))
    if not a_day:
        return None
    columns: list[tuple[Floats, Floats, Floats]] = []
    for day in range(-days, 0):
        effect = mirror.days.effect(day)
        losses = labelled_losses(quality, a_day, shift=scores.shift, effect=effect, rng=rng)
        columns.append((losses.champion, losses.candidate, np.full(len(losses), float(day))))
    champion, candidate, day_of = (np.concatenate(column) for column in zip(*columns, strict=True))
    pairs = mirror.pairs(len(champion))
    return paired_evaluation(
        PairedRows(
            champion=pairs.champion,
            candidate=pairs.candidate,
            champion_loss=champion,
            candidate_loss=candidate,
            baseline_loss=_BASELINE * quality.loss,
            loss="brier",
            differs=pairs.differs,
            at=((day_of + days) * DAY * _MICROS).astype(np.int64),
        )
    )
