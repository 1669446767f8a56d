"""The address of a SQL gateway of Flink in its URL."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import parse_qsl

import msgspec

from cumulant.core.errors import UsageError
from cumulant.core.network.urls import check_secret_name, host_port
from cumulant.core.units import duration

PORT = 8083
_FOLDER = re.compile(r"[a-z][a-z0-9+.-]*://?[^?]*")
_HINT = "write flink://GATEWAY:8083?checkpoints=s3://BUCKET/FOLDER, or flinks:// for an encrypted connection"
_ENCRYPTED = frozenset({"token", "ca"})
_OPTIONS = frozenset({"checkpoints", "interval", "jobmanager"}) | _ENCRYPTED


class FlinkAddress(msgspec.Struct, frozen=True, kw_only=True):
    """`gateway` and `jobmanager`: where their REST interfaces are, without a slash at the end. `checkpoints`: the
    folder that the machines of Flink write checkpoints and savepoints to; `interval_ms`: from one checkpoint to the
    next. `token`: the name of a secret; `authority`: the file of those who may have signed the certificate.
    """

    gateway: str
    checkpoints: str
    interval_ms: int
    jobmanager: str | None = None
    token: str | None = None
    authority: str | None = None

    @property
    def encrypted(self) -> bool:
        return self.gateway.startswith("https:")


def parse_flink_url(url: str) -> FlinkAddress:
    """`flink://GATEWAY[:PORT]?checkpoints=URL[&interval=10s&jobmanager=HOST:PORT]`; `flinks://` is encrypted, and also
    takes `token`, the name of a secret, and `ca`, a file.

    Raises:
        UsageError: the URL is invalid.
    """
    scheme, _, rest = url.partition("://")
    place, _, query = rest.partition("?")
    encrypted = scheme.lower() == "flinks"
    options = dict(parse_qsl(query.replace("+", "%2B"), keep_blank_values=True))  # a "+" is one
    if unknown := sorted(options.keys() - _OPTIONS):
        raise UsageError(f'stream_engine has no option "{unknown[0][:100]}"', subject=url, hint=_HINT)
    if not encrypted and (secret := sorted(options.keys() & _ENCRYPTED)):
        message = f"{secret[0]} is of encrypted connections only"
        raise UsageError(message, subject=url, hint="write flinks://")
    token, authority = options.get("token"), options.get("ca")
    check_secret_name(token, "token")
    if authority is not None and not Path(authority).is_file():
        raise UsageError("the file of authorities that stream_engine names does not exist", subject=authority)
    jobmanager = options.get("jobmanager")
    return FlinkAddress(
        gateway=_base(place, url, encrypted=encrypted),
        checkpoints=_folder(options.get("checkpoints", ""), url),
        interval_ms=_interval_ms(options.get("interval", "10s"), url),
        jobmanager=None if jobmanager is None else _base(jobmanager, url, encrypted=encrypted, default=8081),
        token=token,
        authority=authority,
    )


def _base(place: str, url: str, *, encrypted: bool, default: int = PORT) -> str:
    host = host_port(place.removesuffix("/"), default)
    if host is None:
        raise UsageError(f'stream_engine names no host: "{place[:100]}"', subject=url, hint=_HINT)
    return f"http{'s' if encrypted else ''}://{host}"


def _folder(text: str, url: str) -> str:
    if not _FOLDER.fullmatch(text):
        hint = "name one that the machines of Flink write to, by its URL: ?checkpoints=s3://BUCKET/FOLDER"
        raise UsageError("stream_engine needs a folder for checkpoints", subject=url, hint=hint)
    return text.rstrip("/")


def _interval_ms(text: str, url: str) -> int:
    span = int(duration(text).total_seconds() * 1000)
    if span < 10:
        raise UsageError(f"checkpoints cannot be {text} apart", subject=url, hint="write ?interval=10s")
    return span
