"""A small gateway for tests of what stands around one: all requests go to the champion. Its driver is `standin://`."""

from __future__ import annotations

import http.client
import json
import os
import signal
import sys
import threading
import time
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import msgspec

from cumulant.core.network.gateway_token import read_key, token_for
from cumulant.core.traffic import ARM_HEADER, CALLER_HEADER, REQUEST_HEADER, TOKEN_HEADER, Routes
from cumulant.ports.driver import Driver
from cumulant.ports.traffic import GatewayAddress, ListenOptions

DRIVER = Driver(clients={"traffic": "e2e_gateway:Standin"}, path="folder", default_paths={"traffic": "gateway"})


def installed(folder: Path) -> Path:
    """A folder for PYTHONPATH that brings the driver as a package would."""
    info = folder / "standin-1.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: standin\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[cumulant.drivers]\nstandin = e2e_gateway:DRIVER\n")
    (folder / "e2e_gateway.py").symlink_to(__file__)
    return folder


class Standin:
    def __init__(self, url: str) -> None:
        self.folder = Path(url.partition("://")[2])

    def command(self, opening: ListenOptions) -> list[str]:
        return [sys.executable, __file__, str(self.folder), opening.http, opening.gateway_key_file or ""]

    def address(self) -> GatewayAddress | None:
        try:
            address = msgspec.json.decode((self.folder / "address.json").read_bytes(), type=GatewayAddress)
            os.kill(address.pid, 0)
        except (FileNotFoundError, ProcessLookupError):
            return None
        return address

    def apply(self, routes: Routes) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        _write(self.folder / "routes.json", msgspec.json.encode(routes))

    def in_force(self, model: str) -> Routes | None:
        try:
            return msgspec.json.decode((self.folder / "routes.json").read_bytes(), type=Routes)
        except FileNotFoundError:
            return None

    def lagging(self, model: str) -> tuple[str, ...]:
        return ()

    def active(self, model: str, arm: str) -> int:
        return 0

    def close(self) -> None:
        """Nothing is open."""


class _Passing(BaseHTTPRequestHandler):
    folder: Path
    key: bytes
    protocol_version = "HTTP/1.0"

    def do_POST(self) -> None:
        routes = Standin(f"standin://{self.folder}").in_force("")
        assert routes is not None
        (url,) = routes.champion.endpoints
        host, name = url.removeprefix("http://"), uuid.uuid4().hex
        told = {ARM_HEADER: "champion", REQUEST_HEADER: name, TOKEN_HEADER: token_for(self.key, url)}
        told[CALLER_HEADER] = self.headers.get(CALLER_HEADER) or name
        connection = http.client.HTTPConnection(host, timeout=10)
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        try:
            connection.request(self.command, self.path, body, told)
            answer = connection.getresponse()
            content, status = answer.read(), answer.status
        except OSError as error:
            content, status = json.dumps({"error": str(error)}).encode(), 502
        self.send_response(status)
        self.send_header("content-length", str(len(content)))
        self.send_header(REQUEST_HEADER, name)
        self.send_header(CALLER_HEADER, told[CALLER_HEADER])
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class names it
        """Nothing is logged."""


def _write(path: Path, content: bytes) -> None:
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.write_bytes(content)
    draft.replace(path)


def main(folder: str, address: str, key_file: str) -> None:
    place = Path(folder)
    place.mkdir(parents=True, exist_ok=True)
    host, _, port = address.rpartition(":")
    told = {"folder": place, "key": read_key(key_file)}
    try:
        server = ThreadingHTTPServer((host, int(port)), type("Here", (_Passing,), told))
    except OSError as error:
        sys.exit(f"{address} cannot be listened at: {error.strerror}")
    signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
    url = f"http://{host}:{server.server_address[1]}"
    _write(place / "address.json", msgspec.json.encode(GatewayAddress(url=url, admin=url, pid=os.getpid())))
    server.serve_forever(poll_interval=0.05)
    (place / "address.json").unlink()


if __name__ == "__main__":
    if sys.argv[1:] == ["hang"]:
        time.sleep(3600)
    main(*sys.argv[1:])
