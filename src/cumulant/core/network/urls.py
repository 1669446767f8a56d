"""URLs to which credentials may be sent, or from which they may be believed."""

from __future__ import annotations

from urllib.parse import urlsplit

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
