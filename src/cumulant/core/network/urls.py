"""URLs of servers: to which credentials may be sent, or from which they may be believed."""

from __future__ import annotations

import ipaddress
import re
from urllib.parse import urlsplit

from cumulant.core.errors import UsageError
from cumulant.core.network.hosts import is_loopback


def is_secure_url(url: str, *, path: bool = True, query: bool = False) -> bool:
    """Whether it is the URL of a host, by HTTPS or on loopback, without a user; `path`, `query`: it may have one."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname or "", parts.port
    except ValueError:
        return False
    refused = (
        parts.username is not None,
        bool(parts.query) and not query,
        parts.fragment,
        "" if path else parts.path.strip("/"),
    )
    if not host or any(refused) or not url.isascii() or not url.isprintable():
        return False
    return parts.scheme == "https" or (parts.scheme == "http" and is_loopback(host))


_NAME = r"[._-]*[A-Za-z0-9][A-Za-z0-9._-]*"
_HOST = re.compile(rf"(?P<host>\[(?P<address>[0-9A-Fa-f:.]+)\]|{_NAME})(:(?P<port>[0-9]{{1,5}}))?")


def host_port(text: str, default: int) -> str | None:
    """`HOST:PORT` of `HOST[:PORT]`, an address of IPv6 in brackets; None: it is neither, or no such port is."""
    match = _HOST.fullmatch(text)
    if match is None or (match["address"] and not _is_ipv6(match["address"])):
        return None
    port = int(match["port"] or default)
    return f"{match['host']}:{port}" if 0 < port < 1 << 16 else None


def _is_ipv6(text: str) -> bool:
    try:
        ipaddress.IPv6Address(text)
    except ValueError:
        return False
    return True


_PLACEHOLDER = re.compile(r"\$\{secret:([^}]*)\}")


def check_secret_name(name: str | None, option: str) -> None:
    """Refuse what stands for a secret in other settings, where an option of a URL takes its name. Raises UsageError."""
    if name is not None and (placed := _PLACEHOLDER.fullmatch(name)):
        raise UsageError(f"?{option}= takes the name of a secret, not {name}", hint=f"write ?{option}={placed[1]}")


#: why an address by HTTP is refused, and where the ways around it are
_PLAIN = "by http:// a token is sent within this machine alone"
_PAGE = "docs/how-to/api.md#from-another-machine"


def server_address(url: str) -> str:
    """The address of a server of the API, also from that of the API itself, which ends with `/v1`."""
    return url.rstrip("/").removesuffix("/v1").rstrip("/")


def check_token_url(url: str) -> None:
    """Refuse an address of a server that no token may be sent to. Raises UsageError, which names the fault."""
    if is_secure_url(url):
        return
    if not url.startswith(("http://", "https://")):
        reason = "the address of a server begins with https:// or http://"
    elif url.startswith("http://"):
        reason = _PLAIN
    else:
        reason = "this is no address of a server: it has a host, and no user, query or fragment"
    hint = "write the whole address, such as https://cumulant.example.com"
    if reason == _PLAIN:
        hint = f"use https://, or a tunnel: `ssh -L 8700:127.0.0.1:8700 HOST`, then http://127.0.0.1:8700 ({_PAGE})"
    raise UsageError(reason, subject=url, hint=hint)
