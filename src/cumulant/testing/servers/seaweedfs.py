"""A SeaweedFS server of its own for tests and demos: an object store that speaks S3, with one bucket."""

from __future__ import annotations

import http.client
import json
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from cumulant.core.system.child_processes import start
from cumulant.testing.servers.programs import paired_ports, required_program

KEY, SECRET, BUCKET = "a-key", "a-secret", "bucket"
_ACTIONS = ["Admin", "Read", "Write", "List", "Tagging"]
_READY_SECONDS = 60.0


class SeaweedServer:
    """One server with its files in `folder`; `url` is the endpoint of S3."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._ports = paired_ports(4)
        self.url = f"http://127.0.0.1:{self._ports[3]}"
        identities = [
            {"name": "tests", "credentials": [{"accessKey": KEY, "secretKey": SECRET}], "actions": _ACTIONS},
            {"name": "anonymous", "actions": ["Admin"]},
        ]
        (folder / "s3.json").write_text(json.dumps({"identities": identities}), encoding="utf-8")
        self.start()

    def start(self) -> None:
        with (self._folder / "log.txt").open("ab") as log:
            self.process = start(self._command(), stdout=log.fileno(), stderr=log, death_signal=signal.SIGKILL)
        deadline = time.monotonic() + _READY_SECONDS
        while _status("PUT", f"{self.url}/{BUCKET}") not in (200, 409):
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                raise RuntimeError(f"weed did not start: {(self._folder / 'log.txt').read_text()[-2000:]}")
            time.sleep(0.2)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def _command(self) -> list[str]:
        master, volume, filer, s3 = self._ports
        return [
            *(required_program("weed"), "-logtostderr", "server", "-s3", f"-s3.config={self._folder / 's3.json'}"),
            *(f"-dir={self._folder}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-volume.max=20"),
            *("-master.volumeSizeLimitMB=64", f"-master.port={master}", f"-volume.port={volume}"),
            *(f"-filer.port={filer}", f"-s3.port={s3}"),
            *("-s3.port.iceberg=0", "-s3.port.lance=0"),  # else of the same ports in each process that tests
        ]


@contextmanager
def seaweed_server(folder: Path) -> Iterator[SeaweedServer]:
    """A running server; it is gone afterwards, its files stay.

    Raises:
        FileNotFoundError: it is not installed.
    """
    server = SeaweedServer(folder)
    try:
        yield server
    finally:
        server.kill()


def _status(method: str, url: str) -> int | None:
    """The status of an answer; None where nobody listens."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=5)
    try:
        connection.request(method, parts.path, body=b"")
        return connection.getresponse().status
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()
