"""Blocks: how looks are merged, and keys are thinned, until the tests' independence holds.

**The rule.** Before a release starts, `merge_factor` of the champion's own history (its rate or mean a look) says how
many neighbouring looks make one block. It is then fixed: choosing it from the data that are tested would break the
guarantee. Fluctuations slower than the longest block (a daily rhythm) remain; both arms share them, and at constant
weight they move both rates alike.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from cumulant.statistics.sequential.arrays import Floats

#: merging stops at this lag-one autocorrelation of block means
BOUND = 0.25
#: with fewer blocks than this the autocorrelation says nothing
FEWEST = 12


def autocorrelation(values: npt.ArrayLike) -> float:
    """Lag-one autocorrelation of `values` [blocks]; 0 where they do not vary or are fewer than three."""
    x = np.asarray(values, dtype=np.float64)
    if len(x) < 3:
        return 0.0
    x = x - x.mean()
    whole = float(x @ x)
    return float(x[1:] @ x[:-1]) / whole if whole > 0 else 0.0


def merge_factor(history: npt.ArrayLike, *, bound: float = BOUND) -> int:
    """How many looks make a block: the least power of two at which blocks of `history` [looks] are nearly uncorrelated.

    A sample of m blocks shows an autocorrelation of about 1/sqrt(m) by chance; that much is allowed on top of `bound`.
    Where even the longest block that leaves `FEWEST` of them is correlated, that longest one is returned doubled.

    Raises:
        ValueError: the history has fewer than `FEWEST` looks.
    """
    x = np.asarray(history, dtype=np.float64)
    if len(x) < FEWEST:
        raise ValueError(f"the champion's history has {len(x)} looks; {FEWEST} are needed to see how they depend")
    factor = 1
    while len(x) // factor >= FEWEST:
        means = merged(x, factor) / factor
        if autocorrelation(means) <= bound + 1 / np.sqrt(len(means)):
            return factor
        factor *= 2
    return factor


def merged(values: npt.ArrayLike, factor: int) -> Floats:
    """Sums of `factor` neighbours along the last axis [..., looks] -> [..., looks // factor]; a rest is left out.

    Raises:
        ValueError: factor is below 1.
    """
    if factor < 1:
        raise ValueError(f"a block of {factor} looks is none; the factor is 1 or more")
    x = np.asarray(values, dtype=np.float64)
    whole = x.shape[-1] // factor
    return np.asarray(x[..., : whole * factor].reshape((*x.shape[:-1], whole, factor)).sum(-1), dtype=np.float64)


def first_events(keys: Iterable[str], seen: set[str]) -> int:
    """How many of `keys` (one a bad event, of one block and arm) had no bad event before; they are added to `seen`.

    Counting a key once makes the events of different keys independent however often one of them asks or fails.
    Both arms must be counted so. What a key does after its first failure is not seen: an error that only ever hits
    keys that have failed before is missed.
    """
    new = set(keys) - seen
    seen |= new
    return len(new)
