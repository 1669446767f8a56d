"""Which `Host` and `Origin` a server believes."""

from __future__ import annotations

import pytest

from cumulant.core.errors import UsageError
from cumulant.core.network.hosts import Hosts, host_name

LOCAL, NAMED = Hosts(local=True), Hosts(["models.example"], local=True)


@pytest.mark.parametrize(
    "host",
    [
        b"127.0.0.1:8080",
        b"127.0.0.1",
        b"localhost:1",
        b"LocalHost",
        b"[::1]:8080",
        b"[::1]",
        b"127.8.8.8:1",
        None,
        b"app.localhost:3000",
        b"localhost.",
        b"LOCALHOST.:80",
        b"[::ffff:127.0.0.1]:1",
        b"[0:0::1]",
    ],
)
def test_names_of_loopback_are_let_in(host):
    assert LOCAL.fault(host, None) is None
    assert LOCAL.fault(host, None) is None


@pytest.mark.parametrize(
    "host",
    [
        b"evil.example",
        b"evil.example:8080",
        b"127.0.0.1.evil.example",
        b"localhost.evil.example",
        b"10.0.0.7:8080",
        b"",
        b"evil.example@127.0.0.1.evil.example",
        b"127.0.0.1@evil.example",
        b"[::1",
        b"0.0.0.0",
        b"\xff",
        b"::1",
        b"models.example",
        b"notlocalhost",
        b"localhost..",
        b"[::ffff:10.0.0.7]",
        b".localhost.evil.example",
    ],
)
def test_a_name_that_was_made_to_lead_here_is_refused(host):
    assert "on loopback" in LOCAL.fault(host, None)


def test_other_names_are_those_that_were_declared():
    assert NAMED.fault(b"MODELS.example:443", None) is None
    assert NAMED.fault(b"other.models.example", None) is not None
    assert Hosts(["*"], local=True).fault(b"anything", None) is None
    assert Hosts(local=False).fault(b"10.0.0.7:8080", None) is None


@pytest.mark.parametrize(
    ("declared", "host"),
    [
        ("ML.example.com:8443", b"ml.example.com:8443"),
        ("ml.example.com:8443", b"ml.example.com"),
        ("ml.example.com.", b"ml.example.com:8443"),
        ("ml.example.com", b"ml.example.com.:8443"),
        ("[fd00::1]", b"[fd00::1]:8080"),
        ("[FD00:0::1]:8080", b"[fd00::1]"),
        ("fd00::1", b"[fd00::1]:8080"),
        ("10.0.0.7:80", b"10.0.0.7:8080"),
    ],
)
def test_a_declared_name_is_the_host_with_or_without_its_port(declared, host):
    hosts = Hosts([declared], local=True)
    assert hosts.fault(host, None) is None
    assert hosts.fault(b"127.0.0.1:1", b"https://" + host) is None
    assert hosts.fault(b"evil.example", None) is not None
    assert host_name(host_name(declared)) == host_name(declared)


@pytest.mark.parametrize(
    "declared",
    [
        "https://ml.example.com",
        "",
        ":80",
        "[fd00::1",
        "a b",
        "ml.example.com/x",
        "me@ml.example.com",
        "é.example",
        "ml.example.com:x",
        "//ml.example.com",
        ".",
    ],
)
def test_a_declared_name_that_could_never_match_is_refused(declared):
    with pytest.raises(UsageError, match="is no host"):
        Hosts([declared], local=True)


@pytest.mark.parametrize("hosts", [LOCAL, Hosts(["*"], local=True), Hosts(local=False)])
@pytest.mark.parametrize(
    "origin",
    [
        b"https://evil.example",
        b"null",
        b"",
        b"http://127.0.0.1:8081",
        b"http://127.0.0.1",
        b"https://127.0.0.1.evil.example",
        b"http://127.0.0.1:8080@evil.example",
        b"file://",
        b"http://[::1",
        b"http://127.0.0.1:x",
        b"\xff://\xff",
    ],
)
def test_pages_of_other_origins_are_refused(hosts, origin):
    assert "another origin" in hosts.fault(b"127.0.0.1:8080", origin)


@pytest.mark.parametrize(
    ("host", "origin"),
    [
        (b"127.0.0.1:8080", b"http://127.0.0.1:8080"),
        (b"localhost", b"http://localhost"),
        (b"LOCALHOST:80", b"http://localhost"),
        (b"models.example", b"https://models.example"),
        (b"models.example:443", b"https://models.example"),
        (b"127.0.0.1:8080", b"https://models.example:8443"),
    ],
)
def test_its_own_pages_and_those_of_a_declared_site_may_call(host, origin):
    assert NAMED.fault(host, origin) is None


def test_a_request_without_host_has_no_origin_of_its_own():
    assert LOCAL.fault(None, b"http://127.0.0.1") is not None


def test_what_is_remembered_is_bounded():
    hosts = Hosts(local=True)
    for port in range(1000):
        assert hosts.fault(b"127.0.0.1:%d" % port, None) is None
    assert len(hosts._known) <= 256
