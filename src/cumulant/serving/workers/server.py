"""Start and run the server: bind the address, start the workers, announce, drain."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec

from cumulant.core.errors import CumulantError, UsageError
from cumulant.core.masking import fingerprint
from cumulant.core.network.hosts import is_loopback
from cumulant.core.system.atomic_files import replace_file, storage_errors
from cumulant.core.units import duration, size
from cumulant.ports.plugins import Drivers
from cumulant.serving.content_pins import Pin
from cumulant.serving.models.artifact_cache import artifact_folder, pin_fallback
from cumulant.serving.models.repository import Repository
from cumulant.serving.options import OPEN_ACCESS
from cumulant.serving.prediction_log.personal_values import personal_fields
from cumulant.serving.prediction_log.salt import VARIABLE, choose_salt
from cumulant.serving.sequences.sequence_store import sequence_folder
from cumulant.serving.settings import Settings
from cumulant.serving.sockets import (
    address_of,
    bind,
    can_share_port,
    raise_file_limit,
    reserve_address,
    split_address,
    url_of,
)
from cumulant.serving.workers.event_loops import end_on_signals, new_loop, restore_signals
from cumulant.serving.workers.listeners import Listeners
from cumulant.serving.workers.load_check import LoadCheck
from cumulant.serving.workers.log_process import log_socket_folder, run_log_process
from cumulant.serving.workers.supervisor import WorkerSupervisor
from cumulant.serving.workers.worker import Worker

__all__ = ["Ready", "bind", "print_ready", "run", "serve", "split_address", "write_ready"]


class Ready(msgspec.Struct, frozen=True, omit_defaults=True):
    """Ready message: the real address, and the models with their versions."""

    url: str
    pid: int
    models: tuple[tuple[str, str], ...]
    workers: int = 1
    #: HOST:PORT of gRPC
    grpc: str | None = None


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
    """Serve the servables in `folders` until SIGTERM or SIGINT; accepted requests are answered first.

    Port 0 takes a free port; `announce` is called with the real address. `online` is the URL of the stored features,
    `table` the name of their state. Off loopback the server answers anyone, hence `insecure`.

    Raises:
        PortInUseError: the address is taken.
        UsageError: an address that cannot be used, or features that need a store.
        NotFoundError, IntegrityError: as `Scorer`.
    """
    settings = Settings(
        folders=tuple(map(str, folders)),
        host=host,
        port=port,
        online=online,
        table=table,
        body_limit=size(body_limit),
        drain=duration(drain).total_seconds(),
    )
    run(settings, insecure=insecure, announce=announce)


def run(
    settings: Settings,
    *,
    insecure: bool = False,
    announce: Callable[[Ready], None] | None = None,
    salts: Sequence[bytes] = (),
) -> None:
    """Serve by `settings` until SIGTERM or SIGINT. Of `salts`, the one that the models were made for is the key
    of the hashes of personal values in the prediction log; without any these are hidden.

    Raises:
        CumulantError: as `serve`.
    """
    _check(settings, insecure=insecure)
    salt = _salt(settings, salts)
    settings = msgspec.structs.replace(settings, salt_fingerprint=fingerprint(salt), salt=salt)
    raise_file_limit()
    open_to_all = insecure or bool(settings.tokens)
    with (
        restore_signals(),
        pin_fallback(settings) as fixed,
        _with_grpc(fixed, insecure=open_to_all) as bound,
        log_socket_folder(bound) as logged,
        sequence_folder(logged) as placed,
    ):
        _run(placed, announce, insecure=open_to_all, salt=salt)


@contextmanager
def _with_grpc(settings: Settings, *, insecure: bool) -> Iterator[Settings]:
    """The settings with the real port of gRPC, reserved for the workers where they can share it."""
    if settings.grpc_port is None:
        yield settings
        return
    take = reserve_address if can_share_port() else bind
    with take(settings.grpc_host, settings.grpc_port, insecure=insecure, option="--grpc") as holder:
        host, port = holder.getsockname()[:2]
        if not can_share_port():
            holder.close()
        yield msgspec.structs.replace(settings, grpc_host=host, grpc_port=port)


def _salt(settings: Settings, salts: Sequence[bytes]) -> bytes:
    described = [
        servable
        for _, servable in Repository(settings.folders).descriptions()
        if not isinstance(servable, CumulantError)
    ]
    salt = choose_salt(salts, described)
    bare = sorted({servable.name for servable in described if personal_fields(servable)})
    if bare and not salt and settings.log is not None:
        text = f"personal values of {', '.join(bare)} are hidden in the prediction log: no salt is given"
        sys.stderr.write(f"{text} ({VARIABLE}, or --salt-file FILE)\n")
    return salt


def _run(settings: Settings, announce: Callable[[Ready], None] | None, *, insecure: bool, salt: bytes) -> None:
    if settings.workers > 1 and can_share_port():
        with reserve_address(settings.host, settings.port, insecure=insecure) as holder:
            _supervise(settings, holder, announce, salt)
        return
    if settings.workers > 1:
        sys.stderr.write("several workers cannot share a port here: one answers\n")
    with bind(settings.host, settings.port, insecure=insecure) as listener:
        _alone(settings, listener, announce, salt)


def _check(settings: Settings, *, insecure: bool) -> None:
    if settings.workers < 1:
        raise UsageError("at least one worker is needed", hint="--workers 1")
    if settings.log_write == "durable" and settings.log is None and settings.log_socket is None:
        raise UsageError("a durable prediction log needs a folder", hint="name one with --log DIR")
    if settings.access != OPEN_ACCESS:
        Drivers.installed().driver(settings.access, "access")
    hosts = [settings.host] + ([] if settings.grpc_port is None else [settings.grpc_host])
    if settings.control and not settings.tokens and not all(map(is_loopback, hosts)) and insecure:
        hint = "give a token with --token-file, or listen on loopback"
        raise UsageError("anyone who reaches this address could load and unload models", hint=hint)


def _alone(settings: Settings, listener: socket.socket, announce: Callable[[Ready], None] | None, salt: bytes) -> None:
    settings, pins = _first(msgspec.structs.replace(settings, port=listener.getsockname()[1]))
    worker = Worker(settings, pins=pins)
    models = tuple((model.name, model.version) for model in worker.app.models)
    ready = Ready(url_of(listener), os.getpid(), models, grpc=_grpc_of(settings))

    async def answer() -> None:
        ended = asyncio.Event()
        async with run_log_process(settings, salt):
            with end_on_signals(ended, settings.parent):
                await worker.run(Listeners([listener]), ended, lambda: announce(ready) if announce else None)

    try:
        with asyncio.Runner(loop_factory=new_loop) as runner:
            runner.run(answer())
    finally:
        worker.close()


def _first(settings: Settings) -> tuple[Settings, list[Pin]]:
    """Load-checked content at the start, and the settings with the excluded folders."""
    load_check = LoadCheck(settings)
    pins = load_check.check_all()
    return msgspec.structs.replace(settings, left_out=load_check.left_out), pins


def _grpc_of(settings: Settings) -> str | None:
    return None if settings.grpc_port is None else address_of(settings.grpc_host, settings.grpc_port)


def _supervise(
    settings: Settings, holder: socket.socket, announce: Callable[[Ready], None] | None, salt: bytes
) -> None:
    settings = msgspec.structs.replace(settings, port=holder.getsockname()[1])

    def started(models: list[list[str]]) -> None:
        if announce:
            pairs = tuple((name, version) for name, version in models)
            announce(Ready(url_of(holder), os.getpid(), pairs, settings.workers, _grpc_of(settings)))

    async def supervise(placed: Settings, pins: Sequence[Pin]) -> None:
        async with run_log_process(placed, salt):
            await WorkerSupervisor(placed, pins).run(started)

    with artifact_folder() as artifacts:
        placed, pins = _first(msgspec.structs.replace(settings, artifacts=artifacts))
        with asyncio.Runner(loop_factory=new_loop) as runner:
            runner.run(supervise(placed, pins))


def write_ready(path: Path, ready: Ready) -> None:
    """Write `ready` as JSON; a reader sees the whole file or none."""
    with storage_errors(path):
        replace_file(path, msgspec.json.encode(ready), durable=False)


def print_ready(ready: Ready) -> None:
    """Print the ready message as one JSON line on standard output."""
    sys.stdout.write(msgspec.json.encode(ready).decode() + "\n")
    sys.stdout.flush()
