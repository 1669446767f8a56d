"""Segments whose scores come from something else: found where they do, and not where both versions are less sure."""

from __future__ import annotations

import numpy as np
import pytest

from cumulant.release.paired.segments import unlike_segment
from cumulant.statistics.sequential.arrays import Floats

ROWS, RUNS = 20_000, 12


def _scores(logits: Floats) -> Floats:
    return 1 / (1 + np.exp(-logits))


def _named(kind: str, seed: int) -> bool:
    """Whether a segment is named where events are rare (6 segments; "e" has 5% of the rows)."""
    draw = np.random.default_rng(seed)
    segment = draw.choice(list("abcdef"), ROWS, p=[0.4, 0.3, 0.14, 0.1, 0.05, 0.01])
    truth = draw.gumbel(size=ROWS) * 1.3 - 8
    noise = np.where((segment == "e") & (kind == "less sure"), 1.0, 0.35)
    offsets = draw.normal(size=(2, 12)) * (0.4 if kind == "leaves" else 0.0)
    leaf = np.unique([f"{one}{high}" for one, high in zip(segment, truth > -6, strict=True)], return_inverse=True)[1]
    champion, candidate = (_scores(truth + offset[leaf] + noise * draw.normal(size=ROWS)) for offset in offsets)
    if kind == "dealt anew":
        rows = np.flatnonzero(segment == "e")
        candidate[rows] = candidate[draw.permutation(rows)]
    return unlike_segment(champion, candidate, draw.integers(0, 30, ROWS), {"segment": segment}) is not None


@pytest.mark.parametrize("kind", ["plain", "less sure", "leaves"])
def test_two_versions_that_are_equally_near_the_truth_are_not_unlike(kind: str) -> None:
    assert sum(_named(kind, seed) for seed in range(RUNS)) == 0


def test_a_segment_whose_answers_are_dealt_anew_is_named() -> None:
    assert sum(_named("dealt anew", seed) for seed in range(RUNS)) >= RUNS - 2
