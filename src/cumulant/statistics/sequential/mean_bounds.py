"""Confidence sequences of mean differences: the tests of a margin, turned around.

A test of a margin says whether the mean difference is above or below that one number. Here the same tests run beside
each other for fixed numbers (`edges`), and what they have rejected bounds the mean: at the margin itself the evidence
is that of `PairedBlocks` or `Paired`. Each side has half of alpha.

**Assumption.** That of the tests. The edges are chosen before the data; a bound is the last edge up to which all are
rejected, counted from the outermost, so that the chance of an error is that of the one test nearest to the mean.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import cast

import numpy as np
import numpy.typing as npt

from cumulant.statistics.sequential.arrays import Floats, StoredState, check_alpha
from cumulant.statistics.sequential.symmetric import Symmetric

#: edges on either side of 0, in margins
_MULTIPLES = (0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 16.0, 32.0)
_BETS = 24


def edges_of(margin: float, *, within: float = math.inf) -> Floats:
    """The edges [edges] of a margin, in rising order, those below `within` from 0 alone.

    Raises:
        ValueError: the margin is not above 0 and finite.
    """
    if not 0 < margin < math.inf:
        raise ValueError(f"a margin is above 0 and finite, not {margin}")
    sizes = margin * np.asarray(_MULTIPLES)
    edges = np.concatenate([-sizes[::-1], [0.0], sizes])
    return cast("Floats", edges[np.abs(edges) < within])


@dataclass(frozen=True)
class BlockBounds(StoredState):
    """Bounds of a mean difference [batch] whose blocks are symmetric about it (`PairedBlocks`)."""

    edges: Floats
    pairs: float
    above: Symmetric
    below: Symmetric

    @classmethod
    def start(cls, margin: float, *, batch: tuple[int, ...] = ()) -> BlockBounds:
        edges = edges_of(margin)
        side = Symmetric.start(batch=(*batch, *edges.shape))
        return cls(edges, 0.0, side, side)

    def add(self, difference: npt.ArrayLike, pairs: int, *, weight: float = 1.0) -> BlockBounds:
        """With one more block of so many pairs: its mean `difference` [batch], as in `PairedBlocks`."""
        usual = self.pairs / max(self.above.blocks, 1)
        beyond = pairs / max(pairs, usual) * (np.asarray(difference)[..., None] - self.edges)
        return replace(
            self,
            pairs=self.pairs + pairs,
            above=self.above.add(beyond, weight=weight),
            below=self.below.add(-beyond, weight=weight),
        )

    def interval(self, alpha: float) -> tuple[Floats, Floats]:
        """The bounds [batch] of the mean difference, valid at every block; infinite where nothing is known yet."""
        return _bounds(self.edges, self.above.log_evidence(), self.below.log_evidence(), alpha)


@dataclass(frozen=True)
class BettingBounds(StoredState):
    """Bounds of a mean difference [batch] of values in [-scale, scale] (`Paired`); capitals [batch, edges, bets]."""

    scale: float
    edges: Floats
    above: Floats
    below: Floats

    @classmethod
    def start(cls, margin: float, scale: float, *, batch: tuple[int, ...] = ()) -> BettingBounds:
        edges = edges_of(margin, within=scale)
        none = np.zeros((*batch, len(edges), _BETS))
        return cls(scale, edges, none, none)

    def add(self, difference: npt.ArrayLike) -> BettingBounds:
        """With one more value [batch], in [-scale, scale]."""
        value, edge = (1 + np.asarray(difference)[..., None] / self.scale) / 2, (1 + self.edges / self.scale) / 2
        return replace(
            self,
            above=self.above + np.log1p((value - edge)[..., None] * _bets(edge)),
            below=self.below + np.log1p((edge - value)[..., None] * _bets(1 - edge)),
        )

    def interval(self, alpha: float) -> tuple[Floats, Floats]:
        """As `BlockBounds.interval`."""
        above, below = (
            np.logaddexp.reduce(side, axis=-1) - math.log(side.shape[-1]) for side in (self.above, self.below)
        )
        return _bounds(self.edges, above, below, alpha)


def _bets(boundary: Floats) -> Floats:
    """The bets [edges, bets] of `means.Betting` at each boundary."""
    boldest = 0.9 / boundary
    return np.geomspace(boldest / 1000, boldest, _BETS, axis=-1)


def _bounds(edges: Floats, above: Floats, below: Floats, alpha: float) -> tuple[Floats, Floats]:
    bar = math.log(2 / check_alpha(alpha))
    from_below = (above >= bar).cumprod(axis=-1).sum(axis=-1)
    from_above = (below[..., ::-1] >= bar).cumprod(axis=-1).sum(axis=-1)
    return np.append(-math.inf, edges)[from_below], np.append(edges, math.inf)[len(edges) - from_above]
