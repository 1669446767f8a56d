"""Which rows are in the tiles of an entity: fingerprints of their identities, in blobs that are read when needed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np

from cumulant.features.online.tiles import Fingerprints, bucket_count, bucket_key, bucket_of, divided, fingerprints

#: reads blobs of the entity's table, in the order of their keys
ReadBlobs = Callable[[Sequence[bytes]], Sequence[bytes | None]]
_NONE: Fingerprints = np.empty(0, dtype=np.uint32)


class IdentityIndex:
    """The fingerprints of an entity that has so many tiles, in a table with this seed."""

    def __init__(self, entity: bytes, tiles: int, read: ReadBlobs, seed: int) -> None:
        self._entity, self._read, self._seed = entity, read, seed
        self._count = bucket_count(tiles)
        self._buckets: dict[int, Fingerprints] = {}

    def may_hold(self, identity: int) -> bool:
        """Whether a row with this key may be in a tile: if not, it is in none."""
        numbers = self._fingerprints(_bytes([identity])) if self._count else _NONE
        if not len(numbers):
            return False
        bucket = bucket_of(numbers, self._count).item()
        self._load([bucket])
        stored = self._buckets[bucket]
        place = np.searchsorted(stored, numbers[0])
        return bool(place < len(stored) and stored[place] == numbers[0])

    def missing(self, identities: Iterable[int]) -> dict[bytes, int]:
        """The buckets of identities that were not read yet, by their keys in the table."""
        numbers = self._fingerprints(_bytes(identities)) if self._count else _NONE
        buckets = divided(numbers, self._count).keys() - self._buckets.keys()
        return {bucket_key(self._entity, bucket): bucket for bucket in sorted(buckets)}

    def take(self, bucket: int, blob: bytes | None) -> None:
        """A bucket as it was read: sorted numbers."""
        self._buckets[bucket] = np.frombuffer(blob or b"", dtype=np.uint32)

    def change(self, removed: bytes, added: bytes, tiles: int) -> Iterator[tuple[bytes, bytes | None]]:
        """The blobs that differ where identities, as int64 bytes, leave and enter tiles, of which there are then so
        many.
        """
        gone, new, count = self._fingerprints(removed), self._fingerprints(added), bucket_count(tiles)
        gone, new = _less(gone, new), _less(new, gone)
        if count == self._count:
            affected = [*divided(np.concatenate([gone, new]), count)] if count else []
        else:
            affected = [*range(self._count)]
        self._load(affected)
        before = [self._buckets[bucket] for bucket in affected]
        numbers = _less(np.sort(np.concatenate([*before, new])), gone)
        after = divided(numbers, count) if count else {}
        for bucket in sorted({*affected, *after}):
            yield bucket_key(self._entity, bucket), after[bucket].tobytes() if bucket in after else None

    def keys(self) -> list[bytes]:
        """Where all of it lies."""
        return [bucket_key(self._entity, bucket) for bucket in range(self._count)]

    def _fingerprints(self, identities: bytes) -> Fingerprints:
        return fingerprints(identities, self._seed)

    def _load(self, buckets: Iterable[int]) -> None:
        missing = [bucket for bucket in buckets if bucket not in self._buckets]
        blobs = self._read([bucket_key(self._entity, bucket) for bucket in missing]) if missing else []
        for bucket, blob in zip(missing, blobs, strict=True):
            self.take(bucket, blob)


def _bytes(identities: Iterable[int]) -> bytes:
    return np.array([*identities], dtype=np.int64).tobytes()


def _less(numbers: Fingerprints, others: Fingerprints) -> Fingerprints:
    """Sorted numbers without others, of equal ones as many as the others have."""
    repeated = np.arange(len(others)) - np.searchsorted(others, others)
    places = np.searchsorted(numbers, others) + repeated
    inside = places < len(numbers)
    places, wanted = places[inside], others[inside]
    return np.delete(numbers, places[numbers[places] == wanted])
