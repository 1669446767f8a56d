"""A bucket (or container) of any cloud, behind one interface: S3, GCS, Azure, memory."""

from __future__ import annotations

import contextlib
import re
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import msgspec
import obstore
from obstore.exceptions import (
    AlreadyExistsError,
    BaseError,
    PermissionDeniedError,
    PreconditionError,
    UnauthenticatedError,
)
from obstore.store import from_url

from cumulant.core.errors import NotFoundError, UsageError
from cumulant.drivers.objectstore.classes import read_classes
from cumulant.drivers.objectstore.copies import parse_store_url
from cumulant.drivers.objectstore.faults import ENDPOINTS, IDENTITY, NO_BUCKET, explain, unreadable, without_user

if TYPE_CHECKING:
    from obstore.store import ObjectStore

    from cumulant.ports.objects import FileClasses
    from cumulant.ports.secrets import Secrets

# The standard names: looked up as secrets first; obstore itself reads the variables of the environment.
_SETTINGS = {
    "s3": (
        "AWS_ACCESS_KEY_ID",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_SESSION_TOKEN",
        "AWS_REGION",
        "AWS_DEFAULT_REGION",
        "AWS_ENDPOINT_URL",
        "AWS_SKIP_SIGNATURE",
        "AWS_CHECKSUM_ALGORITHM",
    ),
    "gs": ("GOOGLE_SERVICE_ACCOUNT", "GOOGLE_SERVICE_ACCOUNT_KEY", "GOOGLE_BASE_URL", "GOOGLE_SKIP_SIGNATURE"),
    "az": (
        "AZURE_STORAGE_ACCOUNT_NAME",
        "AZURE_STORAGE_ACCOUNT_KEY",
        "AZURE_STORAGE_SAS_TOKEN",
        "AZURE_STORAGE_CLIENT_ID",
        "AZURE_STORAGE_CLIENT_SECRET",
        "AZURE_STORAGE_TENANT_ID",
        "AZURE_STORAGE_ENDPOINT",
        "AZURE_SKIP_SIGNATURE",
    ),
}
_BLANK = re.compile(r"\s")
#: bytes of a download at a time; some four times as many are in memory
_CHUNK = 1 << 20
#: a call that the store refuses or does not answer is repeated: after 20 ms, then after 1.5 times as long on average
_RETRY = {
    "max_retries": 12,
    "retry_timeout": timedelta(seconds=30),
    "backoff": {"init_backoff": timedelta(milliseconds=20), "max_backoff": timedelta(seconds=5), "base": 3},
}


class BucketEntry(msgspec.Struct, frozen=True):
    """One object of a bucket."""

    path: str
    bytes: int
    stamp: str
    #: seconds since 1970, by the store's clock
    modified: float


@dataclass(frozen=True)
class Bucket:
    """The objects below `prefix` of one store; paths are relative to it.

    Raises, in every method:
        CredentialsError: the store does not know the credentials.
        StorageError: they do not allow it, or the store refuses it.
        NotFoundError: there is no such bucket.
        UsageError: the store cannot hold a path.
        EngineUnavailableError: the store does not answer, or with something that is no answer of a store.
    """

    store: ObjectStore = field(repr=False)
    url: str
    #: of the store itself, where it is known
    address: str = ""

    def read(self, path: str) -> bytes | None:
        """The object's bytes; None if it does not exist."""
        with self._errors(path):
            try:
                return bytes(obstore.get(self.store, path).bytes())
            except FileNotFoundError as error:
                if NO_BUCKET.search(str(error)):
                    raise
        return None

    def head(self, path: str) -> BucketEntry | None:
        with self._errors(path), contextlib.suppress(FileNotFoundError):
            return _entry(obstore.head(self.store, path))
        return None

    def download(self, path: str, target: Path, *, stamp: str | None = None) -> bool:
        """Write the object to `target`; False if it does not exist or no longer has that stamp."""
        with self._errors(path):
            try:
                response = obstore.get(self.store, path)
                if stamp is not None and _entry(response.meta).stamp != stamp:
                    return False
                with target.open("wb") as file:
                    for chunk in response.stream(min_chunk_size=_CHUNK):
                        file.write(chunk)
            except (FileNotFoundError, PreconditionError):
                return False
        return True

    def upload(self, path: str, source: Path) -> None:
        with self._errors(path):
            obstore.put(self.store, path, source)

    def create(self, path: str, content: bytes) -> bool:
        """Write a new object; False if it exists already. One of many writers wins.

        Where the answer is lost, the call is repeated and finds its own object, which it knows by the content, if that
        is unique to the writer.
        """
        with self._errors(path):
            try:
                obstore.put(self.store, path, content, mode="create", use_multipart=False)
            except (AlreadyExistsError, PreconditionError):
                return content != b"" and self.read(path) == content
        return True

    def entries(self, prefix: str = "") -> Iterator[BucketEntry]:
        """The objects whose path starts with the folder `prefix`, at any depth."""
        empty = True
        with self._errors(prefix):
            for page in obstore.list(self.store, prefix.rstrip("/") or None):
                for meta in page:
                    empty = False
                    yield _entry(meta)
        if empty:
            self._check_empty(prefix)

    def classes(self, paths: Sequence[str]) -> FileClasses:
        """The storage class of each object, in the store's words; empty where it does not say.

        Lists have no class here, so that each is one request, signed as `read_classes` says.
        """
        return read_classes(self.store, self.url.partition("://")[0], paths)

    def folders(self) -> list[str]:
        """The names of the folders at the top."""
        with self._errors(""):
            names = [str(prefix).rstrip("/") for prefix in obstore.list_with_delimiter(self.store)["common_prefixes"]]
        if not names:
            self._check_empty("")
        return names

    def replace(self, path: str, content: bytes) -> None:
        """Write an object, new or not."""
        with self._errors(path):
            obstore.put(self.store, path, content, use_multipart=False)

    def rename(self, path: str, target: str) -> None:
        """Rename an object; nothing happens where it does not exist."""
        with self._errors(path), contextlib.suppress(FileNotFoundError):
            obstore.rename(self.store, path, target)

    def delete(self, paths: list[str]) -> None:
        with self._errors(paths[0] if paths else ""), contextlib.suppress(FileNotFoundError):
            for start in range(0, len(paths), 1000):
                obstore.delete(self.store, paths[start : start + 1000])

    def _check_empty(self, prefix: str) -> None:
        """Refuse the answer of a proxy, whose page is read as an empty list: it is given for any object, too."""
        with self._errors(prefix):
            try:
                obstore.head(self.store, uuid.uuid4().hex)
            except (FileNotFoundError, PermissionDeniedError, UnauthenticatedError):  # or lists alone are allowed
                return
        raise unreadable("it returns an object that does not exist", self._where(prefix), self.address)

    @contextmanager
    def _errors(self, path: str) -> Iterator[None]:
        try:
            yield
        except (BaseError, PermissionError, FileNotFoundError, ValueError) as error:  # ValueError: of the path
            # A traceback with the cause would print the password of an endpoint.
            cause = error if without_user(str(error)) == str(error) else None
            raise explain(error, self._where(path), self.address) from cause

    def _where(self, path: str) -> str:
        return f"{self.url.rstrip('/')}/{path}"


def open_bucket(url: str, secrets: Secrets | None = None, *, region: str | None = None) -> Bucket:
    """The bucket of `s3://bucket/prefix`, `gs://` or `az://container/prefix`.

    Credentials, region and endpoint come from secrets with the cloud's standard names (`AWS_ACCESS_KEY_ID`, ...),
    then from the same environment variables, then from the machine's own identity. `region` is S3's, before those; the
    URL may have it as `?region=`.

    Raises:
        UsageError: the address, or that of the store, is invalid.
    """
    place = parse_store_url(url)
    url, region = place.address, region or place.region
    scheme = url.partition("://")[0]
    config = {name: value for name in _SETTINGS.get(scheme, ()) if (value := _get_secret(secrets, name)) is not None}
    if region is not None and scheme == "s3":
        config["AWS_REGION"] = region
    address = _address(scheme, config)
    # Any: each cloud's settings have a type of their own.
    settings: dict[str, Any] = {
        "config": {name.lower(): value for name, value in config.items()},
        "client_options": {"allow_http": True} if urlsplit(address).scheme == "http" else {},
        "retry_config": _RETRY,
    }
    try:
        store = from_url(url, **settings)
    except (BaseError, ValueError) as error:
        raise UsageError(
            f"{url} is no address of an object store: {str(error).partition(chr(10))[0].partition(' Url: ')[0]}",
            subject=url,
            hint="write s3://BUCKET/FOLDER, gs://BUCKET/FOLDER or az://CONTAINER/FOLDER",
        ) from None  # an endpoint with a password would be printed
    return Bucket(store, url=url, address=address)


def _address(scheme: str, config: Mapping[str, str]) -> str:
    """The store's own address, as far as the settings have it.

    Raises:
        UsageError: it is invalid. The text leaves it out, as it may hold a password.
    """
    name = ENDPOINTS.get(scheme, "")
    if not config.get(name):
        account = config.get("AZURE_STORAGE_ACCOUNT_NAME")
        return f"https://{account}.blob.core.windows.net" if account else ""
    if "@" in config[name]:
        hint = f"leave them out, and set {IDENTITY[scheme]} as secrets or variables"
        raise UsageError(f"{name} has a user name or a password, which object stores do not read", hint=hint)
    with contextlib.suppress(ValueError):
        parts = urlsplit(config[name])
        if parts.scheme in {"http", "https"} and parts.hostname and parts.port != 0 and not _BLANK.search(config[name]):
            return f"{parts.scheme}://{parts.netloc}"
    raise UsageError(f"{name} is no address", hint="write http://HOST:PORT or https://HOST")


def _get_secret(secrets: Secrets | None, name: str) -> str | None:
    with contextlib.suppress(NotFoundError):
        return secrets.get(name) if secrets is not None else None
    return None


def _entry(meta: Any) -> BucketEntry:
    # Azure quotes an object's tag in a response with the object, and not in a list.
    stamp = (meta["e_tag"] or meta["last_modified"].isoformat()).strip('"')
    return BucketEntry(meta["path"], meta["size"], f"{stamp}-{meta['size']}", meta["last_modified"].timestamp())
