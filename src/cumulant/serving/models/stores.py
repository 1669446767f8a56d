"""Stores and caches of the server, opened by the drivers of their URL schemes."""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urlsplit

from cumulant.core.errors import UsageError, did_you_mean, missing_part
from cumulant.ports.driver import Driver

if TYPE_CHECKING:
    from cumulant.ports.cache import SharedCache
    from cumulant.ports.online import OnlineStore


def open_store(url: str) -> OnlineStore:
    """Online store at `url`, opened by the driver of its scheme.

    Raises:
        UsageError: no installed driver has that scheme, or the driver holds no online state.
        MissingPartError: the driver's engine is not installed.
    """
    scheme = url.partition("://")[0] if "://" in url else "sqlite"
    return cast("OnlineStore", _client(url, scheme, "online", "online state")(url))


def open_cache(url: str, password: str | None) -> SharedCache:
    """Client of the cache at `url`, not connected yet.

    Raises:
        UsageError: no installed driver has that scheme, or the driver holds no cache, or as its client.
        MissingPartError: the driver's engine is not installed.
    """
    scheme = url.partition("://")[0]
    return cast("SharedCache", _client(url, scheme, "cache", "cache")(url, password=password))


def redacted_url(url: str) -> str:
    """`url` without user and options, for messages."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def _client(url: str, scheme: str, port: str, what: str) -> Any:
    drivers = {point.name: point for point in entry_points(group="cumulant.drivers")}
    if scheme not in drivers:
        hint = did_you_mean(scheme, drivers) or f"installed: {', '.join(sorted(drivers)) or 'none'}"
        raise UsageError(f'no driver is installed for "{scheme}://"', subject=url.partition("@")[2] or url, hint=hint)
    driver = drivers[scheme].load()
    target = driver.clients.get(port) if isinstance(driver, Driver) else None
    if target is None:
        raise UsageError(f'the driver of "{scheme}://" holds no {what}', subject=scheme)
    module, _, name = target.partition(":")
    try:
        return getattr(import_module(module), name)
    except ModuleNotFoundError as error:
        raise missing_part(error.name or module, driver.extra or "local") from None
