"""The table store on a bucket: the embedded store's folders, published atomically."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from cumulant.core.errors import not_found
from cumulant.core.refs import TableRef
from cumulant.drivers.objectstore.bucket import Bucket, open_bucket
from cumulant.drivers.objectstore.publishing import PublishedFolder, Publisher
from cumulant.ports.secrets import Secrets
from cumulant.ports.tables import TableHead, TableStore

if TYPE_CHECKING:
    import polars as pl

_NAME, _HEAD = "table", "head"


class BucketTables:
    """`s3://bucket/folder`, `gs://...`, `az://...`. A table is fetched once, when it is first scanned.

    Raises, in every method:
        StorageError: the credentials do not allow it, or no space on this machine.
        EngineUnavailableError: the store does not answer.
    """

    def __init__(
        self,
        url: str,
        *,
        embedded: Callable[[Path], TableStore],
        secrets: Secrets | None = None,
        bucket: Bucket | None = None,
        cache: Path | None = None,
    ) -> None:
        self._embedded = embedded
        self._publisher = Publisher(bucket or open_bucket(url, secrets), suffix=".table", cache=cache)

    def write(
        self,
        key: str,
        frames: pl.DataFrame | pl.LazyFrame | Iterable[pl.DataFrame],
        *,
        partition_by: Sequence[str] = (),
        head: TableHead | None = None,
    ) -> TableRef:
        if existing := self._publisher.find(key):
            return _reference(existing)
        with self._publisher.staging() as folder:
            store = self._embedded(folder)
            if head is not None:  # the published files of a table are its own, so that all rows are uploaded
                store.write(_HEAD, self.scan(head.key).head(head.rows))
                head = TableHead(_HEAD, head.rows)
            written = store.write(_NAME, frames, partition_by=partition_by, head=head)
            store.delete(_HEAD)
            return _reference(self._publisher.publish(key, folder, msgspec.to_builtins(written)))

    def scan(self, ref: TableRef | str) -> pl.LazyFrame:
        return self._fetch(ref).scan(_NAME)

    def check(self, ref: TableRef | str) -> None:
        self._fetch(ref).check(_NAME)

    def _fetch(self, ref: TableRef | str) -> TableStore:
        """Fetch the table; returns the store on this machine that has it."""
        key = ref if isinstance(ref, str) else ref.key
        published = self._publisher.find(key)
        if published is None:
            raise not_found("table", key, self.keys())
        return self._embedded(self._publisher.local(published))

    def find(self, key: str) -> TableRef | None:
        published = self._publisher.find(key)
        return _reference(published) if published else None

    def keys(self, prefix: str = "") -> list[str]:
        return self._publisher.keys(prefix)

    def delete(self, key: str) -> None:
        self._publisher.delete(key)


def _reference(published: PublishedFolder) -> TableRef:
    return msgspec.convert(published.about | {"key": published.key}, TableRef)
