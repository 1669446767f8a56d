"""Addresses of servers, which a command or another machine names."""

import pytest

from cumulant.core.errors import UsageError
from cumulant.drivers.envoy.clusters import parse_endpoint


@pytest.mark.parametrize(
    "url",
    [
        "http://a:99999",
        "http://a:port",
        "http://a:0",
        "http://[::1",
        "http://:1",
        "ftp://a:1",
        "http://a:1/x",
        "a:1",
        "",
    ],
)
def test_what_is_no_address_of_a_server_is_refused(url):
    with pytest.raises(UsageError, match="is no address of a server"):
        parse_endpoint(url)


@pytest.mark.parametrize(
    ("url", "host", "port"),
    [("http://127.0.0.1:9001", "127.0.0.1", 9001), ("https://a", "a", None), ("http://[::1]:1/", "::1", 1)],
)
def test_addresses_of_servers(url, host, port):
    place = parse_endpoint(url)
    assert (place.hostname, place.port) == (host, port)
