"""The HTTP client outside the data plane, against small real servers that answer with given bytes."""

from __future__ import annotations

import contextlib
import gzip
import logging
import socket
import ssl
import sys
import threading

import pytest

from cumulant.core.errors import MissingPartError
from cumulant.core.network.http_client import HttpClient, NoResponseError
from cumulant.testing.certificates import Authority

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nbody"
SECRET = "c0ffee-token"


class RawServer:
    """Gives each request the answer of its path, byte by byte where that is asked for. `heads`: what it was sent."""

    def __init__(self, answers, *, tls=None):
        self.answers, self.heads, self.ended = answers, [], threading.Event()
        self._tls = tls
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._threads = [threading.Thread(target=self._serve)]
        self._threads[0].start()

    @property
    def url(self):
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self._listener.getsockname()[1]}"

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.ended.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(timeout=30)
        self._listener.close()

    def _serve(self):
        with contextlib.suppress(OSError):
            while not self.ended.is_set():
                connection, _ = self._listener.accept()
                self._threads.append(threading.Thread(target=self._answer, args=(connection,)))
                self._threads[-1].start()

    def _answer(self, connection):
        with contextlib.suppress(OSError), connection:
            if self._tls:
                connection = self._tls.wrap_socket(connection, server_side=True)
            with connection:
                head = b""
                while b"\r\n\r\n" not in head:
                    head += connection.recv(65536)
                self.heads.append(head.decode())
                answer = self.answers[head.split()[1].decode()]
                if isinstance(answer, bytes):
                    return connection.sendall(answer)
                for byte in answer:
                    connection.sendall(byte)
                    if self.ended.wait(0.02):
                        return None


def drops(beginning):
    yield beginning
    while True:
        yield b"x"


def redirect(target):
    return f"HTTP/1.1 302 Found\r\nLocation: {target}\r\nContent-Length: 0\r\n\r\n".encode()


def test_a_response_is_its_status_its_headers_and_the_bytes_that_were_sent():
    packed = gzip.compress(b"0" * 1_000_000)
    answer = b"HTTP/1.1 404 No\r\nX-A: b\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(packed) + packed
    with RawServer({"/a%20b?c=%2F": answer}) as server:
        response = HttpClient(seconds=30).get(f"{server.url}/a%20b?c=%2F", {"x-own": "1"})
    assert (response.status, response.ok, response.headers["x-a"]) == (404, False, "b")
    assert response.body == packed, "an answer that grows when it is unpacked has no bound"
    [head] = server.heads
    assert head.startswith("GET /a%20b?c=%2F HTTP/1.1\r\n")
    assert {"x-own: 1", "accept-encoding: identity", "connection: close"} <= {
        line.lower() for line in head.split("\r\n")
    }


@pytest.mark.parametrize(("longest", "body"), [(0, b""), (3, b"bod"), (4, b"body"), (9, b"body"), (None, b"body")])
def test_a_body_is_read_up_to_a_limit(longest, body):
    with RawServer({"/": OK}) as server:
        assert HttpClient(seconds=30, max_bytes=longest).get(server.url).body == body


def test_the_beginning_of_a_body_is_enough_where_it_is_shorter_than_declared():
    answers = {
        "/": OK.replace(b"4", b"9"),
        "/chunked": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody",
    }
    with RawServer(answers) as server:
        assert HttpClient(seconds=30, max_bytes=200).get(server.url).body == b"body"
        for url, longest in ((server.url, None), (f"{server.url}/chunked", 200)):
            with pytest.raises(NoResponseError, match="peer closed connection"):
                HttpClient(seconds=30, max_bytes=longest).get(url)


def test_redirects_are_followed_on_request_on_the_same_host_only():
    with RawServer({"/": OK}) as other, RawServer({"/": redirect("/b"), "/b": redirect("/c?d"), "/c?d": OK}) as server:
        client = HttpClient(seconds=30, follow_redirects=True)
        assert client.get(server.url).body == b"body"
        assert HttpClient(seconds=30).get(server.url).status == 302
        port = other.url.rpartition(":")[2]
        for target in (f"http://localhost:{port}/", "file:///etc/passwd", "http://[", f"ftp://127.0.0.1:{port}/"):
            server.answers["/"] = redirect(target)
            assert client.get(server.url).status == 302
        server.answers["/"] = redirect("/")
        assert client.get(server.url).status == 302, "it goes round"
        assert client.send("POST", server.url, content=b"{}").status == 302
    assert other.heads == []


def test_a_redirect_from_https_leads_to_no_http(tmp_path):
    authority = Authority(tmp_path / "authority")
    with RawServer({"/": OK}) as plain, RawServer({"/": redirect(plain.url)}, tls=context(authority)) as server:
        client = HttpClient(seconds=30, follow_redirects=True, authority=authority.file)
        assert client.get(server.url).status == 302
    assert plain.heads == []


def context(authority):
    made, found = authority.signed("IP:127.0.0.1"), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    found.load_cert_chain(made.certificate, made.private_key)
    return found


def test_a_certificate_is_verified_by_the_authority_or_by_those_of_the_system(tmp_path):
    authority, stranger = Authority(tmp_path / "authority"), Authority(tmp_path / "stranger")
    with RawServer({"/": OK}, tls=context(authority)) as server:
        assert HttpClient(seconds=30, authority=authority.file).get(server.url).ok
        for file in (stranger.file, None):
            with pytest.raises(NoResponseError) as caught:
                HttpClient(seconds=30, authority=file).get(server.url)
            assert "unable to get local issuer certificate" in caught.value.certificate
            with pytest.raises(NoResponseError) as caught:
                HttpClient(seconds=30, authority=str(tmp_path / "missing.pem")).get(server.url)
            assert (caught.value.reason, caught.value.certificate) == ("No such file or directory", "")
    assert len(server.heads) == 1


@pytest.mark.parametrize(
    ("encrypted", "beginning", "status"),
    [
        (False, b"HTTP/1.1 200 OK\r\nX: ", None),
        (True, b"HTTP/1.1 200 OK\r\nX: ", None),
        (False, OK[:-4].replace(b"4", b"999999"), 200),
        (False, b"HTTP/1.1 503 No\r\n\r\n", 503),
    ],
)
def test_the_whole_exchange_is_bounded_where_a_server_answers_byte_by_byte(tmp_path, encrypted, beginning, status):
    authority = Authority(tmp_path / "authority") if encrypted else None
    with RawServer({"/": drops(beginning)}, tls=context(authority) if authority else None) as server:
        client = HttpClient(
            seconds=30, total_seconds=0.3 if status is None else 1.0, authority=authority and authority.file
        )
        with pytest.raises(NoResponseError) as caught:
            client.get(server.url)
    assert (caught.value.reason, caught.value.incomplete) == ("timed out", True)
    assert (caught.value.head and caught.value.head.status) == status


@pytest.mark.parametrize(
    ("bytes_sent", "reason", "incomplete"),
    [
        (b"", "Server disconnected", True),
        (OK[:-1], "peer closed connection", True),
        (b"SSH-2.0\r\n\r\n", "illegal status line", True),
        (b"HTTP/1.1 200 OK\r\nX: " + b"x" * 200_000, "Receive buffer too long", True),
    ],
)
def test_what_is_no_whole_response_is_reported(bytes_sent, reason, incomplete):
    with RawServer({"/": bytes_sent}) as server, pytest.raises(NoResponseError, match=reason) as caught:
        HttpClient(seconds=30).get(server.url)
    assert caught.value.incomplete is incomplete


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("http://127.0.0.1:1/", "Connection refused"),
        ("http://missing.invalid/", "not known|resolution"),
        ("file:///etc/passwd", "UnsupportedProtocol"),
        (f"http://127.0.0.1:port/{SECRET}", "InvalidURL"),
        (f"http://{SECRET}\x00/", "InvalidURL"),
        (f"{SECRET}", "UnsupportedProtocol"),
    ],
)
def test_an_unreachable_server_is_reported_without_its_url(url, reason):
    with pytest.raises(NoResponseError, match=reason) as caught:
        HttpClient(seconds=5).get(url)
    assert SECRET not in caught.value.reason + str(caught.value)


def test_many_heads_end_with_a_server_that_is_silent():
    answer = OK.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")[:-4]
    with RawServer({"/a": answer, "/b": answer.replace(b"200", b"404")}) as server:
        urls = [f"{server.url}/{name}" for name in "abbab"]
        responses, cause = HttpClient(seconds=30).head_all(urls, at_once=2, seconds=60)
        assert ([response.status for response in responses], cause) == ([200, 404, 404, 200, 404], "")
    with socket.create_server(("127.0.0.1", 0), backlog=512) as listener:
        urls = [f"http://127.0.0.1:{listener.getsockname()[1]}/x"] * 1000
        responses, cause = HttpClient(seconds=0.1).head_all(urls, at_once=4, seconds=60)
        assert ({*responses}, cause[1:]) == ({None}, " requests had no response: timed out")
        responses, cause = HttpClient(seconds=60).head_all(urls, at_once=4, seconds=1)
        assert ({*responses}, cause) == ({None}, "the server took longer than 1 s")


def test_no_url_and_no_header_of_ours_is_logged(caplog):
    caplog.set_level(logging.DEBUG)
    with RawServer({f"/{SECRET}": OK}) as server:
        HttpClient(seconds=30).get(f"{server.url}/{SECRET}", {"authorization": SECRET})
    assert caplog.records, "httpx's transport says what it does"
    assert SECRET not in caplog.text


def test_proxies_of_the_environment_are_used_on_request(monkeypatch):
    for name in ("no_proxy", "NO_PROXY", "http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with RawServer({"http://models.invalid/": OK, "/": OK}) as proxy:
        monkeypatch.setenv("http_proxy", proxy.url.removeprefix("http://").replace("127", "ada:pw@127"))
        client = HttpClient(seconds=30, use_proxies=True)
        assert client.get("http://models.invalid/").body == b"body"
        assert "Proxy-Authorization: Basic YWRhOnB3" in proxy.heads[0]
        assert HttpClient(seconds=30).get(proxy.url).ok
        monkeypatch.setenv("no_proxy", "models.invalid,127.0.0.1")
        assert client.get(proxy.url).ok
        with pytest.raises(NoResponseError):
            client.get("http://models.invalid/")
        assert [head.split()[1] for head in proxy.heads] == ["http://models.invalid/", "/", "/"]
        monkeypatch.delenv("no_proxy")
        monkeypatch.setenv("http_proxy", "socks5://127.0.0.1:1")
        with pytest.raises(NoResponseError, match="speaks no HTTP"):
            client.get("http://models.invalid/")


def test_without_httpx_the_line_that_installs_it_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "httpx", None)
    with pytest.raises(MissingPartError) as caught:
        HttpClient(seconds=1).get("http://127.0.0.1:1")
    assert caught.value.hint == 'pip install "cumulant[train]"'
