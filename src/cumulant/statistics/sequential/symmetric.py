"""Means of blocks under continuous watching, whatever the dependence within a block: one value a block, and its side.

**Assumption.** The value of a block, given those before, lies symmetrically about an expectation on the null's side of
the boundary, with any spread. Exact where the arms are exchangeable; the mean of many pairs is nearly symmetric. Blocks
are nearly independent (`LongRunVariance`) and hold at least `FEWEST_PAIRS`.

**Evidence.** For h odd, rising and within [-1, 1], the expected value of 1 + h(x) is at most 1 under the null, so their
product is an e-process (de la Pena 1999, doi:10.1214/aop/1022677467; Ramdas, Ruf, Larsson and Koolen 2020,
arXiv:2009.03167, section 5). Here h(x) = tanh(bet x / scale), the scale being the root mean square of all values up to
x. Capital is spread over bets; a block at most doubles it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import cast

import numpy as np
import numpy.typing as npt

from cumulant.statistics.sequential.arrays import Floats, StoredState

#: pairs that the mean of a block is taken over, at least
FEWEST_PAIRS = 50
#: bets of so many times a block's usual size, evenly on a logarithmic scale
_LEAST, _MOST, _BETS = 0.04, 2.4, 8
_SIZES: Floats = np.geomspace(_LEAST, _MOST, _BETS)
#: where a standard normal is summed up: exact to rounding for what is as smooth as a logarithm of a bet
_NODES: Floats = np.linspace(-9, 9, 145)


@dataclass(frozen=True)
class Symmetric(StoredState):
    """Evidence that the expectation of symmetric values is above 0; O(1) state.

    `blocks` and `squares` (their sum) are [batch], `capital` is [batch, bets], in logarithms.
    """

    blocks: int
    squares: Floats
    capital: Floats

    @classmethod
    def start(cls, *, batch: tuple[int, ...] = ()) -> Symmetric:
        return cls(0, np.zeros(batch), np.zeros((*batch, _BETS)))

    def add(self, value: npt.ArrayLike, *, weight: float = 1.0) -> Symmetric:
        """With one more value [batch], whose evidence counts for `weight`, 0 to 1, chosen before the value is known.

        The power `weight` of a factor with an expected value of at most 1 has one of at most 1 as well (Jensen), so
        that a weight below 1 costs evidence and no validity.

        Raises:
            ValueError: a value is not finite.
        """
        x = np.asarray(value, dtype=np.float64)
        if not np.isfinite(x).all():
            raise ValueError("the value of a block is not finite; leave out pairs that have none")
        blocks, squares = self.blocks + 1, self.squares + x**2
        size = np.sqrt(squares / blocks)
        steps = bet_sizes() * np.divide(x, size, out=np.zeros_like(size), where=size > 0)[..., None]
        # log(1 + tanh s) = s - log cosh s, also where tanh is -1 but for rounding
        gain = steps - (np.logaddexp(steps, -steps) - math.log(2))
        return replace(self, blocks=blocks, squares=squares, capital=self.capital + weight * gain)

    def log_evidence(self) -> Floats:
        """Log e-value [batch] against "each expectation is at most 0"; reject at log(1 / alpha), whenever reached."""
        whole = np.logaddexp.reduce(self.capital, axis=-1)  # much quicker than scipy's logsumexp for so few values
        return cast("Floats", whole - math.log(self.capital.shape[-1]))


@dataclass(frozen=True)
class PairedBlocks(StoredState):
    """Whether a candidate's loss exceeds the champion's by more than a margin, on the same requests, block by block.

    All pairs of a block, of whatever keys, give one value, their mean difference (candidate's loss - champion's). One
    with fewer pairs than blocks had before counts for less, in proportion. `pairs` [batch] is how many were added.
    """

    margin: float
    edge: float
    pairs: Floats
    worse: Symmetric
    better: Symmetric

    @classmethod
    def start(cls, *, margin: float, edge: float = 0.0, batch: tuple[int, ...] = ()) -> PairedBlocks:
        """No blocks yet. `harm` tests whether the difference is above `edge`, `not_worse` whether it is below `margin`.

        Raises:
            ValueError: not 0 <= edge <= margin, or the margin is 0 or not finite.
        """
        if not (0 <= edge <= margin and 0 < margin < math.inf):
            raise ValueError(
                f"a paired comparison needs 0 <= edge <= margin and a margin above 0, not {edge}, {margin}"
            )
        return cls(margin, edge, np.zeros(batch), Symmetric.start(batch=batch), Symmetric.start(batch=batch))

    def add(self, difference: npt.ArrayLike, pairs: npt.ArrayLike, *, weight: float = 1.0) -> PairedBlocks:
        """With one more block: its mean `difference` [batch] over so many `pairs` [batch]; `weight` as in `Symmetric`.

        Raises:
            ValueError: a difference is not finite, or a block has no pairs (leave it out).
        """
        x, n = (np.asarray(argument, dtype=np.float64) for argument in (difference, pairs))
        if not ((n > 0).all() and np.isfinite(n).all()):
            raise ValueError("a block has one or more pairs; leave empty blocks out")
        usual = self.pairs / max(self.worse.blocks, 1)
        size = n / np.maximum(n, usual)
        return replace(
            self,
            pairs=self.pairs + n,
            worse=self.worse.add(size * (x - self.edge), weight=weight),
            better=self.better.add(size * (self.margin - x), weight=weight),
        )

    def log_harm(self) -> Floats:
        """Log e-value [batch] against "the candidate's mean loss is at most the champion's plus `edge`"."""
        return self.worse.log_evidence()

    def log_not_worse(self) -> Floats:
        """Log e-value [batch] against "the candidate's mean loss is the champion's plus the margin, or more"."""
        return self.better.log_evidence()


def bet_sizes() -> Floats:
    """The sizes [bets] that capital is spread over, as parts of a block's usual size."""
    return _SIZES


def growth(signal: float) -> Floats:
    """Expected logarithm [bets] that a block adds: its value is normal, with a mean of `signal` standard deviations."""
    weights = np.exp(-(_NODES**2) / 2)
    steps = bet_sizes()[:, None] * (_NODES + signal) / math.hypot(1, signal)
    gain = steps - (np.logaddexp(steps, -steps) - math.log(2))
    return cast("Floats", gain @ (weights / weights.sum()))
