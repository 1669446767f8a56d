"""A small schema registry for tests: the documented REST API of Confluent's, in this process, on a loopback port.

It is no product: it keeps what it is sent and checks no compatibility. Schemas of Protobuf are stored and returned as
Confluent's Python serializer sends them, which is what a registry returns for `format=serialized`; it parses no .proto.
"""

from __future__ import annotations

import base64
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

_BY_ID = re.compile(r"/schemas/ids/(\d+)")
_VERSION = re.compile(r"/subjects/([^/]+)/versions/(\w+)")
_VERSIONS = re.compile(r"/subjects/([^/]+)/versions")
_SUBJECT = re.compile(r"/subjects/([^/]+)")

Schema = dict[str, Any]


class SchemaRegistry:
    """What the registry knows, and how it answers. `user`, `password`: required where they are set; `status`: of every
    answer, where it is set; `asked`: the paths of GET requests so far.
    """

    def __init__(self) -> None:
        self.url = ""
        self.user: str | None = None
        self.password = ""
        self.status: int | None = None
        self.asked: list[str] = []
        self.schemas: list[Schema] = []
        self._subjects: dict[str, list[int]] = {}
        self._lock = threading.Lock()

    @property
    def location(self) -> str:
        """The URL of the driver."""
        return f"confluent+{self.url}"

    def register(self, subject: str, text: str, kind: str = "AVRO", references: list[Schema] | None = None) -> int:
        """Add a version of a subject, and return the number of its schema, which begins at 1."""
        schema: Schema = {"schema": text, "references": references or []}
        if kind != "AVRO":
            schema["schemaType"] = kind
        with self._lock:
            if schema not in self.schemas:
                self.schemas.append(schema)
            number = self.schemas.index(schema) + 1
            versions = self._subjects.setdefault(subject, [])
            if number not in versions:
                versions.append(number)
        return number

    def answer(self, method: str, path: str, body: bytes) -> tuple[int, Any]:
        """The status and the document of the answer to a request."""
        if method == "POST":
            return self._post(path, json.loads(body))
        if by_id := _BY_ID.fullmatch(path):
            number = int(by_id[1])
            known = 0 < number <= len(self.schemas)
            return (200, self.schemas[number - 1]) if known else _fault(40403, "Schema not found")
        if version := _VERSION.fullmatch(path):
            versions = self._subjects.get(unquote(version[1]), [])
            place = len(versions) if version[2] == "latest" else int(version[2])
            if not versions:
                return _fault(40401, "Subject not found")
            if not 0 < place <= len(versions):
                return _fault(40402, "Version not found")
            return 200, self._registered(unquote(version[1]), versions[place - 1])
        return 404, "no such page"

    def _post(self, path: str, document: Schema) -> tuple[int, Any]:
        kind, references = document.get("schemaType") or "AVRO", document.get("references") or []
        if adding := _VERSIONS.fullmatch(path):
            number = self.register(unquote(adding[1]), document["schema"], kind, references)
            return 200, self._registered(unquote(adding[1]), number)
        if looking := _SUBJECT.fullmatch(path):
            for number in self._subjects.get(unquote(looking[1]), []):
                if self.schemas[number - 1]["schema"] == document["schema"]:
                    return 200, self._registered(unquote(looking[1]), number)
        return _fault(40403, "Schema not found")

    def _registered(self, subject: str, number: int) -> Schema:
        version = self._subjects[subject].index(number) + 1
        return self.schemas[number - 1] | {"id": number, "subject": subject, "version": version}

    def accepts(self, authorization: str | None) -> bool:
        if self.user is None:
            return True
        pair = base64.b64encode(f"{self.user}:{self.password}".encode()).decode()
        return authorization == f"Basic {pair}"


def _fault(code: int, message: str) -> tuple[int, Any]:
    return code // 100, {"error_code": code, "message": message}


@contextmanager
def schema_registry(port: int = 0) -> Iterator[SchemaRegistry]:
    """A running registry; it is gone afterwards."""
    registry = SchemaRegistry()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            path = urlsplit(self.path).path
            registry.asked.append(self.path)
            self._answer("GET", path, b"")

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length") or 0))
            self._answer("POST", urlsplit(self.path).path, body)

        def _answer(self, method: str, path: str, body: bytes) -> None:
            if not registry.accepts(self.headers.get("authorization")):
                status, document = 401, {"error_code": 40101, "message": "Unauthorized"}
            elif registry.status is not None:
                status, document = registry.status, {"error_code": registry.status * 100, "message": "as it is set"}
            else:
                status, document = registry.answer(method, path, body)
            content = json.dumps(document).encode()
            self.send_response(status)
            self.send_header("content-type", "application/vnd.schemaregistry.v1+json")
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            """Nothing is printed."""

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    server.daemon_threads = True
    registry.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield registry
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
