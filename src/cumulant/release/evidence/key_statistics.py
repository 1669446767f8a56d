"""The keys of a step: which of them fail, how unevenly, and how unevenly they send requests.

A key is one unit a look, the share of its requests that were bad; evidence is divided by the dispersion over keys.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cumulant.release.evidence.look import COUNTED, Requests
from cumulant.statistics.sequential.arrays import Floats, pack, unpack

#: keys that are kept of a step: those that failed, then those with most requests
_MOST = 1024
#: keys of an arm below which differences between keys and between arms cannot be distinguished
FEWEST_KEYS = 5
#: a dispersion over keys that stands for no evidence
NO_EVIDENCE = float("inf")


@dataclass(frozen=True, eq=False)
class Units:
    """A look's units [n]: one a key, one a request without a key.

    Attributes:
        key: 0 of requests without a key.
        candidate: the arm.
        requests: how many requests are in it.
        bad: [n, 3] share of them that were bad, in the order of `look.COUNTED`.
    """

    key: npt.NDArray[np.uint64]
    candidate: npt.NDArray[np.bool_]
    requests: Floats
    bad: Floats

    def sums(self) -> Floats:
        """[2, 4]: units, and units' bad shares by metric, of the champion and the candidate."""
        sums = np.zeros((2, 1 + len(COUNTED)))
        for arm in (0, 1):
            mine = self.candidate == bool(arm)
            sums[arm] = (mine.sum(), *self.bad[mine].sum(0))
        return sums


def units(requests: Requests, *, slow: npt.NDArray[np.bool_]) -> Units:
    """The units of a look's requests; `slow` [n]: took longer than the bound of its arm."""
    bad = np.stack([requests.failed, requests.timed_out, slow], axis=1).astype(np.float64)
    alone = requests.key == 0
    keyed = ~alone
    # An arm is part of the unit: what a gateway moved within a look belongs to both arms.
    marked = np.stack([requests.key[keyed], requests.candidate[keyed].astype(np.uint64)], axis=1)
    if not len(marked):
        return Units(requests.key, requests.candidate, np.ones(len(requests)), bad)
    order = np.lexsort((marked[:, 1], marked[:, 0]))
    ranked = marked[order]
    begins = np.concatenate([[True], (ranked[1:] != ranked[:-1]).any(1)])
    first = np.flatnonzero(begins)
    counts = np.diff(np.append(first, len(ranked))).astype(np.float64)
    shares = np.add.reduceat(bad[keyed][order], first, axis=0) / counts[:, None]
    return Units(
        np.concatenate([ranked[first, 0], requests.key[alone]]),
        np.concatenate([ranked[first, 1] == 1, requests.candidate[alone]]),
        np.concatenate([counts, np.ones(int(alone.sum()))]),
        np.concatenate([shares, bad[alone]]),
    )


@dataclass(frozen=True, eq=False)
class KeyStatistics:
    """Keys of a step [keys]: looks with requests of theirs, requests, and sums of their bad shares [keys, 3]."""

    key: npt.NDArray[np.uint64]
    candidate: npt.NDArray[np.bool_]
    looks: Floats
    requests: Floats
    bad: Floats

    @classmethod
    def start(cls) -> KeyStatistics:
        none = np.zeros(0)
        return cls(none.astype(np.uint64), none.astype(np.bool_), none, none, np.zeros((0, len(COUNTED))))

    def add(self, more: Units) -> KeyStatistics:
        """With a look's units; of too many keys, those that failed and those with most requests stay."""
        keyed = more.key != 0
        key = np.concatenate([self.key, more.key[keyed]])
        if not len(key):
            return self
        candidate = np.concatenate([self.candidate, more.candidate[keyed]])
        sums = np.concatenate(
            [
                np.column_stack([self.looks, self.requests, self.bad]),
                np.column_stack([np.ones(int(keyed.sum())), more.requests[keyed], more.bad[keyed]]),
            ]
        )
        names, place = np.unique(key, return_inverse=True)
        total = np.zeros((len(names), sums.shape[1]))
        np.add.at(total, place, sums)
        arm = np.zeros(len(names), dtype=np.bool_)
        arm[place] = candidate
        if len(names) > _MOST:
            chosen = np.argpartition(-(total[:, 1] + 1e9 * (total[:, 2:].sum(1) > 0)), _MOST)[:_MOST]
            chosen.sort()
            names, arm, total = names[chosen], arm[chosen], total[chosen]
        return KeyStatistics(names, arm, total[:, 0], total[:, 1], total[:, 2:])

    def dispersion(self, sums: Floats) -> Floats:
        """[2, 3]: how many times more than Poisson each arm's bad units vary over keys; 1 where no more.

        `sums` [2, 4] are all units of the step and their bad shares, also of keys that are not kept. It is the sum of
        squared deviations of each key from its arm's rate over the sum of expected values (McCullagh and Nelder 1989,
        Generalized Linear Models, section 4.5, by clusters).
        """
        factors = np.ones((2, len(COUNTED)))
        for arm in (0, 1):
            mine = self.candidate == bool(arm)
            keys, units_, bad = int(mine.sum()), float(sums[arm, 0]), sums[arm, 1:]
            alone = units_ - float(self.looks[mine].sum())
            clusters = keys + alone
            if not units_ or not keys:
                continue
            if clusters < FEWEST_KEYS:
                factors[arm] = NO_EVIDENCE
                continue
            rate = bad / units_
            squares = ((self.bad[mine] - rate * self.looks[mine, None]) ** 2).sum(0)
            squares += np.maximum(bad - self.bad[mine].sum(0), 0.0)  # each for itself
            expected = np.maximum(bad, 1e-12)
            factors[arm] = np.maximum(1.0, squares / expected * clusters / (clusters - 1))
        return factors

    def concentration(self, total: float) -> float:
        """Sum of squared shares of the keys in `total` requests: 1 / it is how many equal keys would be as uneven."""
        if not total:
            return 1.0
        rest = max(0.0, total - float(self.requests.sum()))
        largest = float(self.requests.min()) if len(self.key) >= _MOST else 1.0
        return float((self.requests**2).sum() + rest * largest) / total**2

    def to_json(self) -> dict[str, str]:
        columns = np.column_stack([self.looks, self.requests, self.bad]).astype("<f4")
        return {
            "key": pack(self.key.astype("<u8")),
            "arm": pack(self.candidate),
            "sums": pack(columns),
        }

    @classmethod
    def from_json(cls, stored: Mapping[str, str]) -> KeyStatistics:
        """What `to_json` wrote; of nothing no keys."""
        if not stored:
            return cls.start()
        key, arm = unpack(stored["key"], "<u8"), unpack(stored["arm"], "?")
        sums = unpack(stored["sums"], "<f4").reshape(len(key), 2 + len(COUNTED)).astype(np.float64)
        return cls(key, arm, sums[:, 0], sums[:, 1], sums[:, 2:])
