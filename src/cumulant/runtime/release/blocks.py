"""How many looks make a block of evidence: as declared, and longer where the champion's earlier pairs need it.

Neighbouring requests have labels that depend on each other: one day's flights, one key's payments. What matters is how
the *difference* of two models depends on itself, since what moves both losses alike cancels in a pair. So the history
is of pairs: those of the newest release that the present champion took part in. A first release has what is declared.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from cumulant.core.units import duration, to_micros
from cumulant.release.metrics import Metric, metrics
from cumulant.runtime.labels import folder_of, outcomes_of
from cumulant.statistics import sequential

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cumulant.outcomes import Graded, Outcomes, Pair
    from cumulant.project import Project
    from cumulant.release.spec import ReleaseSpec
    from cumulant.statistics.sequential.arrays import Floats

#: earlier pairs that are looked at, the newest ones
_MOST = 200_000
_SECOND = 1_000_000


def looks_a_block(spec: ReleaseSpec) -> int:
    """Looks in the declared block."""
    return _looks(spec.block, spec)


def looks_by_metric(project: Project, spec: ReleaseSpec, champion: str) -> dict[str, int]:
    """Looks in a block of each metric of pairs, and of a metric of your own with a block of its own.

    Raises:
        StorageError: earlier pairs cannot be read.
    """
    found = {}
    for name, metric in metrics(spec).items():
        if metric.kind not in ("pairs", "own") or metric.margin is None:
            continue
        declared = metric.block or spec.block
        looks = _looks(declared, spec)
        if metric.kind == "pairs" and folder_of(project).is_dir():
            history = _history(outcomes_of(project), metric, champion, duration(declared).total_seconds())
            looks *= factor(history)
        if looks != looks_a_block(spec):
            found[name] = looks
    return found


def factor(history: Floats) -> int:
    """How many times the declared block makes one in which neighbours of `history` [blocks] are nearly uncorrelated."""
    try:
        return sequential.merge_factor(history, bound=sequential.PAIRS_BOUND)
    except ValueError:
        return 1  # too few blocks to see how they depend


def means(found: Sequence[tuple[int, float]], seconds: float) -> Floats:
    """Mean difference of each block of so many seconds that has pairs, in order; of (microseconds, difference)."""
    if not found:
        return np.zeros(0)
    place = np.array([time for time, _ in found]) // round(seconds * _SECOND)
    _, block = np.unique(place, return_inverse=True)
    sums = np.bincount(block, weights=np.array([difference for _, difference in found]))
    return np.asarray(sums / np.bincount(block), dtype=np.float64)


def told(by_metric: dict[str, int], spec: ReleaseSpec) -> list[str]:
    """A sentence for each metric whose block is longer than was declared."""
    look, named = duration(spec.look).total_seconds(), metrics(spec)
    return [
        f"earlier pairs of the champion depend on each other for longer than the declared block of {name}: "
        f"{looks * look:g} s of pairs are one block of its evidence"
        for name, looks in by_metric.items()
        if looks > _looks(named[name].block or spec.block, spec)
    ]


def _looks(block: str, spec: ReleaseSpec) -> int:
    return max(1, math.ceil(duration(block) / duration(spec.look)))


def _history(outcomes: Outcomes, metric: Metric, champion: str, seconds: float) -> Floats:
    pairs: Sequence[Graded] | Sequence[Pair]
    if metric.name == "quality":
        pairs, _ = outcomes.graded(max(0, outcomes.last_graded - _MOST))
    else:
        pairs, _ = outcomes.pairs(max(0, outcomes.last_pair - _MOST))
    mine = [one for one in pairs if champion in (one.champion_version, one.candidate_version)]
    newest = [one for one in mine if _versions(one) == _versions(mine[-1])]
    valued = [(to_micros(one.time), value) for one in newest if (value := _value(one, metric)) is not None]
    return means(valued, seconds)


def _versions(pair: Graded | Pair) -> tuple[str, str]:
    return pair.champion_version, pair.candidate_version


def _value(pair: Graded | Pair, metric: Metric) -> float | None:
    if metric.name == "disagreement":
        return float(getattr(pair, "differs", False))
    if pair.champion is None or pair.candidate is None:
        return None
    return pair.candidate - pair.champion
