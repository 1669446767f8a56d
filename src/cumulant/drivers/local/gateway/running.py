"""The gateway's life: it listens, says where, answers until it is told to end, and lets go of everything."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import signal
import socket
import ssl
from pathlib import Path

from cumulant.core.errors import PortInUseError, StorageError, UsageError
from cumulant.core.network.accepting import take_connections
from cumulant.core.network.gateway_token import read_key
from cumulant.core.network.hosts import Hosts, is_loopback
from cumulant.core.traffic import Certificates
from cumulant.drivers.local.gateway.admin import Admin
from cumulant.drivers.local.gateway.exchange_log import ExchangeLog
from cumulant.drivers.local.gateway.front import Bounds, Site
from cumulant.drivers.local.gateway.passing import Gateway
from cumulant.drivers.local.gateway.state import Folder, held
from cumulant.drivers.local.gateway.table import Checks, Table
from cumulant.ports.traffic import Door, Opening

_BACKLOG = 2048
_DRAIN = 30.0
_LOCK = 5.0
_HANDSHAKE = 10.0
_FILES = 65_536


async def run(path: Path, opening: Opening) -> None:
    """Be the gateway of a folder until SIGTERM or SIGINT.

    Raises:
        EngineUnavailableError: another gateway works in the folder.
        PortInUseError, UsageError, StorageError: it cannot listen, or its folder cannot be written.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)  # noqa: ASYNC240 - nothing else runs yet
        with held(path / "gateway.lock", wait=_LOCK):
            await _live(Folder(path), opening)
    except OSError as error:
        raise StorageError(f"the gateway cannot work in {path}: {error.strerror}", subject=str(path)) from error


async def _live(folder: Folder, opening: Opening) -> None:
    folder.close_door()
    _allow_many()
    secret = None if opening.key_file is None else _secret(opening.key_file)
    context = None if opening.tls is None else _context(opening.tls)
    table = Table(None if opening.gateway_key_file is None else read_key(opening.gateway_key_file))
    listeners = [_bind(opening.http), _bind(opening.admin)]
    gateway = Gateway(table, ExchangeLog(folder.log), secret=secret)
    site, checks = Site(gateway), Checks(table)
    local = is_loopback(listeners[1].getsockname()[0])
    admin = Admin(gateway, folder, checks, site, Hosts(local=local))
    side = Site(admin, Bounds(connections=256))
    await admin.reload()
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        with contextlib.suppress(NotImplementedError):  # Windows: Ctrl-C ends it
            loop.add_signal_handler(number, ended.set)
    servers = [
        await take_connections(
            site, listeners[0], backlog=_BACKLOG, tls=context, handshake=_HANDSHAKE if context else None
        ),
        await take_connections(side, listeners[1], backlog=_BACKLOG),
    ]
    sweeps = [asyncio.ensure_future(one.sweep()) for one in (site, side)]
    scheme = "http" if context is None else "https"
    door = Door(url=_url(scheme, listeners[0]), admin=_url("http", listeners[1]), pid=os.getpid())
    try:
        with folder.open_door(door):
            # Routes that were applied since they were read, by somebody who saw no door yet.
            await admin.reload()
            await ended.wait()
            servers[0].close()
            await site.drain(_DRAIN)
            await gateway.mirror.drain(1.0)
            gateway.log.close()
    finally:
        checks.close()
        servers[1].close()
        await side.drain(0.2)
        for sweep in sweeps:
            sweep.cancel()
        for endpoint in table.endpoints.values():
            endpoint.close()


def _bind(address: str) -> socket.socket:
    host, colon, port = address.rpartition(":")
    if not colon or not port.isdecimal() or int(port) > 65535:
        raise UsageError(f'"{address}" is not HOST:PORT', subject=address, hint="write 127.0.0.1:8080")
    host = host.removeprefix("[").removesuffix("]")
    try:
        family, kind, protocol, _, where = socket.getaddrinfo(host, int(port), type=socket.SOCK_STREAM)[0]
    except socket.gaierror as error:
        raise UsageError(f"{address} is no address to listen on ({error})", subject=address) from None
    listener = socket.socket(family, kind, protocol)
    try:
        if os.name == "posix":
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(where)
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            raise PortInUseError(
                f"{address} is already in use",
                subject=address,
                hint="stop what listens there, or take another address, such as 127.0.0.1:0 for a free port",
            ) from None
        raise UsageError(f"cannot listen on {address}: {error.strerror}", subject=address) from None
    listener.setblocking(False)  # noqa: FBT003 - the socket's own name for it
    return listener


def _url(scheme: str, listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"{scheme}://[{host}]:{port}" if listener.family == socket.AF_INET6 else f"{scheme}://{host}:{port}"


def _secret(path: str) -> bytes:
    try:
        found = Path(path).read_bytes()
    except OSError as error:
        raise UsageError(f"the key file {path} cannot be read: {error.strerror}", subject=path) from None
    if not found.strip():
        raise UsageError(f"the key file {path} is empty", subject=path, hint="write random bytes into it, 32 or more")
    return found


def _context(tls: Certificates) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(tls.certificate, tls.private_key)
        if tls.authority is not None:
            context.load_verify_locations(tls.authority)
            context.verify_mode = ssl.CERT_REQUIRED
    except (OSError, ssl.SSLError) as error:
        raise UsageError(
            f"the certificates cannot be used: {error}",
            subject=tls.certificate,
            hint="give PEM files; the private key must belong to the certificate and have no password",
        ) from None
    return context


def _allow_many() -> None:
    """Hold as many connections as the system grants; the usual 1,024 files are soon used."""
    try:
        import resource
    except ModuleNotFoundError:  # Windows has no such limit
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _FILES if hard == resource.RLIM_INFINITY else min(hard, _FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(OSError, ValueError):  # the system may still say no
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
