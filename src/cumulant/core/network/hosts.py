"""Which callers a server that needs no token believes: by `Host` and `Origin` of a request.

A page of any site can have a browser on this machine send requests to servers on loopback. The browser sends whose page
it is (`Origin`), and by which name it came (`Host`): a name of the page's own site that was made to lead here
(DNS rebinding) is none of ours.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Collection
from urllib.parse import urlsplit

from cumulant.core.errors import UsageError

#: in place of a name: any
ANY = "*"
_PORTS = {"http": "80", "https": "443"}
_MOST_KNOWN = 256
#: what no host has in it: of URLs, and of names with a user
_NO_HOST = frozenset("/@?#\\")


class Hosts:
    """What a server listens by.

    Args:
        declared: further names, such as that of a proxy in front; `*`: any `Host`, though no page of another origin.
        local: it listens on loopback, where every name that is not declared and not of loopback is refused.

    Raises:
        UsageError: a declared name is no name of a host.
    """

    def __init__(self, declared: Collection[str] = (), *, local: bool) -> None:
        self._declared = frozenset(map(host_name, declared))
        self._open = not local or ANY in self._declared
        #: hosts that were let in before
        self._known: set[bytes] = set()

    def fault(self, host: bytes | None, origin: bytes | None) -> str | None:
        """Why a request with these headers is refused; None where it is not. Programs send no `Origin`, and only
        those of HTTP/1.0 no `Host`.
        """
        if host is not None and not self._open and host not in self._known:
            if not self._is_ours(host):
                return f'this server is on loopback and not called "{_shown(host)}"'
            if len(self._known) < _MOST_KNOWN:
                self._known.add(host)
        if origin is not None and not self._same(origin, host or b""):
            return f'a page of another origin may not do this: "{_shown(origin)}"'
        return None

    def _is_ours(self, host: bytes) -> bool:
        name, _ = _parts(b"http://" + host)
        return is_loopback(name) or name.endswith(".localhost") or name in self._declared

    def _same(self, origin: bytes, host: bytes) -> bool:
        scheme = origin.partition(b"://")[0]
        page = _parts(origin)
        return page[0] != "" and (page == _parts(scheme + b"://" + host) or page[0] in self._declared)


def host_name(declared: str) -> str:
    """The host that a declared name means, in lower case and without the port; `*` stays.

    Raises:
        UsageError: it is no name or address of a host.
    """
    if declared == ANY:
        return ANY
    try:
        return str(ipaddress.IPv6Address(declared))  # which may come without its brackets
    except ValueError:
        name = "" if _NO_HOST.intersection(declared) else _parts(b"http://" + declared.encode())[0]
    if not name or any(letter.isspace() for letter in declared):
        hint = "write a name or an address: models.example.com"
        raise UsageError(f'"{declared[:80]}" is no host', subject=declared[:80], hint=hint)
    return name


def is_loopback(host: str) -> bool:
    """Whether an address, or a name, leads to this machine alone."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host == "localhost"
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (mapped or address).is_loopback


def _parts(url: bytes) -> tuple[str, str]:
    """Host and port; two empty texts where it is no URL of a host."""
    try:
        parts = urlsplit(url.decode("ascii").lower())
        name, port = parts.hostname or "", parts.port
    except (UnicodeDecodeError, ValueError):
        return "", ""
    return _same_name(name), str(port) if port is not None else _PORTS.get(parts.scheme, "")


def _same_name(name: str) -> str:
    """One form of the names that mean the same host."""
    try:
        return str(ipaddress.ip_address(name))
    except ValueError:
        return name.removesuffix(".")


def _shown(value: bytes) -> str:
    return value.decode("latin-1")[:80]
