"""How the partitions of a topic are divided among the processes that ingest it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from typing import NamedTuple


class PartitionChange(NamedTuple):
    """The partitions that a member gives back, and those that it takes."""

    release: frozenset[int]
    take: frozenset[int]


def divide(
    partitions: Collection[int], owners: Mapping[int, str], members: Collection[str], own: str
) -> PartitionChange:
    """What one of the `members` changes of its share, as `owners` says by partition who has which now.

    Shares differ by one partition at most, and as few as possible move. Nobody takes a partition that a member still
    has: its owner gives it back first. Where each member applies this again and again, one at a time, nothing changes
    any more after each of them has done it twice.
    """
    sizes = Counter(owner for partition, owner in owners.items() if partition in partitions)
    ranked = sorted(members, key=lambda member: (-sizes[member], member))
    least, larger = divmod(len(partitions), len(ranked))
    size = least + (ranked.index(own) < larger)
    mine = sorted(partition for partition in partitions if owners.get(partition) == own)
    free = sorted(partition for partition in partitions if owners.get(partition) not in ranked)
    return PartitionChange(frozenset(mine[size:]), frozenset(free[: max(size - len(mine), 0)]))
