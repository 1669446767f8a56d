"""Positions in a shard: how far it was read, and until when.

Sequence numbers have gaps, and a shard does not tell its newest one. A position is therefore a time in milliseconds
since 1970, up to which all messages were read, and below it the sequence number from which to read on; one bit above
both says that the shard is closed and was read to its end. Zero is the oldest message.
"""

from __future__ import annotations

from typing import NamedTuple

_SEQUENCE_BITS, _TIME_BITS = 192, 48
_ENDED = 1 << (_SEQUENCE_BITS + _TIME_BITS)


class ShardPosition(NamedTuple):
    """`until`: milliseconds; `last`: the number of the message that was read last, if any was."""

    until: int = 0
    last: int | None = None
    ended: bool = False

    @property
    def number(self) -> int:
        """The position as the port has it: a later one is larger."""
        following = 0 if self.last is None else self.last + 1
        return self.ended * _ENDED | self.until << _SEQUENCE_BITS | following


def shard_position(number: int) -> ShardPosition:
    """The position that a number of the port stands for."""
    following = number & ((1 << _SEQUENCE_BITS) - 1)
    until = number >> _SEQUENCE_BITS & ((1 << _TIME_BITS) - 1)
    return ShardPosition(until, following - 1 if following else None, number >= _ENDED)


def position_at(until: int) -> int:
    """The position of a reader who has read all that was there at this time."""
    return ShardPosition(until).number
