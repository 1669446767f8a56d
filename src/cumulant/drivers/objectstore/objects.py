"""The object store on a bucket: the embedded store's folders, published atomically."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec

from cumulant.core.errors import not_found
from cumulant.core.refs import ObjectRef
from cumulant.drivers.objectstore.bucket import Bucket, open_bucket
from cumulant.drivers.objectstore.publishing import PublishedFolder, Publisher
from cumulant.ports.objects import ObjectStore
from cumulant.ports.secrets import Secrets

_NAME = "object"


class BucketObjects:
    """`s3://bucket/folder`, `gs://...`, `az://...`. An object is fetched once, when its path is first asked for.

    Raises, in every method:
        StorageError: the credentials do not allow it, or no space on this machine.
        EngineUnavailableError: the store does not answer.
    """

    def __init__(
        self,
        url: str,
        *,
        embedded: Callable[[Path], ObjectStore],
        secrets: Secrets | None = None,
        bucket: Bucket | None = None,
        cache: Path | None = None,
    ) -> None:
        self._embedded = embedded
        self._publisher = Publisher(bucket or open_bucket(url, secrets), suffix=".object", cache=cache)

    def put(self, key: str, source: Path) -> ObjectRef:
        if existing := self._publisher.find(key):
            return _reference(existing)
        with self._publisher.staging() as folder:
            put = self._embedded(folder).put(_NAME, source)
            return _reference(self._publisher.publish(key, folder, msgspec.to_builtins(put)))

    def path(self, key: str) -> Path:
        published = self._publisher.find(key)
        if published is None:
            raise not_found("object", key, self.keys())
        return self._embedded(self._publisher.local(published)).path(_NAME)

    def find(self, key: str) -> ObjectRef | None:
        published = self._publisher.find(key)
        return _reference(published) if published else None

    def keys(self, prefix: str = "") -> list[str]:
        return self._publisher.keys(prefix)

    def delete(self, key: str) -> None:
        self._publisher.delete(key)


def _reference(published: PublishedFolder) -> ObjectRef:
    return msgspec.convert(published.about | {"key": published.key}, ObjectRef)
