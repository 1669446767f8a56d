"""Small real servers that say which outputs they have, and projects whose clients are in memory."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import msgspec

from cumulant.core.traffic import Arm, Routes
from cumulant.flows.stack.desired_state import DesiredState, ServedVersion, change_desired_state
from cumulant.project.file.loading import load
from cumulant.project.project import Project
from cumulant.testing.clock import ManualClock
from cumulant.testing.journal import MemoryJournal
from cumulant.testing.registry import MemoryRegistry
from cumulant.testing.traffic import MemoryTraffic

NUMBER = ({"name": "prediction", "datatype": "FP64", "shape": [-1]},)


class Server:
    """`outputs` are those of every model; `posted` is what it was sent; `documents` answer GET by path."""

    def __init__(self) -> None:
        self.outputs = list(NUMBER)
        self.posted: list[object] = []
        self.documents: dict[str, object] = {}
        self.status = self.shown = 200
        #: without it nobody sees the outputs
        self.token = ""
        self.url = ""


@contextmanager
def serving() -> Iterator[Server]:
    mine = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            if mine.token and self.headers["authorization"] != f"Bearer {mine.token}":
                self._answer(401, {})
            else:
                self._answer(mine.shown, mine.documents.get(path, {"name": "late", "outputs": mine.outputs}))

        def do_POST(self) -> None:
            mine.posted.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
            self._answer(mine.status, {})

        def _answer(self, status: int, value: object) -> None:
            body = json.dumps(value).encode()
            self.send_response(status)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        mine.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        try:
            yield mine
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def project(folder: Path, text: str = "", *, clock: ManualClock) -> Iterator[Project]:
    """A project named late; journal, registry and gateway are in memory."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "cumulant.yaml").write_text(
        "version: 1\n" + (text if "model:" in text else f"model: {{name: late}}\n{text}")
    )
    with load(folder, variables={"CUMULANT_USER": "ada", "CUMULANT_GROUPS": "risk, ops"}) as found:
        journal, registry, traffic = MemoryJournal(clock=clock), MemoryRegistry(), MemoryTraffic()
        found.journal = lambda: journal
        found.registry = lambda: registry
        found.gateway = lambda: traffic
        yield found


def port(url: str) -> int:
    return int(url.rpartition(":")[2])


def served(found: Project, champion: str, **versions: str) -> DesiredState:
    """Versions `v1=URL, v2=URL` in the book, each once the champion, and all requests on the present one."""
    known = {
        name[1:]: ServedVersion(version=name[1:], command=("serve",), port=port(url)) for name, url in versions.items()
    }

    def change(book: DesiredState) -> DesiredState:
        return msgspec.structs.replace(book, champion=champion, versions=known, champions=tuple(known))

    book = change_desired_state(found.state, found.name, change)
    arm = Arm(name="champion", version=champion, endpoints=(known[champion].endpoint,))
    found.gateway().apply(Routes(model=found.name, revision=1, champion=arm))
    return book
