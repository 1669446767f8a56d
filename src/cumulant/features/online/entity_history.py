"""One entity's events in memory, and the aggregations of windows over them, one window at a time.

The server's counterpart of `aggregations`. Short windows are done in plain Python, which is faster there than
numpy; long ones by exact prefix sums made on first use.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any, NamedTuple

import msgspec
import numpy as np

from cumulant.core.plan import Aggregation, DType
from cumulant.features.offline.kernel.ranges import Numbers
from cumulant.features.offline.kernel.sums import PrefixSums
from cumulant.features.offline.kernel.timeline import Flags, Ints
from cumulant.features.offline.kernel.whole import exact_sum
from cumulant.features.offline.row_identity import NO_IDENTITY, find_identity
from cumulant.features.online.scalars import finite, whole
from cumulant.features.online.state import Events, Slot
from cumulant.features.online.tiles import Tile

_LONG = 512
#: values that are kept as a list, which takes several times their stored size; fewer are searched one by one
_SHARED = 64
#: a power of two by which a sum is made smaller where it is too large, so that its mean is a float
_LOWERED = 2.0**64
#: where the largest value is above this and below 1 / this, squares of deviations are in the range of floats
_SQUARABLE = 1e-100


def unpacked(data: bytes, *, is_float: bool) -> Numbers:
    """The numbers of a slot."""
    return np.frombuffer(data, np.float64) if is_float else np.frombuffer(data, np.int64)


class ValueHistory(msgspec.Struct, gc=False, eq=False):
    """One value of each event. Like `EntityHistory` it is not tracked by the garbage collector, and tuples of values
    are not for long.
    """

    data: bytes
    texts: list[str | None] | None
    valid: Flags | None
    is_float: bool
    _numbers: Numbers | None = None
    _prefix_sums: PrefixSums | None = None
    #: the range that was read last, and its values: several windows aggregate the same ones
    _recent: tuple[int, int, Sequence[Any]] = (0, 0, ())
    #: likewise with the row's own value, and their sum
    _summed: tuple[int, int, float | None, float] = (0, 0, None, 0.0)

    @property
    def numbers(self) -> Numbers:
        """The numbers; that of a null is arbitrary."""
        if self._numbers is None:
            self._numbers = unpacked(self.data, is_float=self.is_float)
        return self._numbers

    def all(self, lo: int, hi: int) -> list[Any]:
        """Values of [lo, hi), with None for null."""
        if self.texts is not None:
            return self.texts[lo:hi]
        values: list[Any] = self.numbers[lo:hi].tolist()
        if self.valid is None:
            return values
        return [value if ok else None for value, ok in zip(values, self.valid[lo:hi].tolist(), strict=True)]

    def present(self, lo: int, hi: int) -> Sequence[Any]:
        """Values of [lo, hi) that are not null."""
        recent = self._recent
        if recent[0] == lo and recent[1] == hi:
            return recent[2]
        if self.texts is not None:
            present: list[Any] = [text for text in self.texts[lo:hi] if text is not None]
        else:
            numbers = self.numbers[lo:hi]
            present = (numbers if self.valid is None else numbers[self.valid[lo:hi]]).tolist()
        if hi - lo > _SHARED:
            return present
        self._recent = (lo, hi, tuple(present))
        return self._recent[2]

    def count(self, lo: int, hi: int) -> int:
        if self.texts is not None:
            return hi - lo - self.texts[lo:hi].count(None)
        return hi - lo if self.valid is None else int(np.count_nonzero(self.valid[lo:hi]))

    def last(self, lo: int, hi: int) -> int:
        """The position of the last value that is not null, or -1."""
        if self.texts is not None:
            return next((at for at in range(hi - 1, lo - 1, -1) if self.texts[at] is not None), -1)
        if self.valid is None:
            return hi - 1 if hi > lo else -1
        positions = np.flatnonzero(self.valid[lo:hi])
        return lo + int(positions[-1]) if len(positions) else -1

    def positions(self, lo: int, hi: int) -> Ints | None:
        """Which of [lo, hi) are not null, counted from `lo`; None for all."""
        if self.texts is not None:
            return np.array([at for at, text in enumerate(self.texts[lo:hi]) if text is not None], dtype=np.int64)
        return None if self.valid is None else np.flatnonzero(self.valid[lo:hi])

    def _whole(self, lo: int, hi: int) -> int:
        """The sum of whole numbers, of any size."""
        if hi - lo <= _LONG:
            return sum(self.present(lo, hi))
        numbers = self.numbers[lo:hi]
        return exact_sum((numbers if self.valid is None else numbers[self.valid[lo:hi]]).astype(np.int64, copy=False))

    def _sums(self) -> PrefixSums:
        if self._prefix_sums is None:
            known = self.numbers if self.valid is None else np.where(self.valid, self.numbers, 0.0)
            self._prefix_sums = PrefixSums(known.astype(np.float64, copy=False))
        return self._prefix_sums

    def total(self, lo: int, hi: int, own: float | None) -> float:
        """The sum with `own`: exact of whole numbers, else correctly rounded, infinite where it is no float."""
        summed = self._summed
        if summed[:3] != (lo, hi, own):
            self._summed = summed = (lo, hi, own, self._total(lo, hi, own))
        return summed[3]

    def _total(self, lo: int, hi: int, own: float | None) -> float:
        if not self.is_float:
            return self._whole(lo, hi) + int(own or 0)
        if hi - lo <= _LONG:
            try:
                return math.fsum(_with(self, lo, hi, own))
            except OverflowError:  # a sum on the way is beyond the range of floats
                pass
        return _rounded(self.exact(lo, hi, own))

    def exact(self, lo: int, hi: int, own: float | None) -> Fraction:
        """The sum with `own`, not rounded."""
        extra = Fraction(own or 0)
        if hi - lo > _LONG:
            return self._sums().exact(lo, hi) + extra
        return sum(map(Fraction, self.present(lo, hi)), extra)


def _rounded(number: Fraction) -> float:
    try:
        return float(number)
    except OverflowError:
        return math.inf


def _value_history(slot: Slot, dtype: DType) -> ValueHistory:
    valid = None if slot.valid is None else np.frombuffer(slot.valid, dtype=np.bool_)
    return ValueHistory(slot.data, slot.texts, valid, dtype == "float")


class StoredTiles(NamedTuple):
    """The tiles of an entity, as its blob lists them, their stored sizes, and how many events they have."""

    listed: bytes = b""
    tiles: Sequence[Tile] = ()
    sizes: Sequence[int] = ()
    events: int = 0


_NO_TILES = StoredTiles()


class EntityHistory(msgspec.Struct, gc=False, eq=False):
    """One entity's decoded blob, of `size` bytes, joined with its tiles, which come first.

    Many are kept, so that they are not tracked by the garbage collector.
    """

    events: Events
    kinds: tuple[DType, ...]
    size: int
    tiles: StoredTiles = _NO_TILES
    _values: tuple[ValueHistory, ...] | None = None
    #: made for the second search in many: an entity that is often read is kept decoded
    _identity_set: frozenset[int] | None = None
    _searched: bool = False

    @property
    def whole_size(self) -> int:
        """Of all that is stored."""
        return self.size + sum(self.tiles.sizes) if self.tiles.sizes else self.size

    @property
    def since(self) -> int | None:
        return self.events.since

    @property
    def times(self) -> memoryview[int]:
        return memoryview(self.events.times).cast("q")

    @property
    def values(self) -> tuple[ValueHistory, ...]:
        if self._values is None:
            kinds = zip(self.events.slots, self.kinds, strict=True)
            self._values = tuple([_value_history(slot, kind) for slot, kind in kinds])
        return self._values

    def identity(self, at: int) -> int:
        """The identity of the row of an event."""
        identities = self.events.identities
        return NO_IDENTITY if identities is None else memoryview(identities).cast("q")[at]

    def event_time(self, at: int) -> int:
        """Of an event, where event times are stored."""
        return memoryview(self.events.event_times or b"").cast("q")[at]

    def latest_event(self, lo: int, hi: int, value: ValueHistory | None = None) -> int:
        """The last event of [lo, hi) with the greatest event time, or -1; with `value` of those that have one."""
        if hi <= lo:
            return -1
        times = np.frombuffer(self.events.event_times or b"", dtype=np.int64)[lo:hi]
        if value is None:
            return hi - 1 - int(times[::-1].argmax())
        present = value.positions(lo, hi)
        if present is None:
            return hi - 1 - int(times[::-1].argmax())
        if not len(present):
            return -1
        return lo + int(present[len(present) - 1 - int(times[present][::-1].argmax())])

    def holds(self, identity: int) -> bool:
        """Whether the row with this key is here; one without a key never is, though others without one are."""
        identities = self.events.identities
        if identities is None or identity == NO_IDENTITY:
            return False
        if self._identity_set is None:
            if len(identities) <= 8 * _SHARED or not self._searched:
                self._searched = True
                return find_identity(identities, identity) >= 0
            self._identity_set = frozenset(memoryview(identities).cast("q"))
        return identity in self._identity_set


#: over the values of [lo, hi) and the row's own one, None where there is none
Aggregate = Callable[[ValueHistory, int, int, Any], Any]


def _mean(value: ValueHistory, lo: int, hi: int, own: Any) -> float | None:
    count = value.count(lo, hi) + (own is not None)
    if not count:
        return None
    total = value.total(lo, hi, own)
    if math.isfinite(total):
        return float(total) / count
    return finite(float(value.exact(lo, hi, own) / int(_LOWERED)) / count * _LOWERED)


def _sum(value: ValueHistory, lo: int, hi: int, own: Any) -> float | None:
    if not value.count(lo, hi) and own is None:
        return None
    total = value.total(lo, hi, own)
    return finite(total) if value.is_float else whole(int(total))


def _count(value: ValueHistory, lo: int, hi: int, own: Any) -> int:
    return value.count(lo, hi) + (own is not None)


def _with(value: ValueHistory, lo: int, hi: int, own: Any) -> Sequence[Any]:
    values = value.present(lo, hi)
    return values if own is None else [*values, own]


def _min(value: ValueHistory, lo: int, hi: int, own: Any) -> Any:
    return min(_with(value, lo, hi, own), default=None)


def _max(value: ValueHistory, lo: int, hi: int, own: Any) -> Any:
    return max(_with(value, lo, hi, own), default=None)


def _distinct(value: ValueHistory, lo: int, hi: int, own: Any) -> int:
    return len(set(_with(value, lo, hi, own)))


def _std(value: ValueHistory, lo: int, hi: int, own: Any) -> float | None:
    values = [float(number) for number in _with(value, lo, hi, own)]
    if len(values) < 2:
        return None
    low, high = min(values), max(values)
    if low == high:
        return 0.0
    largest = max(-low, high)
    if _SQUARABLE < largest < 1 / _SQUARABLE:
        return math.sqrt(_squared(_off_mean(values)) / (len(values) - 1))
    unit = 2.0 ** min(max(math.frexp(largest)[1], -1000), 1000)
    off = _off_mean([number / unit for number in values])
    spread = math.frexp(max(*off, -min(off)))[1]
    off = [math.ldexp(number, -spread) for number in off]
    return finite(math.ldexp(math.sqrt(_squared(off) / (len(off) - 1)), spread) * unit)


def _off_mean(values: list[float]) -> list[float]:
    mean = math.fsum(values) / len(values)
    return [number - mean for number in values]


def _squared(off: list[float]) -> float:
    """The sum of squared deviations from the mean, by those from the rounded mean."""
    return math.fsum([number * number for number in off]) - math.fsum(off) ** 2 / len(off)


HISTORY_AGGREGATIONS: dict[Aggregation, Aggregate] = {
    "count": _count,
    "sum": _sum,
    "mean": _mean,
    "min": _min,
    "max": _max,
    "std": _std,
    "distinct": _distinct,
}
