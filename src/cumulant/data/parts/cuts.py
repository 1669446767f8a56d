"""Sequences in pieces that end where the content of an item says so: a changed item leaves all other pieces alone."""

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
    taken: Callable[[Item], int] = lambda _: 0,
    room: int = 0,
) -> Iterator[list[Item]]:
    """Pieces of at least `least` items (but for the last, and where the next has no `room`), which one in `one_in`
    more ends, and of at most `most`. `content` is a hexadecimal digest; `taken` of a piece is at most `room`.
    """
    held: list[Item] = []
    size = 0
    for item in items:
        if held and size + taken(item) > room:
            yield held
            held, size = [], 0
        held.append(item)
        size += taken(item)
        ends = len(held) >= least and int(content(item)[:8], 16) % one_in == 0
        if ends or len(held) == most:
            yield held
            held, size = [], 0
    if held:
        yield held
