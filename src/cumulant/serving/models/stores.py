"""Stores and caches of the server, opened by the drivers of their URL schemes."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast
from urllib.parse import urlsplit

from cumulant.ports.plugins import Drivers

if TYPE_CHECKING:
    from cumulant.ports.cache import SharedCache
    from cumulant.ports.online import OnlineStore


def open_store(url: str) -> OnlineStore:
    """Online store at `url`, opened by the driver of its scheme.

    Raises:
        UsageError: no installed driver has that scheme, or the driver holds no online state.
        MissingPartError: the driver's engine is not installed.
    """
    named = url if "://" in url else f"sqlite://{url}"
    return cast("OnlineStore", Drivers.installed().client_class(named, "online")(url))


def open_cache(url: str, password: str | None) -> SharedCache:
    """Client of the cache at `url`, not connected yet.

    Raises:
        UsageError: no installed driver has that scheme, or the driver holds no cache, or as its client.
        MissingPartError: the driver's engine is not installed.
    """
    return cast("SharedCache", Drivers.installed().client_class(url, "cache")(url, password=password))


def redacted_url(url: str) -> str:
    """`url` without user and options, for messages."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
