"""`cumulant serve`: start the data plane for a registered model and stay with it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from cumulant.cli.command import application, command
from cumulant.cli.invocation import Invocation
from cumulant.cli.options import AsOf
from cumulant.cli.server_options import with_server_options
from cumulant.cli.training.model_arguments import check_named, nearest
from cumulant.core.errors import CumulantError, EngineUnavailableError, PortInUseError, RefusedError, UsageError

if TYPE_CHECKING:
    from rich.console import Console

    from cumulant.flows.serving.serve import PreparedService, RunningServer

app = application("serve", "Answer requests over HTTP.")

#: options of a server that its caller has a use for
_OPTIONS = (
    "insecure",
    "workers",
    "grpc",
    "model_control",
    "token_file",
    "salt_file",
    "access_log",
    "traces",
    "cache",
    "cache_budget",
    "log",
    "log_keep",
    "log_write",
    "log_features",
    "fallback",
    "queue",
    "drain",
    "sequences",
    "allow_host",
)

_POLL_SECONDS = 0.2
_KINDS: dict[int, type[CumulantError]] = {1: RefusedError, 2: UsageError, 3: PortInUseError}


@command(
    app,
    action="model.serve",
    examples=[
        "cumulant serve",
        "cumulant serve flight-late@champion --port 9000",
        "cumulant serve --as-of 2013-04-01 --json",
        "cumulant serve servables/late servables/digits --http 127.0.0.1:9000 --workers 2",
        "cumulant serve --cache valkey://127.0.0.1:6379/0",
        "cumulant serve servables/late --log predictions --fallback cached --queue 20ms",
    ],
)
@with_server_options(_OPTIONS)
def serve(
    call: Invocation,
    *,
    models: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[MODEL | DIR...]",
            show_default=False,
            help="NAME@ALIAS, NAME/VERSION or NAME of this project (default: its newest); or folders of servables.",
        ),
    ] = None,
    http: Annotated[
        str | None, typer.Option(metavar="HOST:PORT", help="Where to listen, instead of serving.http.")
    ] = None,
    host: Annotated[
        str | None,
        typer.Option(
            metavar="HOST", help="Where to listen, instead of serving.http; off loopback needs a token or --insecure."
        ),
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(metavar="PORT", help="Instead of that of serving.http; 0 takes a free one.", min=0, max=65535),
    ] = None,
    as_of: AsOf = None,
    **given: Any,
) -> None:
    """Serve a model: Open Inference Protocol v2 and plain JSON rows, until interrupted.

    Stored features are brought up to date first. With --json, the document is printed when the server answers.
    """
    from cumulant.flows.serving.serve import folders_command, note, server_command

    given |= {"parent": os.getpid()}
    if models and all(Path(folder).is_dir() for folder in models):
        where = http or f"{host or '127.0.0.1'}:{8080 if port is None else port}"
        started = _Start(lambda ready: folders_command(models or [], http=where, given=given, ready=ready))
        _stay(call, started, lambda running: {"url": running.url, "pid": running.pid}, _show_folders)
        return
    named = _only(models)
    check_named(call, named)
    service = _prepared(call, named, as_of)
    declared_host, _, declared_port = service.settings.http.rpartition(":")
    place = http or f"{host or declared_host}:{declared_port if port is None else port}"
    started = _Start(
        lambda ready: server_command(service, http=place, given=given, ready=ready),
        lambda pid: note(service, pid),
        salt=service.salt if given["salt_file"] is None else None,
    )
    _stay(
        call,
        started,
        lambda running: {"url": running.url, "pid": running.pid, "model": service.model},
        lambda console, running: _show(console, service, running),
    )


def _only(models: list[str] | None) -> str:
    for named in models or []:
        # NAME/VERSION ends in a number; anything else with a slash was meant as a path.
        if "/" in named and not named.rpartition("/")[2].isdecimal() and not Path(named).is_dir():
            hint = nearest(named) or "name a folder that `cumulant package` wrote, or NAME/VERSION of this project"
            raise UsageError(f"there is no folder {named}", subject=named, hint=hint)
    if models and len(models) > 1:
        missing = next(named for named in models if not Path(named).is_dir())
        hint = nearest(missing) or "serve one model of a project, or folders of servables"
        raise UsageError(f"{missing} is no folder", subject=missing, hint=hint)
    return models[0] if models else ""


def _prepared(call: Invocation, model: str, as_of: str | None) -> PreparedService:
    from cumulant.core.units import moment
    from cumulant.flows.serving.serve import prepare_service

    with call.project() as project, call.progress("serve") as progress:
        when = None if as_of is None else moment(as_of)
        return prepare_service(
            project, model or project.name, principal=project.principal(), as_of=when, progress=progress
        )


class _Start(NamedTuple):
    """How a server is started: its command line for a ready file, what is called with its process id, its salt."""

    line: Callable[[Path], list[str]]
    on_start: Callable[[int], None] = lambda _: None
    salt: Callable[[], bytes] | None = None


def _stay(
    call: Invocation,
    start: _Start,
    document: Callable[[RunningServer], dict[str, object]],
    show: Callable[[Console, RunningServer], None],
) -> None:
    """Start a server, print its address, and wait until it ends."""
    with _child(start) as (process, running):
        call.answer(document(running), lambda console: show(console, running))
        try:
            # Polars has Ctrl-C restart a blocking wait; a sleep ends with it all the same.
            while (code := process.poll()) is None:
                time.sleep(_POLL_SECONDS)
        except KeyboardInterrupt:
            # A terminal has signalled the server too, other senders have not; either way it finishes what it accepted.
            process.terminate()
            code = process.wait()
    if code > 0:
        raise EngineUnavailableError(f"the server ended with code {code}", subject=running.url)


@contextmanager
def _child(start: _Start) -> Iterator[tuple[subprocess.Popen[bytes], RunningServer]]:
    from cumulant.flows.serving.serve import await_ready
    from cumulant.flows.serving.spawning import spawn

    with tempfile.TemporaryDirectory() as folder:
        ready = Path(folder) / "ready.json"
        process = spawn(start.line(ready), stderr=subprocess.PIPE, salt=None if start.salt is None else start.salt())
        before = signal.signal(signal.SIGTERM, lambda *_: process.terminate())
        echo = _Echo(process)
        try:
            start.on_start(process.pid)
            running = await_ready(process, ready, lambda: _failed(process.returncode, echo))
            echo.show()
            yield process, running
        finally:
            process.terminate()
            process.wait()
            echo.close()
            signal.signal(signal.SIGTERM, before)


def _failed(code: int, echo: _Echo) -> CumulantError:
    """The server's own error; its options have the names of ours."""
    echo.join()
    kind = _KINDS.get(code, EngineUnavailableError)
    message = echo.text().removeprefix("error: ") or "the server ended before it answered"
    if kind is PortInUseError:
        return kind(message.partition(";")[0], hint="stop what listens there, or add --port 0, which takes a free one")
    return kind(message, hint="cumulant doctor" if kind is EngineUnavailableError else None)


class _Echo:
    """Standard error of the server: stored until it answers, shown afterwards."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._lines: list[str] = []
        self._shows = threading.Event()
        self._stream = process.stderr
        self._thread = threading.Thread(target=self._pump, daemon=True)
        self._thread.start()

    def text(self) -> str:
        return "".join(self._lines).strip()

    def show(self) -> None:
        self._shows.set()
        sys.stderr.write("".join(self._lines))

    def join(self) -> None:
        self._thread.join(timeout=5)

    def close(self) -> None:
        """After the server's end: read what is left."""
        self.join()
        if self._stream is not None:
            self._stream.close()

    def _pump(self) -> None:
        assert self._stream is not None
        for line in self._stream:
            text = line.decode(errors="replace")
            if self._shows.is_set():
                sys.stderr.write(text)
            else:
                self._lines.append(text)


def _show_folders(console: Console, running: RunningServer) -> None:
    from cumulant.flows.reports.terminal import clean

    served = ", ".join(clean(f"{name} version {version}") for name, version in running.models)
    console.print(f"serving {served} at {running.url}", style="bold")
    if running.grpc is not None:
        console.print(f"gRPC at {running.grpc}", style="dim")
    console.print("stop with Ctrl-C", style="dim")
    console.file.flush()


def _show(console: Console, service: PreparedService, running: RunningServer) -> None:
    from cumulant.flows.reports.request_example import curl
    from cumulant.flows.reports.terminal import cell, clean
    from cumulant.servable.folder import load_servable

    console.print(f"serving {clean(service.model.name)} version {service.model.version} at {running.url}", style="bold")
    if service.table is not None:
        known = f", as of {cell(service.as_of)}" if service.as_of else ""
        console.print(f"{service.entities:,} entities in the stored state{known}", style="dim")
    console.print(clean(curl(load_servable(Path(service.folder)), running.url)), soft_wrap=True)
    console.print("stop with Ctrl-C", style="dim")
    console.file.flush()
