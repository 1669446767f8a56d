"""Which driver serves which URL. The only place that looks drivers up, for projects, the server and other drivers.

A driver enters by an entry point in the group `cumulant.drivers`, named by its URL scheme; the built-in ones use
that same door. The record is light; the client's module is imported when a client is made.
"""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from cumulant.core.errors import UsageError, did_you_mean, missing_part
from cumulant.ports.driver import Driver
from cumulant.ports.secrets import Secrets

GROUP = "cumulant.drivers"
#: what a scheme of earlier versions was, and what to write in its place, by scheme and port
_REMOVED = {
    ("local", "traffic"): (
        "the embedded gateway `local://` was removed",
        "write `traffic: envoy://`, or leave it out: Envoy is the default",
    )
}
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)(:|$)")


class _Door(Protocol):
    """An entry point, or anything that loads a record as one does."""

    def load(self) -> Any: ...


class Drivers:
    """The drivers that are installed, by URL scheme. A record is loaded when its scheme is first used."""

    def __init__(self, doors: Mapping[str, _Door | Driver]) -> None:
        self._doors = dict(doors)

    @classmethod
    def installed(cls) -> Drivers:
        """Every driver that a package of this environment brings."""
        from importlib.metadata import entry_points

        return cls({door.name: door for door in entry_points(group=GROUP)})

    @property
    def schemes(self) -> tuple[str, ...]:
        return tuple(sorted(self._doors))

    def driver(self, url: str, port: str) -> Driver:
        """The record that serves `port` at `url`.

        Raises:
            UsageError: no scheme, one that no driver has, or a driver that does not serve the port.
        """
        scheme = scheme_of(url)
        if scheme is None:
            raise UsageError(
                f'"{url.rpartition("@")[2]}" names no driver for {port}',
                subject=port,
                hint=f"start it with a scheme: {', '.join(f'{name}://' for name in self._serving(port))}",
            )
        door = self._doors.get(scheme)
        if door is None and (scheme, port) in _REMOVED:
            message, hint = _REMOVED[scheme, port]
            raise UsageError(message, subject=port, hint=hint)
        if door is None:
            serving = self._serving(port)
            near = did_you_mean(scheme, serving)
            listed = f"{port} can be {', '.join(f'{name}://' for name in serving)}"
            raise UsageError(
                f'no driver for "{scheme}://" is installed, which {port} names',
                subject=port,
                hint=f"{near} {listed}" if near else f"{listed}; other packages can bring more",
            )
        record = _record(scheme, door)
        if port not in record.clients:
            raise UsageError(
                f'the driver of "{scheme}://" cannot serve as {port}; it serves {", ".join(sorted(record.clients))}',
                subject=port,
                hint=f"{port} can be {', '.join(f'{name}://' for name in self._serving(port))}",
            )
        return record

    def capabilities(self, url: str, port: str) -> frozenset[str]:
        """What the driver can do of the port's optional parts."""
        return self.driver(url, port).capabilities.get(port, frozenset())

    def require(self, url: str, port: str, needed: Mapping[str, str]) -> None:
        """Refuse a driver that lacks a capability; `needed` says in words what each is for.

        Raises:
            UsageError: something is missing.
        """
        missing = [reason for name, reason in needed.items() if name not in self.capabilities(url, port)]
        if missing:
            raise UsageError(
                f'the driver of "{scheme_of(url)}://" cannot do what {port} is needed for: {"; ".join(missing)}',
                subject=port,
                hint="use another driver in this environment, or leave the setting out",
            )

    def client(self, url: str, port: str, *, secrets: Callable[[], Secrets] | None = None) -> Any:
        """A new client of `port` at `url`.

        Raises:
            UsageError: see `driver`.
            MissingPartError: the driver's engine is not installed.
        """
        driver = self.driver(url, port)
        make = self.client_class(url, port)
        options: dict[str, Any] = {}
        if secrets is not None and "secrets" in inspect.signature(make).parameters:
            options["secrets"] = secrets()
        if port in driver.embeds:
            options["embedded"] = partial(self._embedded, driver.embeds[port], port)
        return _made(lambda: make(url, **options), driver)

    def client_class(self, url: str, port: str) -> Callable[..., Any]:
        """What makes the clients of `port` at `url`. Raises as `client`."""
        driver = self.driver(url, port)
        module, _, name = driver.clients[port].partition(":")
        return _made(lambda: getattr(importlib.import_module(module), name), driver)  # type: ignore[no-any-return]

    def path(self, url: str) -> Path | None:
        """The file or folder of this machine that a URL names; None where its driver is elsewhere, or there is none."""
        driver, rest = self._of_path(url), url.partition("://")[2]
        return None if driver is None else Path(rest.partition("?")[0]).expanduser()

    def anchored(self, url: str, port: str, *, root: Path, state: Path) -> str:
        """`url` with a relative path taken from `root`; without a path, its driver's usual one below `state`.

        URLs that name nothing on this machine, and those that no driver has, are returned as they are.
        """
        driver = self._of_path(url)
        if driver is None:
            return url
        scheme, _, rest = url.partition("://")
        if not rest:
            return f"{url}{state / driver.default_paths[port]}" if port in driver.default_paths else url
        return url if Path(rest).is_absolute() or rest.startswith("~") else f"{scheme}://{root / rest}"

    def _embedded(self, scheme: str, port: str, folder: Path) -> Any:
        return self.client(f"{scheme}://{folder}", port)

    def _of_path(self, url: str) -> Driver | None:
        """The driver of a URL whose path is one of this machine."""
        scheme = scheme_of(url)
        if "://" not in url or scheme is None or scheme not in self._doors:
            return None
        record = _record(scheme, self._doors[scheme])
        return record if record.path is not None else None

    def _serving(self, port: str) -> list[str]:
        return [name for name, door in sorted(self._doors.items()) if port in _record(name, door).clients]


def scheme_of(url: str) -> str | None:
    """The scheme of a URL in lower case, or None. A bare word is one too: MLflow knows `databricks`."""
    match = _SCHEME.match(url)
    return match[1].lower() if match else None


def _record(scheme: str, door: _Door | Driver) -> Driver:
    record = door if isinstance(door, Driver) else door.load()
    if not isinstance(record, Driver):
        raise UsageError(
            f'the entry point "{scheme}" of the group {GROUP} is not a Driver but {type(record).__name__}',
            subject=scheme,
            hint="point it at a cumulant.ports.driver.Driver",
        )
    return record


def _made(make: Callable[[], Any], driver: Driver) -> Any:
    try:
        return make()
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] == "cumulant" or driver.extra is None:
            raise
        raise missing_part(error.name, driver.extra) from error
