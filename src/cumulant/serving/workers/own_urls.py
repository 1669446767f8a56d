"""URLs by which a gateway may reach a server."""

from __future__ import annotations

import contextlib
import ipaddress
import socket
from collections.abc import Collection, Iterator

from cumulant.core.network.hosts import ANY, is_loopback
from cumulant.serving.workers.sockets import address_of

#: addresses of documentation: a datagram socket towards them sends nothing, and names the address that would
_ELSEWHERE = ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1"))


def own_urls(host: str, port: int, declared: Collection[str] = ()) -> tuple[str, ...]:
    """URLs of the server that listens on `host` and `port`: of the address as written and as resolved, of this
    machine's addresses where it listens on all, and of `declared` names, such as those of a proxy in front.
    """
    hosts = [host, *_resolved(host)]
    if any(map(_is_wildcard, hosts)):
        hosts += ["127.0.0.1", "::1", *_of_this_machine()]
    if any(map(is_loopback, hosts)):
        hosts.append("localhost")
    names = [name for name in declared if name != ANY]
    urls = [f"http://{address_of(address, port)}" for address in (*hosts, *names) if not _is_wildcard(address)]
    # A proxy that speaks TLS for this server has a port of its own.
    return tuple(dict.fromkeys([*urls, *(f"https://{address_of(name, 443)}" for name in names)]))


def _of_this_machine() -> Iterator[str]:
    yield socket.gethostname()
    yield from _resolved(socket.gethostname())
    for family, address in _ELSEWHERE:
        with contextlib.suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((address, 9))
            yield str(probe.getsockname()[0])


def _resolved(host: str) -> list[str]:
    try:
        addresses = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return []
    return [str(address[0]).partition("%")[0] for *_, address in addresses]


def _is_wildcard(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_unspecified
    except ValueError:
        return host == ""
