"""How a server knows the gateway in front of it: by a token that only a holder of the gateway's key can make.

The token is made for one address, so that a server gets none that another server accepts.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import ipaddress
from pathlib import Path
from urllib.parse import urlsplit

from cumulant.core.errors import UsageError
from cumulant.core.system.private_files import check_private

#: bytes of a key, at least
_LEAST = 32


def read_key(path: Path | str) -> bytes:
    """The key in a file.

    Raises:
        UsageError: it cannot be read, or is too short to be one.
        RefusedError: other users can read or write it, see `check_private`.
    """
    try:
        check_private(Path(path), what="the gateway's key")
        key = Path(path).read_bytes()
    except OSError as error:
        raise UsageError(f"the gateway's key {path} cannot be read: {error.strerror}", subject=str(path)) from None
    if len(key) < _LEAST:
        raise UsageError(
            f"the gateway's key {path} has {len(key)} bytes, fewer than {_LEAST}",
            subject=str(path),
            hint=f"write {_LEAST} random bytes into it: head -c {_LEAST} /dev/urandom",
        )
    return key


def token_for(key: bytes, url: str) -> str:
    """What the gateway sends to the server at `url`, such as `http://127.0.0.1:9001`, and to no other one.

    Spellings of one address have one token: letter case, a default port, forms of an IPv6 address.
    """
    return hmac.digest(key, _address(url).encode(), hashlib.sha256).hex()


def _address(url: str) -> str:
    parts = urlsplit(url)
    host = parts.hostname or ""
    with contextlib.suppress(ValueError):
        host = str(ipaddress.ip_address(host))
    port = parts.port or (443 if parts.scheme == "https" else 80)
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
