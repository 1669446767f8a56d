"""Mixed precision: fewer bits for layers with less effect on the answers."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from cumulant.packaging.quantize.layers import Floats, WeightedLayer
from cumulant.packaging.quantize.rounding import WeightCodes, group_size, round_weights

#: from the coarsest on; 7 would need three planes
LADDER = (3, 4, 5, 6, 8)
#: inputs that share a scale, by bits; 8 bits need one scale a row only
_GROUPS: Mapping[int, int] = {3: 32, 4: 32, 5: 64, 6: 128}

Plan = Mapping[str, int]


class Rounder:
    """The codes of each layer at each number of bits, computed once."""

    def __init__(self, model_layers: Sequence[WeightedLayer], moments: Mapping[str, Floats]) -> None:
        self.layers = {layer.weight: layer for layer in model_layers}
        self.moments = moments
        self._known: dict[tuple[str, int], WeightCodes] = {}

    def codes(self, weight: str, bits: int) -> WeightCodes:
        if (weight, bits) not in self._known:
            rows = self.layers[weight].rows
            group = group_size(rows.shape[1], _GROUPS.get(bits, rows.shape[1]))
            # At 8 bits the nearest code is as good, and found at once.
            moments = self.moments.get(weight) if bits < 8 else None
            self._known[weight, bits] = round_weights(rows, bits, group, moments)
        return self._known[weight, bits]

    def plan(self, plan: Plan) -> dict[str, tuple[WeightedLayer, WeightCodes]]:
        return {weight: (self.layers[weight], self.codes(weight, bits)) for weight, bits in plan.items()}

    def error(self, weight: str, bits: int) -> float:
        """Squared error of the layer's answers on the calibration rows, as a share of the answers."""
        rows, moments = self.layers[weight].rows, self.moments.get(weight)
        lost = self.codes(weight, bits).weights - rows
        return _power(lost, moments) / max(_power(rows, moments), 1e-30)

    def size(self, weight: str, bits: int) -> float:
        codes = self.codes(weight, bits)
        return codes.values.size * bits / 8 + 2 * codes.scales.size


def _power(rows: Floats, moments: Floats | None) -> float:
    return float((rows**2).sum() if moments is None else ((rows @ moments) * rows).sum())


class PlanStep(NamedTuple):
    plan: Plan
    size: float


def make_ladder(rounder: Rounder, sensitivity: Mapping[str, float]) -> list[PlanStep]:
    """Plans from the coarsest to the finest; each gives one layer more bits, where that wins most for its bytes.

    `sensitivity` is what a layer's share of squared error does to the graph's answers, by the name of its weight.
    """
    plan = dict.fromkeys(rounder.layers, LADDER[0])
    steps = [PlanStep(dict(plan), _total(rounder, plan))]
    while any(bits != LADDER[-1] for bits in plan.values()):
        weight = max((name for name, bits in plan.items() if bits != LADDER[-1]), key=_gain(rounder, sensitivity, plan))
        plan[weight] = _next(plan[weight])
        steps.append(PlanStep(dict(plan), _total(rounder, plan)))
    return steps


def _gain(rounder: Rounder, sensitivity: Mapping[str, float], plan: Plan) -> Callable[[str], float]:
    def gain(weight: str) -> float:
        now, then = plan[weight], _next(plan[weight])
        won = rounder.error(weight, now) - rounder.error(weight, then)
        # a row of 8 bits with one scale may take less than 6 bits with many
        return sensitivity[weight] * won / max(rounder.size(weight, then) - rounder.size(weight, now), 1.0)

    return gain


def _next(bits: int) -> int:
    return LADDER[LADDER.index(bits) + 1]


def _total(rounder: Rounder, plan: Plan) -> float:
    return float(np.sum([rounder.size(weight, bits) for weight, bits in plan.items()]))


def first_good(count: int, good: Callable[[int], bool]) -> int:
    """The first of `count` steps that is good, supposing that those after a good one are; the last if none is."""
    return bisect_left(range(count - 1), x=True, key=good)
