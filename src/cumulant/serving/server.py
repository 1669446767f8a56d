"""Run the application: bind, load, announce, answer, drain."""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec

from cumulant.core.errors import PortInUseError, StorageError, UsageError
from cumulant.core.units import duration, size
from cumulant.serving.app import Application
from cumulant.serving.http import Limits, Site
from cumulant.serving.models import ModelSet, open_model
from cumulant.serving.stores import open_store

_BACKLOG = 2048


class Ready(msgspec.Struct, frozen=True):
    """What a server says when it answers: its real address, and the models with their versions."""

    url: str
    pid: int
    models: tuple[tuple[str, str], ...]


def serve(
    folders: Sequence[Path | str],
    host: str = "127.0.0.1",
    port: int = 8080,
    *,
    online: str | None = None,
    table: str | None = None,
    insecure: bool = False,
    body_limit: str = "8MiB",
    drain: str = "10s",
    announce: Callable[[Ready], None] | None = None,
) -> None:
    """Answer for the servables in `folders` until SIGTERM or SIGINT; what was accepted is finished first.

    Port 0 takes a free port; `announce` hears the real address. `online` is the URL of the stored features,
    `table` the name of their state. Off loopback the server answers anyone, hence `insecure`.

    Raises:
        PortInUseError: the address is taken.
        UsageError: an address that cannot be used, or features that need a store.
        NotFoundError, IntegrityError: as `packaging.Scorer`.
    """
    limit, patience = size(body_limit), duration(drain).total_seconds()
    listener = bind(host, port, insecure=insecure)
    with listener:
        store = open_store(online) if online else None
        try:
            models = ModelSet([open_model(folder, store=store, table=table) for folder in folders])
            app = Application(models, body_limit=limit)
            url = _url(listener)
            ready = Ready(url, os.getpid(), tuple((model.name, model.version) for model in models))
            with asyncio.Runner(loop_factory=new_loop) as runner:
                runner.run(_answer(app, listener, patience, lambda: announce(ready) if announce else None))
        finally:
            if store is not None:
                store.close()


def bind(host: str, port: int, *, insecure: bool = False) -> socket.socket:
    """A socket bound to the address, loopback unless `insecure`.

    Raises:
        PortInUseError, UsageError: as `serve`.
    """
    if not insecure and not _is_loopback(host):
        hint = "listen on 127.0.0.1, or pass --insecure where the network is trusted"
        raise UsageError(f"{host} can be reached from other machines, and requests are not authenticated",
                         subject=host, hint=hint)  # fmt: skip
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
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            hint = "stop what listens there, or take a free port with --http 127.0.0.1:0"
            raise PortInUseError(f"{host}:{port} is already in use", subject=f"{host}:{port}", hint=hint) from None
        raise UsageError(f"cannot listen on {host}:{port}: {error.strerror}", subject=f"{host}:{port}") from None
    listener.setblocking(False)  # noqa: FBT003 - the socket's own name for it
    return listener


def split_address(text: str) -> tuple[str, int]:
    """`HOST:PORT` or `[IPV6]:PORT`.

    Raises:
        UsageError: it is written otherwise.
    """
    host, colon, port = text.rpartition(":")
    if not colon or not host or not port.isdecimal() or int(port) > 65535:
        raise UsageError(f'"{text}" is not HOST:PORT', hint="write 127.0.0.1:8080, or port 0 for a free one")
    return host.removeprefix("[").removesuffix("]"), int(port)


def write_ready(path: Path, ready: Ready) -> None:
    """Write `ready` as JSON; a reader sees the whole file or none."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        draft.write_bytes(msgspec.json.encode(ready))
        draft.replace(path)
    except OSError as error:
        raise StorageError(f"{path} cannot be written: {error.strerror}", subject=str(path)) from None


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _url(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if listener.family == socket.AF_INET6 else f"http://{host}:{port}"


async def _answer(app: Application, listener: socket.socket, patience: float, started: Callable[[], None]) -> None:
    """Answer until the process is asked to end; then finish what was accepted."""
    loop = asyncio.get_running_loop()
    site = Site(app, Limits(body=app.body_limit))
    ended = asyncio.Event()
    with _signals(loop, ended):
        server = await loop.create_server(site, sock=listener, backlog=_BACKLOG)
        site.start()
        started()
        await ended.wait()
        app.draining = True
        server.close()
        await site.drain(patience)


@contextmanager
def _signals(loop: asyncio.AbstractEventLoop, ended: asyncio.Event) -> Iterator[None]:
    """SIGTERM and SIGINT set `ended`; in a thread of somebody else's process, its handlers stay."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = (signal.SIGTERM, signal.SIGINT)
    try:
        for number in numbers:
            loop.add_signal_handler(number, ended.set)
    except NotImplementedError:  # Windows
        before = {number: signal.signal(number, lambda *_: loop.call_soon_threadsafe(ended.set)) for number in numbers}
    else:
        before = {}
    try:
        yield
    finally:
        for number in numbers:
            if before:
                signal.signal(number, before[number])
            else:
                loop.remove_signal_handler(number)


def new_loop() -> asyncio.AbstractEventLoop:
    """Uvloop where it is installed; asyncio's own where it does not exist (Windows)."""
    try:
        import uvloop
    except ModuleNotFoundError:
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()


def say(ready: Ready) -> None:
    """One JSON line on standard output."""
    sys.stdout.write(msgspec.json.encode(ready).decode() + "\n")
    sys.stdout.flush()
