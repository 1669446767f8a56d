"""Trees and proofs against the definitions of RFC 6962, written down once more, and against its reference values."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cumulant.governance.merkle import (
    EMPTY_ROOT,
    GrowingTree,
    consistency_proof,
    inclusion_proof,
    leaf_hash,
    node_hash,
    tree_root,
    verify_consistency,
    verify_inclusion,
)

#: the leaves that implementations of Certificate Transparency are tested with, and the roots of their beginnings
INPUTS = ["", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"]
ROOTS = [
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]
LEAVES = [leaf_hash(bytes.fromhex(text)) for text in INPUTS]


def hashes(count):
    return [leaf_hash(str(number).encode()) for number in range(count)]


def sha(data):
    return hashlib.sha256(data).digest()


def largest_power_below(count):
    power = 1
    while power * 2 < count:
        power *= 2
    return power


def mth(leaves):
    """MTH of RFC 6962, section 2.1, of leaf hashes."""
    if not leaves:
        return sha(b"")
    if len(leaves) == 1:
        return leaves[0]
    k = largest_power_below(len(leaves))
    return sha(b"\x01" + mth(leaves[:k]) + mth(leaves[k:]))


def path(m, leaves):
    """PATH of section 2.1.1."""
    if len(leaves) == 1:
        return []
    k = largest_power_below(len(leaves))
    if m < k:
        return [*path(m, leaves[:k]), mth(leaves[k:])]
    return [*path(m - k, leaves[k:]), mth(leaves[:k])]


def subproof(m, leaves, complete):
    """SUBPROOF of section 2.1.2."""
    if m == len(leaves):
        return [] if complete else [mth(leaves)]
    k = largest_power_below(len(leaves))
    if m <= k:
        return [*subproof(m, leaves[:k], complete), mth(leaves[k:])]
    return [*subproof(m - k, leaves[k:], False), mth(leaves[:k])]


def test_roots_of_the_reference_leaves():
    assert EMPTY_ROOT.hex() == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert [tree_root(LEAVES[:count]).hex() for count in range(1, 9)] == ROOTS


def test_proofs_of_the_reference_leaves():
    assert [node.hex() for node in inclusion_proof(LEAVES, 0)] == [
        "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
    ]
    assert [node.hex() for node in consistency_proof(LEAVES, 6)] == [
        "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
        "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    ]


@pytest.mark.parametrize("count", range(1, 34))
def test_all_proofs_of_small_trees_equal_the_definitions_and_verify(count):
    leaves = hashes(count)
    root = mth(leaves)
    assert tree_root(leaves) == root
    for index in range(count):
        proof = inclusion_proof(leaves, index)
        assert proof == path(index, leaves)
        assert verify_inclusion(leaves[index], index, count, proof, root)
        assert not any(
            verify_inclusion(leaves[index], other, count, proof, root) for other in range(count) if other != index
        )
    for first in range(1, count + 1):
        proof, old = consistency_proof(leaves, first), mth(leaves[:first])
        assert proof == ([] if first == count else subproof(first, leaves, True))
        assert verify_consistency(first, count, old, root, proof)
        assert first == count or not verify_consistency(first, count, leaf_hash(b"other"), root, proof)


@given(st.data())
def test_a_changed_proof_does_not_verify(data):
    count = data.draw(st.integers(2, 70))
    leaves = hashes(count)
    root, index, first = tree_root(leaves), data.draw(st.integers(0, count - 1)), data.draw(st.integers(1, count - 1))
    old = tree_root(leaves[:first])
    for proof, verify in (
        (inclusion_proof(leaves, index), lambda nodes: verify_inclusion(leaves[index], index, count, nodes, root)),
        (consistency_proof(leaves, first), lambda nodes: verify_consistency(first, count, old, root, nodes)),
    ):
        assert verify(proof)
        assert not verify(proof[:-1])
        assert not verify([*proof, leaf_hash(b"more")])
        place = data.draw(st.integers(0, len(proof) - 1))
        bit = data.draw(st.integers(0, 255))
        changed = bytearray(proof[place])
        changed[bit // 8] ^= 1 << bit % 8
        assert not verify([*proof[:place], bytes(changed), *proof[place + 1 :]])


@given(st.integers(0, 300), st.integers(0, 300))
def test_a_tree_that_grows_from_its_peaks_is_the_same(size, more):
    leaves = hashes(size + more)
    whole = GrowingTree()
    for leaf in leaves[:size]:
        whole.append(leaf)
    grown = GrowingTree(whole.size, whole.peaks)
    for leaf in leaves[size:]:
        grown.append(leaf)
    assert (grown.size, grown.root()) == (size + more, mth(leaves))


def test_what_is_no_tree_or_no_part_of_one():
    with pytest.raises(ValueError, match="3 leaves has 2"):
        GrowingTree(3, [LEAVES[0]])
    for index in (-1, 8):
        with pytest.raises(IndexError):
            inclusion_proof(LEAVES, index)
        assert not verify_inclusion(LEAVES[0], index, 8, inclusion_proof(LEAVES, 0), tree_root(LEAVES))
    for first in (0, 9):
        with pytest.raises(IndexError):
            consistency_proof(LEAVES, first)
        assert not verify_consistency(first, 8, LEAVES[0], tree_root(LEAVES), [])
    assert node_hash(LEAVES[0], LEAVES[1]).hex() == ROOTS[1]
