"""The proxy that makes a service slow and unreliable: what is passed on, refused and lost."""

import http.client
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar
from urllib.parse import urlsplit

import pytest

from cumulant.testing.servers.fault_proxy import FaultProxy


class Echo(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    received: ClassVar = []

    def _answer(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.received.append((self.command, self.path, self.headers["Host"], body))
        self.send_response(200)
        self.send_header("Content-Length", "5")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(b"hello")

    do_GET = do_PUT = do_HEAD = _answer

    def log_message(self, *_):
        pass


@pytest.fixture
def service():
    Echo.received = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), Echo)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    thread.join()
    server.server_close()


def connect(proxy):
    return http.client.HTTPConnection(urlsplit(proxy.url).netloc, timeout=10)


def call(connection, method="GET", path="/a?b=c", body=None, headers=None):
    connection.request(method, path, body=body, headers=headers or {})
    response = connection.getresponse()
    return response.status, response.read()


def test_calls_are_passed_on_unchanged(service):
    with FaultProxy(service) as proxy:
        connection = connect(proxy)
        assert call(connection, headers={"Host": "bucket.test"}) == (200, b"hello")
        assert call(connection, "PUT", "/object", iter([b"one", b"two"])) == (200, b"hello")  # chunks
        connection.request("HEAD", "/object")
        response = connection.getresponse()
        assert (response.headers["Content-Length"], response.read()) == ("5", b"")
        connection.close()
    assert Echo.received[0] == ("GET", "/a?b=c", "bucket.test", b"")
    assert [(method, body) for method, _, _, body in Echo.received[1:]] == [("PUT", b"onetwo"), ("HEAD", b"")]
    assert (proxy.calls, proxy.faults) == (3, 0)


def test_every_third_call_is_refused(service):
    with FaultProxy(service, every=3) as proxy:
        connection = connect(proxy)
        assert [call(connection)[0] for _ in range(6)] == [200, 200, 503, 200, 200, 503]
        connection.close()
    assert len(Echo.received) == 4


def test_an_answer_is_lost_after_the_call_was_passed_on(service):
    with FaultProxy(service, lost=1.0) as proxy, pytest.raises(http.client.RemoteDisconnected):
        call(connect(proxy), "PUT", "/object", b"x")
    assert [(method, body) for method, _, _, body in Echo.received] == [("PUT", b"x")]


def test_faults_are_limited_to_paths(service):
    with FaultProxy(service, refused=1.0) as proxy:
        proxy.faulty_path = "/log/"
        connection = connect(proxy)
        assert [call(connection, path=path)[0] for path in ("/store/a", "/log/a")] == [200, 503]
        connection.close()
