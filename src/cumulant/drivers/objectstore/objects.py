"""The object store on a bucket: the embedded store's folders, published atomically."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from cumulant.core.refs import ObjectRef
from cumulant.drivers.objectstore.publishing import PublishedStore
from cumulant.ports.objects import ObjectStore


class BucketObjects(PublishedStore[ObjectStore, ObjectRef]):
    """`s3://bucket/folder`, `gs://...`, `az://...`. Copies are bounded as those of tables."""

    noun, reference = "object", ObjectRef

    def put(self, key: str, source: Path) -> ObjectRef:
        if existing := self.find(key):
            return existing
        with self._publisher.staging() as folder:
            put = self._embedded(folder).put(self.noun, source)
            return self._reference(self._publisher.publish(key, folder, msgspec.to_builtins(put)))

    @contextmanager
    def open(self, key: str) -> Iterator[Path]:
        with (
            self._publisher.open(self._published(key)) as folder,
            self._embedded(folder).open(self.noun) as path,
        ):
            yield path
