"""Properties of what strangers write: paths to go on to, origins, forwarded addresses, tokens and cookies."""

from __future__ import annotations

import asyncio
import ipaddress
from urllib.parse import urljoin, urlsplit

from hypothesis import example, given
from hypothesis import strategies as st
from starlette.requests import Request

from cumulant.flows.identities.records import secret_hash
from cumulant.server.sign_in.cross_site import csrf_token, is_token, origin_fault
from cumulant.server.sign_in.local_paths import local_path, login_path
from cumulant.server.sign_in.proxy_headers import ProxyHeaders

OWN = "https://console.example.com"
PARTS = st.sampled_from(
    [
        "/",
        "//",
        "\\",
        "/\\",
        ":",
        "@",
        "evil.example",
        "https:",
        "javascript:",
        "\t",
        "\r\n",
        "?",
        "#",
        "..",
        "%2f",
        "a",
    ]
)
TARGETS = st.text(max_size=60) | st.lists(PARTS, max_size=8).map("".join)


def as_a_browser_reads(location: str) -> str:
    """The WHATWG rules that lead elsewhere: tabs and line ends vanish, a backslash is a slash."""
    shown = location.strip("".join(map(chr, range(33))))
    return "".join("/" if letter == "\\" else letter for letter in shown if letter not in "\t\r\n")


@given(TARGETS)
@example("/\t/evil.example")
@example("/\\evil.example")
@example("//evil.example/%2f..")
def test_no_target_leaves_this_server(target):
    for path in (local_path(target), login_path(target)):
        assert path.startswith("/")
        assert path.isascii()
        assert path.isprintable()
        assert urlsplit(urljoin(f"{OWN}/login", as_a_browser_reads(path))).netloc == "console.example.com"
    assert local_path(local_path(target)) == local_path(target)


def request_with(origin: str) -> Request:
    headers = [(b"host", b"console.example.com"), (b"origin", origin.encode("latin-1", "replace"))]
    return Request({"type": "http", "method": "POST", "scheme": "https", "path": "/", "headers": headers})


@given(st.text(max_size=40) | st.lists(PARTS | st.just("console.example.com"), max_size=8).map("".join))
@example("https://console.example.com@evil.example")
@example("https://console.example.com.evil.example")
@example("https://evil.example/https://console.example.com")
def test_only_our_origin_is_ours(origin):
    ours = origin_fault(request_with(origin), "") == ""
    if ours:
        assert urlsplit(origin.encode("latin-1", "replace").decode("latin-1")).hostname == "console.example.com"
    assert origin_fault(request_with(OWN), "") == ""
    assert origin_fault(request_with(f"{OWN}:443"), OWN) == ""


ADDRESSES = st.ip_addresses().map(str)


@given(st.lists(ADDRESSES | st.text(max_size=12), max_size=6), ADDRESSES)
def test_nobody_makes_a_proxy_believe_another_address(written, caller):
    """Whatever a caller writes, behind one declared proxy the address is the one that the proxy saw."""
    proxies = [ipaddress.ip_network("10.0.0.0/24")]
    seen = []

    async def application(scope, receive, send):
        del receive, send
        seen.append(scope["client"][0])
        assert not [name for name, _ in scope["headers"] if name.startswith(b"x-forwarded")]

    chain = ", ".join([*written, caller]).encode("utf-8")
    scope = {"type": "http", "client": ("10.0.0.7", 1), "headers": [(b"x-forwarded-for", chain)], "scheme": "http"}
    asyncio.run(ProxyHeaders(application, proxies)(scope, None, None))
    if not any(ipaddress.ip_address(caller) in network for network in proxies):
        assert seen == [caller]


@given(st.text(), st.text())
def test_a_csrf_token_is_of_one_secret(given_token, secret):
    assert is_token(csrf_token(secret), secret)
    assert is_token(given_token, secret) == (given_token == csrf_token(secret))


@given(st.text(max_size=300), st.text(max_size=300))
@example("a" * 256, "a" * 257)
@example("\udc80", "?")
def test_hashes_of_different_secrets_differ(one, two):
    assert (secret_hash(one) == secret_hash(two)) == (one[:257] == two[:257])
