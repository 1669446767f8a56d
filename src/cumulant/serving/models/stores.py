"""What the server talks to, found by the scheme of its URL among the installed drivers."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast
from urllib.parse import urlsplit

from cumulant.ports.plugins import Drivers

if TYPE_CHECKING:
    from cumulant.ports.cache import SharedCache
    from cumulant.ports.online import OnlineStore


def open_store(url: str) -> OnlineStore:
    """The store that `url` names, opened by the driver of its scheme.

    Raises:
        UsageError: no installed driver has that scheme, or the driver holds no online state.
        MissingPartError: the driver's engine is not installed.
    """
    named = url if "://" in url else f"sqlite://{url}"
    return cast("OnlineStore", Drivers.installed().client_class(named, "online")(url))


def open_cache(url: str, password: str | None) -> SharedCache:
    """The cache that `url` names; nothing is reached yet.

    Raises:
        UsageError: no installed driver has that scheme, or the driver holds no cache, or as its client.
        MissingPartError: the driver's engine is not installed.
    """
    return cast("SharedCache", Drivers.installed().client_class(url, "cache")(url, password=password))


def place_of(url: str) -> str:
    """`url` without its user and options, to be told to people."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
