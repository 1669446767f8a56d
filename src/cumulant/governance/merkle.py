"""Merkle trees as RFC 6962 defines them, with the proofs of RFC 9162: inclusion of a leaf, consistency of two sizes.

Leaves are given by their hashes. A tree of n leaves has as its left part the largest power of two below n.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

_LEAF, _NODE = b"\x00", b"\x01"
EMPTY_ROOT = hashlib.sha256().digest()


def leaf_hash(data: bytes) -> bytes:
    """The hash of a leaf. Its prefix keeps a node from being taken for a leaf."""
    return hashlib.sha256(_LEAF + data).digest()


def node_hash(first: bytes, second: bytes) -> bytes:
    """The hash of a node above two others."""
    return hashlib.sha256(_NODE + first + second).digest()


class GrowingTree:
    """A tree that leaves are added to. It keeps the roots of its complete subtrees, one a binary digit of its size."""

    def __init__(self, size: int = 0, peaks: Iterable[bytes] = ()) -> None:
        self.size = size
        self._peaks = list(peaks)
        if len(self._peaks) != size.bit_count():
            raise ValueError(
                f"a tree of {size} leaves has {size.bit_count()} complete subtrees, not {len(self._peaks)}"
            )

    @property
    def peaks(self) -> tuple[bytes, ...]:
        """The roots of the complete subtrees, from the largest to the smallest."""
        return tuple(self._peaks)

    def append(self, leaf: bytes) -> None:
        """Add a leaf by its hash."""
        node, size = leaf, self.size
        while size & 1:
            node = node_hash(self._peaks.pop(), node)
            size >>= 1
        self._peaks.append(node)
        self.size += 1

    def root(self) -> bytes:
        if not self._peaks:
            return EMPTY_ROOT
        root = self._peaks[-1]
        for peak in reversed(self._peaks[:-1]):
            root = node_hash(peak, root)
        return root


def tree_root(leaves: Iterable[bytes]) -> bytes:
    """The root of a tree of these leaf hashes."""
    tree = GrowingTree()
    for leaf in leaves:
        tree.append(leaf)
    return tree.root()


def inclusion_proof(leaves: Sequence[bytes], index: int) -> list[bytes]:
    """The hashes that lead from leaf `index` to the root, from the bottom.

    Raises:
        IndexError: there is no such leaf.
    """
    if not 0 <= index < len(leaves):
        raise IndexError(f"there is no leaf {index} in a tree of {len(leaves)}")
    proof: list[bytes] = []
    while len(leaves) > 1:
        middle = _split(len(leaves))
        in_first = index < middle
        proof.append(tree_root(leaves[middle:] if in_first else leaves[:middle]))
        leaves, index = (leaves[:middle], index) if in_first else (leaves[middle:], index - middle)
    return proof[::-1]


def verify_inclusion(leaf: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes) -> bool:
    """Whether the tree of `size` leaves with this root has this leaf hash at `index`."""
    if not 0 <= index < size:
        return False
    node, last, computed = index, size - 1, leaf
    for sibling in proof:
        if last == 0:
            return False
        if node & 1 or node == last:
            computed = node_hash(sibling, computed)
            while not node & 1 and node:
                node, last = node >> 1, last >> 1
        else:
            computed = node_hash(computed, sibling)
        node, last = node >> 1, last >> 1
    return last == 0 and computed == root


def consistency_proof(leaves: Sequence[bytes], first: int) -> list[bytes]:
    """The hashes that show that the tree of the first `first` leaves is the beginning of the whole.

    Raises:
        IndexError: `first` is not between 1 and the number of leaves.
    """
    if not 0 < first <= len(leaves):
        raise IndexError(f"a tree of {len(leaves)} leaves has no beginning of {first}")
    proof: list[bytes] = []
    known = True  # the part under consideration is all of the first tree, whose root the verifier has
    while first < len(leaves):
        middle = _split(len(leaves))
        if first <= middle:
            proof.append(tree_root(leaves[middle:]))
            leaves = leaves[:middle]
        else:
            proof.append(tree_root(leaves[:middle]))
            leaves, first, known = leaves[middle:], first - middle, False
    if not known:
        proof.append(tree_root(leaves))
    return proof[::-1]


def verify_consistency(first: int, second: int, first_root: bytes, second_root: bytes, proof: Sequence[bytes]) -> bool:
    """Whether the tree of `first` leaves is the beginning of the tree of `second` leaves."""
    if not 0 < first <= second:
        return False
    if first == second:
        return not proof and first_root == second_root
    path = list(proof) if first & (first - 1) else [first_root, *proof]
    if not path:
        return False
    node, last = first - 1, second - 1
    while node & 1:
        node, last = node >> 1, last >> 1
    old = new = path[0]
    for sibling in path[1:]:
        if last == 0:
            return False
        if node & 1 or node == last:
            old, new = node_hash(sibling, old), node_hash(sibling, new)
            while not node & 1 and node:
                node, last = node >> 1, last >> 1
        else:
            new = node_hash(new, sibling)
        node, last = node >> 1, last >> 1
    return last == 0 and old == first_root and new == second_root


def _split(size: int) -> int:
    """The largest power of two below `size`, which is at least 2."""
    return 1 << (size - 1).bit_length() - 1
