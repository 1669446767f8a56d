"""Addresses, URLs and listening sockets of a server."""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import os
import socket
from collections.abc import Collection, Iterator

from cumulant.core.errors import PortInUseError, UsageError
from cumulant.core.network.hosts import ANY, is_loopback

BACKLOG = 2048
_FILES = 65_536
#: addresses of documentation: a datagram socket towards them sends nothing, and names the address that would
_ELSEWHERE = ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1"))


def bind(host: str, port: int, *, insecure: bool = False, option: str = "--http") -> socket.socket:
    """A socket bound to the address, loopback unless `insecure`; `option` is the caller's option for it.

    Raises:
        PortInUseError, UsageError: the address is taken, or cannot be used.
    """
    if not insecure and not is_loopback(host):
        hint = "listen on 127.0.0.1, set CUMULANT_TOKEN, or pass --insecure where the network is trusted"
        raise UsageError(
            f"{host} can be reached from other machines, and requests are not authenticated", subject=host, hint=hint
        )
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except (socket.gaierror, OverflowError) as error:
        raise UsageError(f"{host}:{port} is no address to listen on ({error})", subject=host) from None
    listener = socket.socket(family, kind, protocol)
    try:
        if os.name == "posix":
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        # Claims the port now: of two servers that both bound it, only one may listen.
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            hint = f"stop what listens there, or take a free port with {option} 127.0.0.1:0"
            raise PortInUseError(f"{host}:{port} is already in use", subject=f"{host}:{port}", hint=hint) from None
        raise UsageError(f"cannot listen on {host}:{port}: {error.strerror}", subject=f"{host}:{port}") from None
    listener.setblocking(False)  # noqa: FBT003 - the socket's own name for it
    return listener


def reserve_address(host: str, port: int, *, insecure: bool = False, option: str = "--http") -> socket.socket:
    """A socket that holds the address for several workers without taking connections itself.

    Raises:
        PortInUseError, UsageError: as `bind`.
    """
    # Another program's workers could share the address unseen; one that is free for itself is not shared.
    with bind(host, port, insecure=insecure, option=option) as first:
        port = first.getsockname()[1]
    return _reusable(host, port)


def open_shared(host: str, port: int) -> socket.socket:
    """A socket of one worker among several on the same address, which listens once the worker is ready."""
    listener = _reusable(host, port)
    listener.setblocking(False)  # noqa: FBT003 - the socket's own name for it
    return listener


def _reusable(host: str, port: int) -> socket.socket:
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    listener = socket.socket(family, kind, protocol)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    listener.bind(address)
    return listener


def can_share_port() -> bool:
    """Whether several processes can share one port here."""
    return hasattr(socket, "SO_REUSEPORT") and os.name == "posix"


def raise_file_limit() -> None:
    """Raise the limit of open files to what the system grants: each connection needs one."""
    try:
        import resource
    except ModuleNotFoundError:  # Windows has no such limit
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _FILES if hard == resource.RLIM_INFINITY else min(hard, _FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(OSError, ValueError):  # the system may still refuse
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def split_address(text: str) -> tuple[str, int]:
    """`HOST:PORT` or `[IPV6]:PORT`.

    Raises:
        UsageError: it is written otherwise.
    """
    host, colon, port = text.rpartition(":")
    if not colon or not host or not port.isdecimal() or int(port) > 65535:
        raise UsageError(f'"{text}" is not HOST:PORT', hint="write 127.0.0.1:8080, or port 0 for a free one")
    return host.removeprefix("[").removesuffix("]"), int(port)


def address_of(host: str, port: int) -> str:
    """As `split_address` reads it."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def url_of(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if listener.family == socket.AF_INET6 else f"http://{host}:{port}"


def own_urls(host: str, port: int, declared: Collection[str] = ()) -> tuple[str, ...]:
    """URLs of a server: its address as written and resolved, all of this machine's for a wildcard, `declared`."""
    hosts = [host, *_resolved(host)]
    if any(map(_is_wildcard, hosts)):
        hosts += ["127.0.0.1", "::1", *_of_this_machine()]
    if any(map(is_loopback, hosts)):
        hosts.append("localhost")
    names = [name for name in declared if name != ANY]
    urls = [f"http://{address_of(address, port)}" for address in (*hosts, *names) if not _is_wildcard(address)]
    # A TLS proxy in front of this server has a port of its own.
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
