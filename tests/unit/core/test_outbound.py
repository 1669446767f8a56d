"""Where requests may go: real servers on loopback, and names that lead to other addresses."""

from __future__ import annotations

import socket
import threading
from ipaddress import ip_address

import pytest

from cumulant.core.errors import EngineUnavailableError, UsageError
from cumulant.core.network.http_client import HttpClient, NoResponseError
from cumulant.core.network.outbound import VARIABLE, Destination, OutboundRefusedError, outbound_hosts
from cumulant.drivers.webhook.posting import WebhookTarget, post

CLIENT = HttpClient(seconds=20, total_seconds=20)


@pytest.fixture
def server():
    """A server on loopback that answers every request; `received`: their first lines."""
    received: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    received.append(connection.recv(65_536).partition(b"\r\n")[0])
                    if received[-1]:
                        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

        thread = threading.Thread(target=serve)
        thread.start()
        yield listener.getsockname()[1], received
        listener.shutdown(socket.SHUT_RDWR)
    thread.join(20)


@pytest.fixture
def named(monkeypatch):
    """Names that lead to addresses of the test, as a name server of an attacker would say."""
    known: dict[str, str] = {}
    look_up = socket.getaddrinfo

    def answer(host, port, *arguments, **options):
        text = host.decode() if isinstance(host, bytes) else host
        return look_up(known.get(text, text), port, *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", answer)
    return known


@pytest.mark.parametrize(
    "host",
    [
        "169.254.169.254",
        "169.254.170.2",
        "[fe80::1]",
        "[fe80::1%25eth0]",
        "[::ffff:169.254.169.254]",
        "[64:ff9b::169.254.169.254]",
        "[2002:a9fe:a9fe::]",
        "[::169.254.169.254]",
        "[fd00:ec2::254]",
        "[fd20:ce::254]",
        "[fd00:c1::a9fe:a9fe]",
        "192.0.0.192",
        "168.63.129.16",
        "100.100.100.200",
    ],
)
def test_link_local_addresses_get_no_request(host):
    """Where clouds serve the credentials of a machine; as a number no connection is made at all."""
    url = f"http://{host}/latest/meta-data/iam/security-credentials/"
    with pytest.raises(NoResponseError, match="link-local addresses are refused"):
        CLIENT.get(url)
    with pytest.raises(NoResponseError, match="link-local addresses are refused"):
        HttpClient(seconds=1, use_proxies=True).get(url)
    with pytest.raises(EngineUnavailableError, match="link-local addresses are refused"):
        post(WebhookTarget(f"webhook+{url}", "webhook+"), {}, key="k", seconds=20)


def test_a_name_that_leads_to_a_refused_address_gets_no_request(server, named, monkeypatch):
    """The connection is made, since a name may lead anywhere by then, and closed before a byte is sent."""
    port, received = server
    named["rebound.example"] = "127.0.0.1"
    monkeypatch.setattr("cumulant.core.network.outbound._METADATA", {ip_address("127.0.0.1")})
    with pytest.raises(NoResponseError, match="link-local"):
        CLIENT.get(f"http://rebound.example:{port}/secret")
    assert b"".join(received) == b""


def test_hosts_outside_of_the_list_get_no_request(server, named, monkeypatch):
    port, received = server
    named |= {"hooks.example.com": "127.0.0.1", "a.b.example.org": "127.0.0.1", "evil.example": "127.0.0.1"}
    named |= {"evilexample.org": "127.0.0.1", "example.org": "127.0.0.1"}
    monkeypatch.setenv(VARIABLE, "hooks.example.com, *.example.org")
    for host in ("hooks.example.com", "HOOKS.example.com", "a.b.example.org", "127.0.0.1", "localhost"):
        assert CLIENT.get(f"http://{host}:{port}/").body == b"ok", host
    count = len(received)
    for host in ("evil.example", "evilexample.org", "example.org", "hooks.example.com.evil.example", "10.0.0.1"):
        with pytest.raises(NoResponseError, match=f"not listed in {VARIABLE}"):
            CLIENT.get(f"http://{host}:{port}/")
    assert len(received) == count


def test_networks_of_the_list_are_those_of_connections(server, named, monkeypatch):
    """A name that is not listed may be reached in a listed network, and is not where it leads elsewhere."""
    port, _ = server
    named |= {"receiver.internal": "127.0.0.1"}
    monkeypatch.setenv(VARIABLE, "127.0.0.0/8")
    assert CLIENT.get(f"http://receiver.internal:{port}/").ok
    hosts = outbound_hosts({VARIABLE: "10.0.0.0/8"})
    reached = Destination("http://receiver.internal/", hosts, through_proxy=False)
    for address, listed in (("10.1.2.3", True), ("192.168.0.1", False), ("8.8.8.8", False)):
        info = {"return_value": Connection(address)}
        if listed:
            reached.on_event("connection.connect_tcp.complete", info)
            continue
        with pytest.raises(OutboundRefusedError):
            reached.on_event("connection.connect_tcp.complete", info)
        assert info["return_value"].closed
    with pytest.raises(OutboundRefusedError):
        Destination("http://receiver.internal/", hosts, through_proxy=True)


class Connection:
    """What httpx reports of a connection."""

    closed = False

    def __init__(self, address: str) -> None:
        self._address = address

    def get_extra_info(self, name: str) -> tuple[str, int]:
        assert name == "server_addr"
        return self._address, 80

    def close(self) -> None:
        self.closed = True


def test_a_redirect_leads_to_no_other_host(server, monkeypatch):
    """Not followed at all by posts; by reads on the same host alone, which test_http_client shows."""
    port, _ = server
    monkeypatch.setenv(VARIABLE, "hooks.example.com")
    assert post(WebhookTarget(f"webhook+http://127.0.0.1:{port}/", "webhook+"), {}, key="k", seconds=20) == "ok"


@pytest.mark.parametrize("text", ["http://x", "*", "a*b", "x/8", "a b/c", "*.*.example.com"])
def test_entries_that_name_no_hosts_are_refused(text):
    with pytest.raises(UsageError):
        outbound_hosts({VARIABLE: text})


def test_without_a_list_every_host_may_be_reached():
    assert outbound_hosts({}) is None
    assert outbound_hosts({VARIABLE: " , "}) is None
