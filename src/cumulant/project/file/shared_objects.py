"""Files of an object store that a project extends: fetched as data, shown with their digest."""

from __future__ import annotations

import posixpath
from pathlib import Path

import msgspec

from cumulant.core.errors import EngineUnavailableError, UsageError
from cumulant.core.ids import file_digest
from cumulant.ports.plugins import Drivers, scheme_of

_SHOWN_DIGITS = 12


class SharedObject(msgspec.Struct, frozen=True):
    """A copy of an object on this machine. `shown`: its URL with the digest, for problems and origins."""

    path: Path
    shown: str


def join_url(base: str, relative: str) -> str:
    """The URL of a file that one at `base` names relative to itself, in the same bucket."""
    scheme, _, rest = base.partition("://")
    bucket, _, path = rest.partition("/")
    joined = posixpath.normpath(posixpath.join("/", posixpath.dirname(path), relative))
    return f"{scheme}://{bucket}{joined}"


def fetch_shared(url: str, drivers: Drivers) -> SharedObject:
    """Fetch the object that `url` names, with the credentials of the environment variables of its driver.

    Raises:
        UsageError: no driver reads it, its credentials are refused, or it does not exist.
        StorageError: they do not allow it.
        EngineUnavailableError: the store does not answer.
    """
    scheme = scheme_of(url)
    bucket, _, name = url.partition("://")[2].partition("/")
    if "@" in bucket:
        raise UsageError("the URL of an object has no user and no password: its store's credentials are variables")
    plain = url.startswith(f"{scheme}://") and not {"?", "*"} & set(url) and not {".", ".."} & set(name.split("/"))
    if drivers.path(url) is not None or not plain:
        raise UsageError("write a path of this machine without a scheme, or the URL of one object: s3://BUCKET/FILE")
    try:
        # Not those that the file names: it is read to find out which.
        client = drivers.client(f"{scheme}://{bucket}", "files", secrets=lambda: drivers.client("env://", "secrets"))
        matches = [file for file in client.list(url) if file.url == url]
        if not matches:
            raise UsageError("there is no such object")
        path: Path = client.fetch(matches[0])
    except EngineUnavailableError as error:
        error.subject = url
        raise
    return SharedObject(path, f"{url} (sha256 {file_digest(path)[:_SHOWN_DIGITS]})")
