"""Sequences in pieces whose ends the items' content decides: a changed item leaves all other pieces alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

Item = TypeVar("Item")


def cut(
    items: Iterable[Item],
    content: Callable[[Item], str],
    *,
    least: int,
    one_in: int,
    most: int,
    weight: Callable[[Item], int] = lambda _: 0,
    capacity: int = 0,
) -> Iterator[list[Item]]:
    """Pieces of `least` to `most` items, ended by one `content` (hexadecimal digest) in `one_in`, of `capacity` weight.

    Only the last, and one whose successor does not fit, may be smaller.
    """
    piece: list[Item] = []
    size = 0
    for item in items:
        if piece and size + weight(item) > capacity:
            yield piece
            piece, size = [], 0
        piece.append(item)
        size += weight(item)
        ends = len(piece) >= least and int(content(item)[:8], 16) % one_in == 0
        if ends or len(piece) == most:
            yield piece
            piece, size = [], 0
    if piece:
        yield piece
