"""Rows of the log that become cases: the most useful ones, and a random sample of the others.

Of N rows the k most useful are taken for sure; of the other N - k a simple random sample of m, each with the chance m /
(N - k). So figures of all N follow from the cases (Horvitz & Thompson, 1952; take-all stratum: Särndal, Swensson &
Wretman, 1992, 3.7). Chance is a keyed hash of the row: unpredictable and repeatable.
"""

from __future__ import annotations

import heapq
import hmac
from collections.abc import Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
#: bytes of a place in a random order
_PART = 12


class CandidateRow(msgspec.Struct, frozen=True, kw_only=True):
    request: str
    row: int
    worker: str
    sequence: int
    #: microseconds since 1970 UTC
    time: int
    model: str
    version: str
    ref: str | None
    reasons: tuple[str, ...]
    useful: float
    #: its places in two random orders
    draw_number: bytes

    @property
    def drawn(self) -> bytes:
        """Its place in the order by which the sample is drawn."""
        return self.draw_number[:_PART]

    @property
    def tie(self) -> bytes:
        """Its rank among equally useful rows, independent of the sample's order, so that no chance is lowered."""
        return self.draw_number[_PART:]

    @property
    def place(self) -> tuple[str, int, int]:
        return self.worker, self.sequence, self.row


class SelectedRows(msgspec.Struct, frozen=True, kw_only=True):
    """The rows of one draw in the order of review, and the chance of the sampled ones."""

    ranked: tuple[CandidateRow, ...]
    sample: tuple[CandidateRow, ...]
    rows: int
    chance: float

    def ordered(self) -> list[tuple[CandidateRow, bool]]:
        """All, with whether each was drawn at random: the sample evenly among the ranked, the most useful first."""
        places = [((i + 0.5) / len(self.ranked), row, False) for i, row in enumerate(self.ranked)]
        places += [((i + 0.5) / len(self.sample), row, True) for i, row in enumerate(self.sample)]
        return [(row, drawn) for _, row, drawn in sorted(places, key=lambda place: (place[0], place[2]))]


def draw_number(key: bytes, worker: str, sequence: int, row: int) -> bytes:
    """The row's places in two random orders: an HMAC of its place in the log."""
    return hmac.digest(key, f"review\0{worker}\0{sequence}\0{row}".encode(), "sha256")[: 2 * _PART]


def combine_scores(parts: Sequence[Floats]) -> Floats:
    """[n] of scores [n] from 0 to 1, one a reason: 1 less the product of their complements."""
    missing: Floats = np.prod([1 - np.clip(part, 0, 1) for part in parts], axis=0)
    return 1 - missing


class RowSelector:
    """Selection of cases in one pass over the rows, in memory for as many rows as may be taken."""

    def __init__(self, *, ranked: int, sample: int) -> None:
        self._ranked, self._sample = ranked, sample
        self._useful: list[tuple[float, bytes, CandidateRow]] = []
        self._drawn: list[tuple[bytes, bytes, CandidateRow]] = []
        self.rows = 0

    def add(self, candidate: CandidateRow) -> None:
        self.rows += 1
        if candidate.reasons and self._ranked:
            _push(self._useful, (candidate.useful, candidate.tie, candidate), self._ranked)
        # Enough that those taken for their usefulness can be left out.
        _push(self._drawn, (candidate.drawn, candidate.tie, candidate), self._ranked + self._sample)

    def eligible(self, useful: Floats, draw_numbers: Sequence[bytes]) -> NDArray[np.bool_]:
        """[n] which rows of a batch could be kept: only these need become candidates."""
        least = self._useful[0][0] if len(self._useful) == self._ranked and self._useful else -1.0
        floor = self._drawn[0][0] if len(self._drawn) == self._ranked + self._sample and self._drawn else b""
        drawn = np.fromiter((number[:_PART] >= floor for number in draw_numbers), dtype=bool, count=len(draw_numbers))
        eligible: NDArray[np.bool_] = (useful > 0) & (useful >= least) | drawn
        return eligible

    def skip(self, rows: int) -> None:
        """Count rows that `eligible` left out."""
        self.rows += rows

    def select(self) -> SelectedRows:
        ranked = [row for *_, row in sorted(self._useful, key=lambda entry: entry[:2], reverse=True)]
        taken = {row.place for row in ranked}
        drawn = sorted(self._drawn, key=lambda entry: entry[:2], reverse=True)
        sample = [row for *_, row in drawn if row.place not in taken][: self._sample]
        rest = self.rows - len(ranked)
        chance = len(sample) / rest if rest else 1.0
        return SelectedRows(ranked=tuple(ranked), sample=tuple(sample), rows=self.rows, chance=chance)


def _push(heap: list, entry: tuple, most: int) -> None:  # type: ignore[type-arg]
    if len(heap) < most:
        heapq.heappush(heap, entry)
    elif most and entry[:2] > heap[0][:2]:
        heapq.heapreplace(heap, entry)
