"""Answers of one model in the shared cache, and the form in which they are stored."""

from __future__ import annotations

import asyncio
import math
import struct
import time
from collections.abc import Callable, Mapping, Sequence
from hashlib import blake2b

import msgspec
import numpy as np

from cumulant.core.ids import digest
from cumulant.core.servable import TensorSpec
from cumulant.servable.engine import DTYPES, Array
from cumulant.serving.cache.answer_cache import key_of
from cumulant.serving.cache.shared_cache import CacheWrite, SharedCacheTier

Raw = list[Array]

#: of the key and of the sealed form; values of other formats are ignored
_FORMAT = "1"
#: lookups until they are evaluated, and seconds of a pause where they cost more than they saved
_TRIAL, _PAUSE = 200, 10.0
#: bytes of the largest answer that is shared
_LARGEST = 1024 * 1024
_MAGIC = b"CuA\x01"
_HASH = 16
_HEAD = struct.Struct("<4sB")
_ARRAY = struct.Struct("<BB")
#: in the order of their codes, which must not change within a version of the form
_CODES = tuple(dtype for dtype in DTYPES.values() if not dtype.hasobject)
_CODE_OF = {dtype: code for code, dtype in enumerate(_CODES)}
_MOST = 255


class SharedCacheCounts(msgspec.Struct):
    """Lookups and writes by result."""

    lookups: dict[str, int] = {}
    writes: dict[str, int] = {}

    def lookup(self, result: str) -> None:
        self.lookups[result] = self.lookups.get(result, 0) + 1

    def write(self, result: str) -> None:
        self.writes[result] = self.writes.get(result, 0) + 1


class SharedAnswers:
    """The engine's outputs by its inputs, of one version of one servable.

    `identity` is everything that makes its outputs what they are besides the inputs: two servers share answers where it
    is equal. `specs` are the outputs. `always`: lookups are not weighed against the engine's time.
    """

    def __init__(
        self,
        tier: SharedCacheTier,
        identity: Mapping[str, object],
        specs: Sequence[TensorSpec],
        *,
        ttl: float,
        always: bool = False,
        on_hit: Callable[[bytes, Raw], None] = lambda _key, _raw: None,
    ) -> None:
        self._tier, self._specs, self._ttl, self._always = tier, specs, ttl, always
        self._prefix = f"cumulant:{_FORMAT}:{digest(identity)[:32]}:"
        self._on_hit = on_hit
        self.counts = SharedCacheCounts()
        self._lookups: dict[bytes, asyncio.Task[Raw | None]] = {}
        self._count, self._saved, self._spent, self._until = 0, 0.0, 0.0, 0.0

    @property
    def budget(self) -> float:
        """Longest lookup, in seconds."""
        return self._tier.budget

    def reachable(self, seconds: float) -> bool:
        """Whether a run of `seconds` is worth sharing: the store works, and a lookup is faster."""
        tier = self._tier
        return tier.ready and (self._always or seconds > (tier.round_trip or 0.0))

    def key(self, feeds: Mapping[str, Array], seconds: float) -> bytes | None:
        """Cache key of a request whose run would take `seconds`; None where sharing it is not worth it."""
        return key_of(feeds) if self.reachable(seconds) else None

    def pays(self, seconds: float) -> bool:
        """Whether a lookup is likely to save time against a run of `seconds`."""
        return self.reachable(seconds) and time.monotonic() >= self._until and not self._tier.busy

    def lookup(self, key: bytes, seconds: float) -> asyncio.Task[Raw | None] | None:
        """Lookup of the outputs, shared by concurrent callers; None where it would not pay.

        Shield the task, as other callers may wait for it. It never raises, and ends within the budget.
        """
        known = self._lookups.get(key)
        if known is not None or not self.pays(seconds):
            return known
        task = self._lookups[key] = asyncio.ensure_future(self._find(key, seconds))
        task.add_done_callback(lambda _: self._lookups.pop(key, None))
        return task

    async def _find(self, key: bytes, seconds: float) -> Raw | None:
        name, began = self._name(key), time.perf_counter()
        value, result = await self._tier.get(name)
        raw = None if value is None else unseal(name, value, self._specs)
        if value is not None and raw is None:
            result = "foreign"
            self._tier.record_fault()
        elif result in {"hit", "miss"}:
            self._tier.record_success()
        self.counts.lookup(result)
        self._weigh(seconds if raw is not None else 0.0, time.perf_counter() - began)
        if raw is not None:
            self._on_hit(key, raw)
        return raw

    def _weigh(self, saved: float, spent: float) -> None:
        self._count += 1
        self._saved += saved
        self._spent += spent
        if self._count < _TRIAL:
            return
        if self._saved < self._spent and not self._always:
            self._until = time.monotonic() + _PAUSE
        self._count, self._saved, self._spent = 0, 0.0, 0.0

    def store(self, key: bytes, raw: Sequence[Array], seconds: float) -> None:
        """Share the outputs of a run of `seconds`, in the background."""
        if not self.reachable(seconds) or not all(map(fits, raw, self._specs)):
            return
        if sum(array.nbytes for array in raw) > _LARGEST:
            self.counts.write("dropped")
            return
        name = self._name(key)
        value = seal(name, raw)
        if value is not None:
            self._tier.put(CacheWrite(name, value, self._ttl, self.counts.write))

    def _name(self, key: bytes) -> str:
        # Short keys are the inputs themselves, and a request must not be readable in a store that others see.
        return self._prefix + blake2b(key, digest_size=20).hexdigest()


def seal(key: str, arrays: Sequence[Array]) -> bytes | None:
    """The sealed form; None for arrays of texts, or too many of them."""
    if len(arrays) > _MOST or any(array.dtype not in _CODE_OF or array.ndim > _MOST for array in arrays):
        return None
    parts = [_HEAD.pack(_MAGIC, len(arrays))]
    for array in arrays:
        parts.append(_ARRAY.pack(_CODE_OF[array.dtype], array.ndim))
        parts.append(struct.pack(f"<{array.ndim}Q", *array.shape))
        parts.append(array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes())
    body = b"".join(parts)
    return body + _hash(key, body)


def unseal(key: str, value: bytes, specs: Sequence[TensorSpec]) -> list[Array] | None:
    """The arrays, which cannot be written to; None for anything but what `seal` made of such outputs under this key."""
    body, stamp = value[:-_HASH], value[-_HASH:]
    if len(body) < _HEAD.size or stamp != _hash(key, body):
        return None
    try:
        return _read(body, specs)
    except (struct.error, ValueError, OverflowError, IndexError):
        return None


def _read(body: bytes, specs: Sequence[TensorSpec]) -> list[Array] | None:
    magic, count = _HEAD.unpack_from(body)
    if magic != _MAGIC or count != len(specs):
        return None
    place = _HEAD.size
    arrays: list[Array] = []
    for spec in specs:
        code, rank = _ARRAY.unpack_from(body, place)
        dtype = _CODES[code]
        shape = struct.unpack_from(f"<{rank}Q", body, place + _ARRAY.size)
        place += _ARRAY.size + 8 * rank
        end = place + math.prod(shape) * dtype.itemsize
        if end > len(body):
            return None
        array = np.frombuffer(body[place:end], dtype.newbyteorder("<")).reshape(shape).astype(dtype, copy=False)
        if not fits(array, spec):
            return None
        arrays.append(array)
        place = end
    return arrays if place == len(body) else None


def fits(array: Array, spec: TensorSpec) -> bool:
    """Whether an array has the declared datatype and shape of its output."""
    return (
        array.dtype == DTYPES[spec.datatype]
        and array.ndim == len(spec.shape)
        and all(want in (-1, size) for size, want in zip(array.shape, spec.shape, strict=True))
    )


def _hash(key: str, body: bytes) -> bytes:
    hasher = blake2b(key.encode(), digest_size=_HASH)
    hasher.update(b"\0")
    hasher.update(body)
    return hasher.digest()
