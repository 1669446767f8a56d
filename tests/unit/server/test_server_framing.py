"""Requests whose end could be read in two ways, and what follows them on a connection: each is refused or read once."""

from __future__ import annotations

import re
import socket
from contextlib import suppress
from urllib.parse import urlsplit

import pytest
from api_server import serving

from cumulant.project.file.loading import load
from cumulant.server.handler import MOST_BYTES

SMUGGLED = "GET /v1/projects/churn/smuggled HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"
HEAD = "POST /v1/projects/churn/models/train HTTP/1.1\r\nHost: h\r\n"


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    folder = tmp_path_factory.mktemp("churn")
    (folder / "cumulant.yaml").write_text("version: 1\nmodel: {name: churn}\n")
    with load(folder) as project, serving({"churn": project}) as url:
        yield urlsplit(url).hostname, urlsplit(url).port


def exchange(address, request: str) -> str:
    """All that the server answers until it closes the connection; of one with unread bytes that may be nothing."""
    received = b""
    with socket.create_connection(address, timeout=30) as connection, suppress(ConnectionError):
        connection.sendall(request.encode("latin-1"))
        while part := connection.recv(65_536):
            received += part
    return received.decode("latin-1")


AMBIGUOUS = {
    "two lengths": f"{HEAD}Content-Length: 5\r\nContent-Length: 60\r\n\r\n{{}}   {SMUGGLED}",
    "lengths in one line": f"{HEAD}Content-Length: 5, 60\r\n\r\n{{}}   {SMUGGLED}",
    "a signed length": f"{HEAD}Content-Length: +2\r\n\r\n{{}}{SMUGGLED}",
    "a length in hexadecimal": f"{HEAD}Content-Length: 0x2\r\n\r\n{{}}{SMUGGLED}",
    "an unknown coding": f"{HEAD}Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n{SMUGGLED}",
    "a coding and another": f"{HEAD}Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n{SMUGGLED}",
    "a space before the colon": f"{HEAD}Content-Length : 2\r\n\r\n{{}}{SMUGGLED}",
    "a chunk size that is none": f"{HEAD}Transfer-Encoding: chunked\r\n\r\n-2\r\n{{}}\r\n0\r\n\r\n{SMUGGLED}",
    "no host": "GET /v1 HTTP/1.1\r\n\r\n",
    "two hosts": "GET /v1 HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
    "a byte that ends lines alone": f"{HEAD}X: a\rContent-Length: 2\r\n\r\n{{}}",
    "a null": "GET /v1 HTTP/1.1\r\nHost: h\r\nX: a\0b\r\n\r\n",
}


@pytest.mark.parametrize("request_text", AMBIGUOUS.values(), ids=AMBIGUOUS)
def test_what_could_be_read_in_two_ways_is_refused_and_nothing_behind_it_is_read(address, request_text):
    answer = exchange(address, request_text)
    statuses = re.findall(r"^HTTP/1\.1 (\d+)", answer, re.MULTILINE)
    assert statuses in (["400"], ["501"]), answer


@pytest.mark.parametrize("prefix", ["/v1/projects/churn", "/v1/%70rojects/churn"])
@pytest.mark.parametrize(("name", "read"), [("%%36%31", "%61"), ("%2561", "%61"), ("a%2Fb", "a/b"), ("%61", "a")])
def test_a_name_in_a_path_is_decoded_once(address, prefix, name, read):
    answer = exchange(address, f"GET {prefix}/runs/{name} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
    assert f'"subject":"{read}"' in answer


def test_a_header_in_two_lines_is_one(address):
    """RFC 9112: its lines are joined, so that the second one is no header of its own."""
    head = "GET /v1/health/live HTTP/1.1\r\nHost: h\r\nX: a\r\n Content-Length: 2\r\n\r\n"
    answer = exchange(address, f"{head}{{}}{SMUGGLED}")
    assert re.findall(r"^HTTP/1\.1 (\d+)|}HTTP/1\.1 (\d+)", answer, re.MULTILINE) == [("200", ""), ("", "400")]


def test_a_coding_goes_before_a_length(address):
    """RFC 9112: the body ends with its last chunk, whatever the length says."""
    text = f"{HEAD}Content-Length: 60\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n[]\r\n0\r\n\r\n"
    answer = exchange(address, text + "GET /v1/health/live HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
    assert answer.startswith("HTTP/1.1 400"), "no body of a training"
    assert answer.endswith('{"live":true}')


def test_a_head_without_end_is_bounded(address):
    answer = exchange(address, f"GET /v1 HTTP/1.1\r\nHost: h\r\nX: {'a' * 200_000}\r\n\r\n")
    assert answer == "" or answer.startswith("HTTP/1.1 400")
    live = exchange(address, "GET /v1/health/live HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
    assert live.endswith('{"live":true}')


def test_a_body_that_is_too_large_is_refused(address):
    """Of one that says so, and of one that does not say how long it is."""
    large = "9" * (MOST_BYTES + 1)
    lengths = (
        f"Content-Length: {len(large)}\r\n\r\n{large}",
        f"Transfer-Encoding: chunked\r\n\r\n{len(large):x}\r\n{large}",
    )
    for rest in lengths:
        answer = exchange(address, f"{HEAD}Connection: close\r\n{rest}")
        assert answer.startswith("HTTP/1.1 413"), rest[:40]
        assert "larger than 1 MiB" in answer
