"""The gateway's process, in the foreground until SIGTERM drains it: `python -m cumulant.drivers.envoy FOLDER`."""

from __future__ import annotations

import argparse
import contextlib
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path

import msgspec

from cumulant.core.errors import CumulantError, EngineUnavailableError, UsageError
from cumulant.core.network.gateway_token import read_key
from cumulant.core.system.end_signals import end_event
from cumulant.core.system.stderr import lossy_stderr
from cumulant.core.traffic import Certificates
from cumulant.drivers.envoy import engine, process
from cumulant.drivers.envoy.access_log import AccessLogReader
from cumulant.drivers.envoy.admin import Admin
from cumulant.drivers.envoy.bootstrap import Sockets, build_bootstrap
from cumulant.drivers.envoy.exchanges import ExchangeWriter
from cumulant.drivers.envoy.folder import PRIVATE, Folder, GatewayState, RunningGateway, write_file
from cumulant.drivers.envoy.published import write_clusters, write_table
from cumulant.drivers.envoy.readiness import serve_readiness
from cumulant.ports.traffic import GatewayAddress, ListenOptions


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code: 0 after SIGTERM or SIGINT, 1 where Envoy ended by itself or did not start."""
    folder, opening = _parse_arguments(arguments)
    end_requested, configured = end_event(), threading.Event()
    try:
        folder.make()
        with folder.lock_gateway(), tempfile.TemporaryDirectory(prefix=PRIVATE) as private:
            sockets = Sockets(f"{private}/admin.sock", f"{private}/ready.sock")
            with serve_readiness(sockets.ready, lambda: _why_unready(folder, opening, end_requested, configured)):
                return _run(folder, opening, sockets, end_requested, configured)
    except CumulantError as error:
        sys.stderr.write(f"{error.full_text}\n")
        return 1


def _parse_arguments(arguments: Sequence[str] | None) -> tuple[Folder, ListenOptions]:
    parser = argparse.ArgumentParser(prog="python -m cumulant.drivers.envoy", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--http", default=ListenOptions().http, help="HOST:PORT for callers")
    parser.add_argument("--admin", default=ListenOptions().admin, help="HOST:PORT for /metrics and /health")
    parser.add_argument("--certificate", help="PEM file; with it callers speak TLS")
    parser.add_argument("--private-key", help="PEM file of the certificate's key")
    parser.add_argument("--authority", help="PEM file; callers must show a certificate that it signed")
    parser.add_argument("--key-file", help="file whose bytes the hashes of callers' keys are made with")
    parser.add_argument("--gateway-key-file", help="file of the key that tokens for the servers are made with")
    parser.add_argument("--traces", help="URL of a collector of OTLP over HTTP that gets a span per request")
    parser.add_argument("--agent", action="store_true", help="an agent reports when the gateway is ready")
    options = parser.parse_args(arguments)
    if bool(options.certificate) != bool(options.private_key):
        parser.error("--certificate and --private-key go together")
    tls = Certificates(certificate=options.certificate, private_key=options.private_key, authority=options.authority)
    opening = ListenOptions(
        http=options.http,
        admin=options.admin,
        tls=tls if options.certificate else None,
        key_file=options.key_file,
        gateway_key_file=options.gateway_key_file,
        traces=options.traces,
        agent=options.agent,
    )
    return Folder(options.folder.absolute()), opening


def _why_unready(
    folder: Folder, opening: ListenOptions, end_requested: threading.Event, configured: threading.Event
) -> str:
    """Why the gateway should get no requests; empty while it should."""
    if end_requested.is_set():
        return "the gateway ends"
    if not configured.is_set():
        return "Envoy has not taken the servers and routes: the gateway's output says why"
    if opening.agent:
        return folder.readiness().fault
    return "" if folder.state().routes else "the gateway has no routes yet"


def _run(
    folder: Folder,
    opening: ListenOptions,
    sockets: Sockets,
    end_requested: threading.Event,
    configured: threading.Event,
) -> int:
    salt = _read_salt(opening.key_file) if opening.key_file else b""
    key = read_key(opening.gateway_key_file) if opening.gateway_key_file else None
    writer = ExchangeWriter(folder.exchanges)
    with folder.lock_routes():
        # Stored, so that later changes of the routes send the servers their tokens too.
        state = _started(folder.state(), opening)
        folder.write_state(state)
        write_clusters(folder, state, key)
        write_table(folder, state)
    write_file(folder.bootstrap, msgspec.json.encode(build_bootstrap(folder, opening, sockets)))
    envoy = process.start(engine.find_program(), folder.bootstrap)
    assert envoy.stdout is not None
    reader = AccessLogReader(envoy.stdout, writer, salt)
    reader.start()
    try:
        return _watch(folder, opening, Admin(sockets.admin), envoy, end_requested, configured=configured)
    finally:
        folder.remove_gateway()
        process.end(envoy)
        reader.join()


def _started(state: GatewayState, opening: ListenOptions) -> GatewayState:
    """The state of a gateway that listens so. Without an agent it shares its rates with no other."""
    return msgspec.structs.replace(
        state,
        gateway_key_file=opening.gateway_key_file,
        agent=opening.agent,
        gateways=state.gateways if opening.agent else 1,
    )


def _read_salt(path: str) -> bytes:
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise UsageError(f"the key file {path} cannot be read: {error.strerror}", subject=path) from None
    if not content.strip():
        raise UsageError(f"the key file {path} is empty", subject=path, hint="write random bytes into it, 32 or more")
    return content


def _watch(
    folder: Folder,
    opening: ListenOptions,
    admin: Admin,
    envoy: subprocess.Popen[bytes],
    end_requested: threading.Event,
    *,
    configured: threading.Event,
) -> int:
    process.await_ready(envoy, admin)
    addresses = admin.addresses()
    scheme = "https" if opening.tls else "http"
    address = GatewayAddress(
        url=f"{scheme}://{addresses['callers']}", admin=f"http://{addresses['administration']}", pid=os.getpid()
    )
    _note_configured(admin, configured)
    folder.write_gateway(RunningGateway(address, admin.path))
    while not end_requested.wait(0.1):
        if envoy.poll() is not None:
            sys.stderr.write(f"Envoy ended with {envoy.returncode}\n")
            return 1
        _note_configured(admin, configured)
    with contextlib.suppress(CumulantError):
        process.drain(admin)
    return 0


def _note_configured(admin: Admin, configured: threading.Event) -> None:
    with contextlib.suppress(EngineUnavailableError):  # the next call tries again
        if not configured.is_set() and admin.configured():
            configured.set()


if __name__ == "__main__":
    lossy_stderr()
    sys.exit(main())
