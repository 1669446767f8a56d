"""How often a proven harm is taken for one beyond what is accepted, over all looks of a release."""

from __future__ import annotations

import numpy as np
import pytest
from releases import policy_with

from cumulant.release.evidence.harm_sizes import size_of
from cumulant.release.evidence.metrics import metrics

ERRORS = metrics(policy_with())["errors"]
#: requests of a look at 200 a second, and looks of each step with the candidate's share
REQUESTS, STEPS = 2000, ((0.1, 30), (0.1, 12), (0.5, 12))
Counts = tuple[float, float, float, float]


def acted_on(candidate: float, champion: float, *, looks: int, seed: int) -> bool:
    """Whether a look of the release finds the difference surely too large, of all steps or of the newest ones."""
    draw, steps, done = np.random.default_rng(seed), list[Counts](), 0
    for share, count in STEPS:
        requests = draw.poisson([REQUESTS * (1 - share), REQUESTS * share], (count, 2))
        bad = draw.binomial(requests, [champion, candidate])
        sums = np.cumsum(np.stack([requests[:, 0], bad[:, 0], requests[:, 1], bad[:, 1]], axis=1), axis=0)
        for now in sums.tolist():
            if done == looks:
                return False
            done += 1
            whole = [*steps, tuple(now)]
            sizes = [size_of(whole[first:], ERRORS, usual=champion, weighed=1.0) for first in range(len(whole))]
            if any(one.surely_beyond(late=first > 0) for first, one in enumerate(sizes)):
                return True
        steps.append(tuple(sums[-1].tolist()))
    return False


@pytest.mark.parametrize(
    ("candidate", "looks", "low", "high"), [(0.0095, 54, 0.0, 0.15), (0.0125, 54, 0.75, 1.0), (0.015, 6, 0.45, 1.0)]
)
def test_a_harm_inside_the_margin_is_spared_and_one_beyond_it_is_found(
    candidate: float, looks: int, low: float, high: float
) -> None:
    acted = np.mean([acted_on(candidate, 0.005, looks=looks, seed=seed) for seed in range(120)])
    assert low <= acted <= high
