"""The rows of a source that were ingested last, by their identities: the first row of a key stands.

Online state finds a row again only in the entity that it belongs to. A row that comes again with another card would
enter that card's events as well; here it is recognised, among as many rows as are kept.
"""

from __future__ import annotations

from collections import deque

import numpy as np

from cumulant.features.offline.kernel.timeline import Flags, Ints

#: rows of a source that are remembered, 8 bytes each
MOST_KEYS = 4_000_000


class RecentKeys:
    """The identities of the last `most` rows, and a little more: whole batches are forgotten."""

    def __init__(self, most: int = MOST_KEYS) -> None:
        self._most, self._count = most, 0
        #: sorted, the oldest first
        self._batches: deque[Ints] = deque()
        self._joined: Ints = np.empty(0, dtype=np.int64)
        self._fresh: list[Ints] = []

    def add(self, identities: Ints) -> None:
        """Remember the rows of a batch."""
        self._batches.append(identities)
        self._fresh.append(np.sort(identities))
        self._count += len(identities)
        if self._count > self._most + self._most // 4:
            while len(self._batches) > 1 and self._count - len(self._batches[0]) >= self._most:
                self._count -= len(self._batches.popleft())
            self._joined, self._fresh = np.sort(np.concatenate(self._batches)), []
        elif sum(map(len, self._fresh)) > max(len(self._joined) // 4, 10_000):
            self._joined = np.sort(np.concatenate((self._joined, *self._fresh)), kind="stable")
            self._fresh = []

    def holds(self, identities: Ints) -> Flags:
        """Which of these rows came before."""
        hits = np.zeros(len(identities), dtype=np.bool_)
        for known in (self._joined, *self._fresh):
            if len(known):
                at = np.minimum(np.searchsorted(known, identities), len(known) - 1)
                hits |= known[at] == identities
        return hits
