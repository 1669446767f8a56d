"""The connection settings of a URL of Spark Connect."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import parse_qsl

import msgspec

from cumulant.core.errors import UsageError
from cumulant.core.network.urls import host_port

PORT = 15002
_OPTIONS = frozenset({"staging", "token"})
_HINT = "write sc://HOST:PORT?staging=FOLDER, or scs:// for an encrypted connection"


class SparkAddress(msgspec.Struct, frozen=True, kw_only=True):
    """`staging`: a folder that this machine and those of Spark see at the same path; `token`: the name of a secret."""

    host: str
    port: int
    encrypted: bool
    staging: Path
    token: str | None = None

    @property
    def dialled(self) -> str:
        """The host as a socket takes it: an address of IPv6 without its brackets."""
        return self.host.strip("[]")

    def connection(self, token: str | None) -> str:
        """The connection string of Spark's own clients."""
        options = ";use_ssl=true" if self.encrypted else ""
        return f"sc://{self.host}:{self.port}/{options}{f';token={token}' if token else ''}"


def parse_spark_url(url: str) -> SparkAddress:
    """`sc://HOST[:PORT]?staging=FOLDER`; `scs://` is encrypted, and also takes `token`, the name of a secret.

    Raises:
        UsageError: the URL is invalid.
    """
    scheme, _, rest = url.partition("://")
    address, _, query = rest.partition("?")
    place = host_port(address.removesuffix("/"), PORT)
    if place is None:
        raise UsageError(f"history names no host, or no port of one: {address or url}", subject=url, hint=_HINT)
    options = dict(parse_qsl(query, keep_blank_values=True))
    unknown = sorted(options.keys() - _OPTIONS)
    if unknown:
        raise UsageError(f'history has no option "{unknown[0]}"', subject=url, hint=_HINT)
    staging = Path(options.get("staging", ""))
    if not staging.is_absolute():
        hint = "name a folder by its whole path, which this machine and those of Spark see: ?staging=/mnt/shared"
        raise UsageError("history needs a folder for the rows that are handed over", subject=url, hint=hint)
    encrypted = scheme == "scs"
    if "token" in options and not encrypted:
        raise UsageError("a token is sent over encrypted connections only", subject=url, hint="write scs://")
    host, _, port = place.rpartition(":")
    return SparkAddress(host=host, port=int(port), encrypted=encrypted, staging=staging, token=options.get("token"))
