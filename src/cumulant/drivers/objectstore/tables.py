"""The table store on a bucket: the embedded store's folders, published atomically."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import msgspec

from cumulant.core.errors import NotFoundError, not_found
from cumulant.core.refs import TableRef
from cumulant.drivers.objectstore.publishing import PublishedStore
from cumulant.ports.tables import UNPROTECTED, Protection, TableHead, TableStore

if TYPE_CHECKING:
    import polars as pl

_HEAD = "head"


class BucketTables(PublishedStore[TableStore, TableRef]):
    """`s3://bucket/folder`, `gs://...`, `az://...`. A table is fetched once, when it is first scanned.

    `?cache=SIZE` bounds the copies on this machine (default 20 GiB, the longest unused go first; those in use stay);
    with `?cache=0` they end with this object.
    """

    noun, reference = "table", TableRef

    def write(
        self,
        key: str,
        frames: pl.DataFrame | pl.LazyFrame | Iterable[pl.DataFrame],
        *,
        partition_by: Sequence[str] = (),
        head: TableHead | None = None,
        protect: Protection = UNPROTECTED,
    ) -> TableRef:
        if existing := self.find(key):
            return existing
        with self._publisher.staging() as folder:
            store = self._embedded(folder)
            if head is not None:  # the published files of a table are its own, so that all rows are uploaded
                store.write(_HEAD, self.scan(head.key).head(head.rows))
                head = TableHead(_HEAD, head.rows)
            written = store.write(self.noun, frames, partition_by=partition_by, head=head, protect=protect)
            store.delete(_HEAD)
            return self._reference(self._publisher.publish(key, folder, msgspec.to_builtins(written)))

    def scan(self, ref: TableRef | str) -> pl.LazyFrame:
        return self._fetch(ref).scan(self.noun)

    def protection(self, ref: TableRef | str) -> Protection:
        return self._fetch(ref).protection(self.noun)

    def check(self, ref: TableRef | str) -> None:
        self._fetch(ref).check(self.noun)

    def _missing(self, key: str) -> NotFoundError:
        return not_found(self.noun, key, self.keys())

    def _fetch(self, ref: TableRef | str) -> TableStore:
        """The store on this machine that has the table under the noun; it is fetched first."""
        key = ref if isinstance(ref, str) else ref.key
        return self._embedded(self._publisher.local(self._published(key)))
