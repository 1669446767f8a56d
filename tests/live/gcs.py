"""The XML API of Google Cloud Storage over a server that speaks S3.

No emulator that can be installed takes the uploads of the XML API, which is what the client of `gs://` speaks:
gcp-storage-emulator 2026.7.19 answers HEAD and a list with 501, fake-gcs-server answers PUT and a multipart upload
with 400 "invalid uploadType". Google's XML API is S3's in all but names, so the names are translated here. What this
cannot show: Google's own sign-in, and how Google itself decides a precondition.
"""

import http.client
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

KEPT = {"content-type", "range", "if-match", "if-none-match", "content-md5"}
ONLY_NEW = "x-goog-if-generation-match"
HOP = {"transfer-encoding", "connection", "server", "date", "content-length"}


@contextmanager
def gcs_over(s3):
    """The address of a server that takes Google's requests for what lies behind the S3 server `s3`."""

    class Door(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def translate(self):
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            headers = {name: value for name, value in self.headers.items() if name.lower() in KEPT}
            if self.headers.get(ONLY_NEW) == "0":
                headers["if-none-match"] = "*"
            behind = http.client.HTTPConnection(urlsplit(s3).netloc, timeout=30)
            behind.request(self.command, self.path, body, headers)
            answer = behind.getresponse()
            content = answer.read()
            self.send_response(answer.status)
            for name, value in answer.getheaders():
                if name.lower() not in HOP:
                    self.send_header(name, value)
            length = answer.getheader("content-length") if self.command == "HEAD" else None
            self.send_header("content-length", length or str(len(content)))
            self.end_headers()
            self.wfile.write(content)
            behind.close()

        do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = translate

        def log_message(self, *_):
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Door)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
