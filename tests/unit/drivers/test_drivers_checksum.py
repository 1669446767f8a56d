"""A bucket with object lock refuses an upload without a checksum, which the client sends where it is told to."""

from __future__ import annotations

import base64
import hashlib
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from cumulant.drivers.objectstore.bucket import open_bucket
from cumulant.testing.secrets import MemorySecrets


class Recorder(ThreadingHTTPServer):
    """Has the heads and bodies of uploads."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.uploads = []


class Handler(BaseHTTPRequestHandler):
    def do_PUT(self):  # the name that the library calls
        assert isinstance(self.server, Recorder)
        body = self.rfile.read(int(self.headers["content-length"]))
        self.server.uploads.append((dict(self.headers.items()), body))
        self.send_response(200)
        self.send_header("ETag", '"1"')
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    with Recorder() as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield running
        running.shutdown()


@pytest.mark.parametrize("algorithm", [None, "SHA256"])
def test_uploads_have_the_checksum_that_the_settings_name(server, tmp_path, algorithm):
    settings = {
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{server.server_port}",
    }
    bucket = open_bucket(
        "s3://locked/audit",
        MemorySecrets(settings | ({"AWS_CHECKSUM_ALGORITHM": algorithm} if algorithm else {})),
    )
    (tmp_path / "note").write_bytes(b"signed")
    bucket.upload("note", tmp_path / "note")
    bucket.create("record", b"signed")
    checksum = base64.b64encode(hashlib.sha256(b"signed").digest()).decode()
    assert [body for _, body in server.uploads] == [b"signed"] * 2
    for headers, _ in server.uploads:
        found = {name.lower(): value for name, value in headers.items()}
        assert found.get("x-amz-checksum-sha256") == (checksum if algorithm else None)
