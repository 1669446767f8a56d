"""The rows with the smallest hashes against a sort of all of them."""

from __future__ import annotations

import hashlib
from itertools import pairwise

import numpy as np
import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from cumulant.training.row_hash import mixed, row_hashes
from cumulant.training.smallest_hashes import SmallestHashes

#: few values, so that many hashes are equal, and the ends of what 64 bits hold
HASHES = st.lists(st.integers(0, 5) | st.integers(0, 2**64 - 1) | st.just(2**64 - 1), max_size=60)


def chosen(hashes: list[int], most: int, cuts: list[int], order: list[int] | None = None) -> list[tuple[int, int]]:
    """(position, hash) of the rows that are chosen, seen in blocks that end at `cuts`."""
    rows = SmallestHashes(most)
    bounds = sorted({0, len(hashes), *(cut % (len(hashes) + 1) for cut in cuts)})
    spans = list(pairwise(bounds))
    for begin, end in [spans[place] for place in order or range(len(spans))]:
        rows.add(np.array(hashes[begin:end], dtype=np.uint64), np.arange(begin, end, dtype=np.int64))
    positions, found = rows.rows()
    return list(zip(positions.tolist(), found.tolist(), strict=True))


def oracle(hashes: list[int], most: int) -> list[tuple[int, int]]:
    smallest = sorted((value, place) for place, value in enumerate(hashes))[:most]
    return sorted((place, value) for value, place in smallest)


@given(HASHES, st.integers(1, 70), st.lists(st.integers(0, 100), max_size=8), st.randoms(use_true_random=False))
def test_the_smallest_are_those_of_a_sort_in_any_blocks_and_order(hashes, most, cuts, dice):
    spans = len(sorted({0, len(hashes), *(cut % (len(hashes) + 1) for cut in cuts)})) - 1
    order = dice.sample(range(spans), spans)
    assert chosen(hashes, most, cuts, order) == oracle(hashes, most)


@given(HASHES, st.integers(1, 30), st.integers(0, 30))
def test_a_smaller_number_is_part_of_a_larger_one(hashes, most, more):
    assert set(chosen(hashes, most, [7, 20])) <= set(chosen(hashes, most + more, [11]))


@given(HASHES, HASHES, st.integers(1, 30))
def test_added_rows_replace_and_change_nothing_else(hashes, added, most):
    before, after = (set(chosen(one, most, [])) for one in (hashes, hashes + added))
    assert {row for row in after if row[0] < len(hashes)} <= before


def test_what_is_held_is_bounded_by_the_number_and_not_by_the_rows():
    rows, draw = SmallestHashes(100), np.random.default_rng(0)
    for block in range(200):
        rows.add(draw.integers(0, 2**63, 1000, dtype=np.uint64), np.arange(block * 1000, (block + 1) * 1000))
        assert rows._count <= 200 + 1000
    assert len(rows.rows()[0]) == 100


def test_hashes_are_those_of_a_written_rule():
    """A version that another machine trained learned from the same rows."""
    keys = pl.DataFrame({"card": ["é", None], "visit": [7, -1]})
    texts = ["é\x1f7", "\x00\x1f-1"]
    digests = [int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") for text in texts]
    assert row_hashes(keys, ["card", "visit"]).tolist() == digests
    # the first numbers of splitmix64 with the seed 0 and the gamma of its authors
    assert mixed(np.zeros(1, dtype=np.uint64)).tolist() == [0xE220A8397B1DCDAF]
    assert mixed(np.zeros(1, dtype=np.uint64), 1).tolist() == [0x6E789E6AA1B965F4]
