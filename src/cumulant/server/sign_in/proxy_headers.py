"""What declared proxies say of a request: the caller's address, its scheme and its host. Of others nothing counts."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

    from cumulant.project.sign_in_section import Network

_FOR, _PROTO, _HOST = b"x-forwarded-for", b"x-forwarded-proto", b"x-forwarded-host"
#: of proxies of other kinds, which none of ours reads; they are taken away all the same
_ALL = frozenset({_FOR, _PROTO, _HOST, b"forwarded", b"x-forwarded-port", b"x-forwarded-prefix", b"x-real-ip"})


class ProxyHeaders:
    """Replaces address, scheme and host of a request by what the proxies of `trusted` forward, and removes the headers.

    Each proxy appends the address of whom it had the request from. From the end, the first address that is of no
    declared proxy is the caller's: what stands before it was the caller's own word.
    """

    def __init__(self, app: ASGIApp, trusted: Sequence[Network]) -> None:
        self._app, self._trusted = app, tuple(trusted)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = [(name, value) for name, value in scope["headers"] if name not in _ALL]
        changed = {**scope, "headers": headers}
        client = scope.get("client")
        if client is not None and self._is_proxy(client[0]):
            self._apply(changed, scope["headers"])
        await self._app(changed, receive, send)

    def _apply(self, scope: Scope, received: Sequence[tuple[bytes, bytes]]) -> None:
        addresses = [part.strip() for value in _values(received, _FOR) for part in value.split(",")]
        caller = next((address for address in reversed(addresses) if not self._is_proxy(address)), None)
        if caller is not None and _is_address(caller):
            scope["client"] = (caller, 0)
        proto = _last(received, _PROTO)
        if proto in ("http", "https"):
            scope["scheme"] = proto
        host = _last(received, _HOST)
        if host and host.isascii() and host.isprintable():
            scope["headers"] = [(name, value) for name, value in scope["headers"] if name != b"host"]
            scope["headers"].append((b"host", host.encode("ascii")))

    def _is_proxy(self, address: str) -> bool:
        try:
            known = ipaddress.ip_address(address)
        except ValueError:
            return False
        if isinstance(known, ipaddress.IPv6Address) and known.ipv4_mapped is not None:
            known = known.ipv4_mapped
        return any(known in network for network in self._trusted)


def _values(headers: Sequence[tuple[bytes, bytes]], name: bytes) -> list[str]:
    return [value.decode("latin-1") for key, value in headers if key == name]


def _last(headers: Sequence[tuple[bytes, bytes]], name: bytes) -> str:
    """What the nearest proxy wrote: the last value of the last header."""
    values = _values(headers, name)
    return values[-1].rpartition(",")[2].strip().lower() if values else ""


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True
