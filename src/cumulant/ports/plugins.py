"""Which driver serves which URL. The only lookup of drivers, for projects, the server and other drivers.

A driver enters by an entry point in the group `cumulant.drivers`, named by its URL scheme; the built-in ones too.
The record is light; the client's module is imported when a client is made.
"""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import parse_qsl

from cumulant.core.errors import UsageError, did_you_mean, missing_part
from cumulant.core.scope import Scope
from cumulant.ports.access import RoleBinding
from cumulant.ports.driver import Driver, Need, PartKind
from cumulant.ports.journal import Journal
from cumulant.ports.secrets import Secrets

GROUP = "cumulant.drivers"
#: what a scheme of earlier versions was, and what to write in its place, by scheme and port
_REMOVED = {
    ("local", "traffic"): (
        "the embedded gateway `local://` was removed",
        "write `traffic: envoy://`, or leave it out: Envoy is the default",
    )
}
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)(:|\Z)")


class _EntryPoint(Protocol):
    def load(self) -> Any: ...


class Drivers:
    """The drivers that are installed, by URL scheme. A record is loaded when its scheme is first used."""

    def __init__(self, entries: Mapping[str, _EntryPoint | Driver]) -> None:
        self._entries = dict(entries)
        self._records: dict[str, Driver] = {}

    @classmethod
    def installed(cls) -> Drivers:
        """Every driver that a package of this environment brings."""
        from importlib.metadata import entry_points

        return cls({entry.name: entry for entry in entry_points(group=GROUP)})

    @property
    def schemes(self) -> tuple[str, ...]:
        return tuple(sorted(self._entries))

    def driver(self, url: str, port: str, *, setting: str | None = None) -> Driver:
        """The record that serves `port` at `url`. `setting` is what names the URL, for errors; by default the port.

        Raises:
            UsageError: no scheme, one that no driver has, or a driver that does not serve the port.
        """
        record = self._record(url.partition(":")[0].lower())
        if record is None or port not in record.clients:
            raise self._no_driver(url, port, record, setting or port)
        return record

    def check_url(self, url: str, port: str) -> None:
        """Refuse what follows the scheme where its driver would not use it.

        Raises:
            UsageError: an option that the driver does not have, an address where it takes none; and as `driver`.
        """
        driver, scheme = self.driver(url, port), f"{scheme_of(url)}://"
        _, _, address = url.partition("://")
        if driver.bare and address:
            hint = f"write {scheme} alone"
            raise UsageError(f'{scheme} takes nothing after it, such as "{address[:100]}"', subject=port, hint=hint)
        known = driver.options.get(port)
        unknown = [name[:100] for name in url_options(url) if known is not None and name not in known]
        if known is not None and unknown:
            takes = f"write ?{'=, ?'.join(sorted(known))}=" if known else f"leave out ?{unknown[0]}"
            hint = did_you_mean(unknown[0], known) or takes
            raise UsageError(f'a URL of {scheme} has no option "{unknown[0]}" here', subject=port, hint=hint)

    def _no_driver(self, url: str, port: str, record: Driver | None, setting: str) -> UsageError:
        """Why no driver serves `port` at `url`; `record` is the driver of its scheme."""
        scheme, serving = scheme_of(url), self._serving(port)
        schemes = ", ".join(f"{name}://" for name in serving)
        listed = f"{setting} can be {schemes}"
        if scheme is None:
            message = f'"{url.rpartition("@")[2]}" names no driver for {setting}'
            hint = f"start it with a scheme: {schemes}"
        elif record is not None:
            served = ", ".join(sorted(record.clients))
            message, hint = f'the driver of "{scheme}://" cannot serve as {setting}; it serves {served}', listed
        elif (scheme, port) in _REMOVED:
            message, hint = _REMOVED[scheme, port]
        else:
            near = did_you_mean(scheme, serving)
            message = f'no driver for "{scheme}://" is installed, which {setting} names'
            hint = f"{near} {listed}" if near else f"{listed}; other packages can bring more"
        return UsageError(message, subject=port, hint=hint)

    def capabilities(self, url: str, port: str) -> frozenset[str]:
        """What the driver can do of the port's optional parts."""
        return self.driver(url, port).capabilities.get(port, frozenset())

    def require(self, url: str, port: str, needs: Iterable[Need]) -> None:
        """Refuse a driver that lacks a capability.

        Raises:
            UsageError: something is missing.
        """
        capable = self.capabilities(url, port)
        missing = [need for need in needs if need.port == port and need.capability not in capable]
        if missing:
            wanted = {need.capability for need in missing}
            others = [
                name for name in self._serving(port) if wanted <= self._records[name].capabilities.get(port, set())
            ]
            listed = f"use {', '.join(f'{name}://' for name in others)}" if others else "use another driver"
            texts = "; ".join(f"{need.reason} (`{need.capability}`)" for need in missing)
            raise UsageError(
                f'the driver of "{scheme_of(url)}://" cannot do what {port} is needed for: {texts}',
                subject=port,
                hint=f"{listed} in this environment",
            )

    def client(
        self,
        url: str,
        port: str,
        *,
        secrets: Callable[[], Secrets] | None = None,
        scope: Scope | None = None,
        journal: Callable[[], Journal] | None = None,
        bindings: Sequence[RoleBinding] = (),
        wait: float | None = None,
    ) -> Any:
        """A new client of `port` at `url`; one that stores takes the `scope` that it stores for, one that works through
        the journal takes the `journal`, one that decides by roles takes their `bindings`, one that waits for other
        writers, or for a server that is away, takes the seconds to `wait` where they are given.

        Raises:
            UsageError: see `driver`.
            MissingPartError: the driver's engine is not installed.
        """
        self.check_url(url, port)
        driver = self.driver(url, port)
        with _missing_parts(driver):
            make = _client_class(driver, port)
            options: dict[str, Any] = {}
            parameters = inspect.signature(make).parameters
            if secrets is not None and "secrets" in parameters:
                options["secrets"] = secrets()
            if scope is not None and "scope" in parameters:
                options["scope"] = scope
            if journal is not None and "journal" in parameters:
                options["journal"] = journal
            if "bindings" in parameters:
                options["bindings"] = bindings
            if wait is not None and "wait" in parameters:
                options["wait"] = wait
            if port in driver.embeds:
                options["embedded"] = lambda folder: self.client(f"{driver.embeds[port]}://{folder}", port)
            return make(url, **options)

    def client_class(self, url: str, port: str) -> Callable[..., Any]:
        """What makes the clients of `port` at `url`. Raises as `client`."""
        driver = self.driver(url, port)
        with _missing_parts(driver):
            return _client_class(driver, port)

    def path(self, url: str) -> Path | None:
        """The file or folder of this machine that a URL names; None where its driver is elsewhere, or there is none."""
        scheme, separator, rest = url.partition("://")
        record = self._record(scheme.lower()) if separator else None
        return Path(rest.partition("?")[0]).expanduser() if record is not None and record.path is not None else None

    def stored(self, url: str, port: str, scope: Scope) -> dict[Path, PartKind]:
        """Files and folders of this machine that a backup of `port` copies for a scope; none where its driver is
        elsewhere.
        """
        path = self.path(url)
        if path is None:
            return {}
        parts = self.driver(url, port).stored.get(port, {})
        return {path.parent / place.format(name=path.name, scope=scope.folder): kind for place, kind in parts.items()}

    def anchored(self, url: str, port: str, *, root: Path, state: Path) -> str:
        """`url` with a relative path taken from `root`; without a path, its driver's usual one below `state`.

        A URL as another program writes it becomes the driver's own. URLs that name nothing on this machine, and those
        that no driver has, are returned as they are.
        """
        scheme, separator, rest = url.partition("://")
        record = self._record(scheme.lower()) if separator else None
        if record is not None and port not in record.clients:
            for name in self._serving(port):
                for prefix, own in self._records[name].aliases.items():
                    if url.startswith(prefix):
                        return self.anchored(own + url.removeprefix(prefix), port, root=root, state=state)
        if record is None or record.path is None:
            return url
        path, mark, options = rest.partition("?")
        if not path and port in record.default_paths:
            return f"{scheme}://{state / record.default_paths[port]}{mark}{options}"
        return url if not rest or Path(rest).is_absolute() or rest.startswith("~") else f"{scheme}://{root / rest}"

    def _record(self, scheme: str) -> Driver | None:
        """The record of a scheme, loaded once; None where no driver has it."""
        if scheme not in self._records and scheme in self._entries:
            entry = self._entries[scheme]
            record = entry if isinstance(entry, Driver) else entry.load()
            if not isinstance(record, Driver):
                raise UsageError(
                    f'the entry point "{scheme}" of the group {GROUP} is not a Driver but {type(record).__name__}',
                    subject=scheme,
                    hint="point it at a cumulant.ports.driver.Driver",
                )
            self._records[scheme] = record
        return self._records.get(scheme)

    def _serving(self, port: str) -> list[str]:
        """Schemes of the drivers that serve a port."""
        return [name for name in self.schemes if (record := self._record(name)) and port in record.clients]


def scheme_of(url: str) -> str | None:
    """The scheme of a URL in lower case, or None. A bare word is one too: MLflow knows `databricks`."""
    match = _SCHEME.match(url)
    return match[1].lower() if match else None


def url_options(url: str) -> list[str]:
    """The names of the options after a URL's last `?`, if it assigns something: a path may have a `?` too."""
    before, _, query = url.rpartition("?")
    return [name for name, _ in parse_qsl(query, keep_blank_values=True)] if "=" in query and before else []


def _client_class(driver: Driver, port: str) -> Callable[..., Any]:
    module, _, name = driver.clients[port].partition(":")
    return getattr(importlib.import_module(module), name)  # type: ignore[no-any-return]


@contextmanager
def _missing_parts(driver: Driver) -> Iterator[None]:
    """Name the extra that installs an engine that is missing."""
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] == "cumulant" or driver.extra is None:
            raise
        raise missing_part(error.name, driver.extra) from error
