"""A loaded project: its typed spec, where each value came from, and its clients."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import msgspec

from cumulant.core.errors import CumulantError, NotFoundError, UsageError
from cumulant.core.ids import digest
from cumulant.core.masking import fingerprint
from cumulant.ports.access import Access, Principal
from cumulant.ports.compute import Compute
from cumulant.ports.driver import PartKind
from cumulant.ports.files import Files
from cumulant.ports.journal import Freezing, Journal
from cumulant.ports.notifier import Notifier
from cumulant.ports.objects import ObjectStore
from cumulant.ports.online import OnlineStore
from cumulant.ports.plugins import Drivers, scheme_of
from cumulant.ports.registry import Registry
from cumulant.ports.secrets import Secrets
from cumulant.ports.tables import TableStore
from cumulant.ports.traffic import Traffic
from cumulant.project.endpoints import KEYS, STATE, Endpoints, endpoints, state_folder
from cumulant.project.file.document import Problem, YamlEntry, refused
from cumulant.project.file.layers import Layers
from cumulant.project.file.origins import ResolvedRow, ValueOrigin, origin_of, rows, shown
from cumulant.project.file.spec import DECIDING, DRIVERS, EnvironmentSpec, ProjectSpec
from cumulant.project.file.text_values import masked, secrets_in
from cumulant.project.identity import Code, PythonEnvironment, code_of, principal, python_environment, salt_file
from cumulant.project.notifiers import Receiver, full_url, receivers, seen_url
from cumulant.project.policies import Policies
from cumulant.project.private import make_private, open_to_others
from cumulant.project.sources import RoutedFiles, files_base
from cumulant.project.vault import Vault

if TYPE_CHECKING:
    from cumulant.data.spec import SourceSpec
    from cumulant.training.spec import TrainingSpec

#: seconds after which a receiver's secret is read again, which somebody may have replaced
_SECRETS_KEPT = 60.0


class Project:
    """A project in one environment. Clients are made on first use, once, and may be shared by threads.

    Attributes:
        root: the project's folder, absolute.
        spec: the whole file, typed and resolved; references to secrets stay references.
        environment: the environment's own keys; `environment_name` is its name.
        endpoints: the URL of each port.
        policies: sections of the file as numbers with units, which flows go by.
    """

    def __init__(
        self,
        root: Path,
        *,
        spec: ProjectSpec,
        environment: EnvironmentSpec,
        environment_name: str,
        layers: Layers,
        drivers: Drivers,
        variables: Mapping[str, str] = os.environ,
    ) -> None:
        self.root = root
        self.spec = spec
        self.environment = environment
        self.environment_name = environment_name
        self.endpoints: Endpoints = endpoints(
            environment, drivers=drivers, root=root, environment=environment_name, project=spec.model.name
        )
        self.policies = Policies(spec)
        self.vault = Vault(self.secrets)
        self._layers = layers
        self._drivers = drivers
        self._variables = variables
        self._clients: dict[tuple[str, str], Any] = {}
        self._lock = threading.RLock()

    def __repr__(self) -> str:
        return f"Project({self.name!r}, root={str(self.root)!r}, environment={self.environment_name!r})"

    @property
    def name(self) -> str:
        """The model's name, under which the registry and the events know the project."""
        return self.spec.model.name

    @property
    def file(self) -> Path:
        return self._layers.documents[0].path

    @property
    def files_read(self) -> tuple[Path, ...]:
        """Every project file that took part, the project's own first."""
        return tuple(document.path for document in self._layers.documents)

    @property
    def state(self) -> Path:
        """The folder of what this environment keeps on this machine; nobody but its owner can enter it."""
        make_private(self.root / STATE)
        return state_folder(self.root, self.environment_name)

    def open_to_others(self) -> list[Path]:
        """What of the state other users of this machine may read: the state folder, and databases outside of it."""
        state = self.root / STATE
        paths = (self._drivers.path(url) for url in (self.endpoints.journal, self.endpoints.online))
        return open_to_others(state, tuple(path for path in paths if path and not path.is_relative_to(state)))

    @property
    def features_path(self) -> Path:
        return self.root / self.spec.features

    def source(self, name: str) -> SourceSpec:
        """Raises NotFoundError, with the nearest name."""
        from cumulant.core.errors import not_found

        if name not in self.spec.data:
            raise not_found("source", name, self.spec.data)
        return self.spec.data[name]

    def training(self) -> TrainingSpec:
        """The training section.

        Raises:
            UsageError: the project file has none.
        """
        if self.spec.training is None:
            raise UsageError(
                "the project file has no training section, so there is nothing to train",
                subject=str(self.file),
                hint="add `training:` with a `target:`, for example `target: arr_delay > 15`",
            )
        return self.spec.training

    # Identity -------------------------------------------------------------------------------------------------

    @cached_property
    def digest(self) -> str:
        """The identity of everything that the resolved file says, whatever the environment's drivers are."""
        return self.identity(*DECIDING)

    def settings(self, *sections: str) -> dict[str, Any]:
        """Resolved sections as builtins, with their defaults and without passwords: what a step's identity holds."""
        plain = msgspec.to_builtins(self.spec)
        return {section: shown(plain[section]) for section in sections}

    def identity(self, *sections: str) -> str:
        """The digest of the named sections."""
        return digest(self.settings(*sections))

    @cached_property
    def code(self) -> Code:
        return code_of(self.root)

    @cached_property
    def python(self) -> PythonEnvironment:
        return python_environment()

    def principal(self) -> Principal:
        """Who acts: the variable `CUMULANT_USER`, else the user of this machine."""
        return principal(self._variables)

    def salt(self) -> bytes:
        """The secret of the keyed hashes of personal values.

        Raises:
            NotFoundError: the secret that the environment names does not exist.
            StorageError: the default file cannot be made.
        """
        if self.environment.salt is not None:
            return self.vault.reveal(self.environment.salt).encode()
        make_private(self.root / STATE)
        return salt_file(self.root / STATE)

    def salt_fingerprint(self) -> str | None:
        """What tells the salt from another one (`masking.fingerprint`); None while nothing has made it, or where the
        secret is not to be had here.
        """
        if self.environment.salt is None and not (self.root / STATE / "salt").exists():
            return None
        try:
            return fingerprint(self.salt())
        except NotFoundError:
            return None

    def salt_path(self) -> str | None:
        """The file of the salt, where the project keeps it itself.

        Raises:
            StorageError: as `salt`.
        """
        if self.environment.salt is not None:
            return None
        self.salt()
        return str(self.root / STATE / "salt")

    def keep_salt(self) -> None:
        """Make the salt where the project keeps it itself, so that on a read-only disk it is there to be read.

        Raises:
            StorageError: the file cannot be made, or is damaged.
        """
        if self.environment.salt is None:
            self.salt()

    # Origins --------------------------------------------------------------------------------------------------

    def resolved(self) -> list[ResolvedRow]:
        """Every value of the project with its origin, in the order of the file's sections. No secret is in it."""
        plain = msgspec.to_builtins(self.spec)
        sections = {key: value for key, value in plain.items() if key not in ("extends", "environments")}
        resolved_rows = list(rows(sections, self._layers.project))
        for port, key in KEYS.items():
            if key in DRIVERS:
                url = masked(self.endpoints.of(port))
                resolved_rows.append(ResolvedRow(f"environment.{port}", url, self._driver_origin(key)))
        salt = self.environment.salt
        where = salt if salt is None or secrets_in(salt) else "***"
        return [*resolved_rows, ResolvedRow("environment.salt", where, self._driver_origin("salt"))]

    def origin(self, path: str) -> ValueOrigin:
        """Where the value under a dotted path was set: `data.flights.quarantine`."""
        entry: YamlEntry | None = self._layers.project.at(tuple(path.split(".")))
        return origin_of(None if entry is None else entry.place)

    def declares(self, section: str) -> bool:
        """Whether a section was written anywhere that counts: a file, the environment, the command line."""
        entry = self._layers.project.get(section)
        return entry is not None and entry.value is not None

    def _driver_origin(self, key: str) -> ValueOrigin:
        entry = self._layers.chosen.get(key)
        return origin_of(None if entry is None or entry.value is None else entry.place)

    # Clients --------------------------------------------------------------------------------------------------

    def stored(self, port: str) -> dict[Path, PartKind]:
        """Files and folders of this machine that a backup of `port` copies, each with the way to copy it."""
        return self._drivers.stored(self.endpoints.of(port), port)

    def journal(self) -> Journal:
        return self._client("journal", self.endpoints.journal)  # type: ignore[no-any-return]

    def tables(self) -> TableStore:
        return self._client("tables", self.endpoints.tables)  # type: ignore[no-any-return]

    def objects(self) -> ObjectStore:
        return self._client("objects", self.endpoints.objects)  # type: ignore[no-any-return]

    def files(self) -> Files:
        """Source files, each read by the driver of its path's scheme."""
        return RoutedFiles(self.root, lambda url: self._client("files", url))

    def online(self) -> OnlineStore:
        return self._client("online", self.endpoints.online)  # type: ignore[no-any-return]

    def registry(self) -> Registry:
        return self._client("registry", self.endpoints.registry)  # type: ignore[no-any-return]

    def secrets(self) -> Secrets:
        return self._client("secrets", self.endpoints.secrets)  # type: ignore[no-any-return]

    def access(self) -> Access:
        return self._client("access", self.endpoints.access)  # type: ignore[no-any-return]

    def compute(self) -> Compute:
        return self._client("compute", self.endpoints.compute)  # type: ignore[no-any-return]

    def traffic(self) -> Traffic:
        return self._client("traffic", self.endpoints.traffic)  # type: ignore[no-any-return]

    def receivers(self) -> list[Receiver]:
        """Who is told of alerts and releases: `monitoring.notify`, without what is secret."""
        return receivers(self.spec.monitoring.notify, self._drivers, self._reveal_anew)

    def notifier(self, receiver: Receiver) -> Notifier:
        """A new client of a receiver, made with the secrets of its URL as they are now.

        Raises:
            NotFoundError: a secret of its URL does not exist.
            UsageError: no driver has its scheme, or the driver cannot use the URL.
        """
        url = full_url(self._reveal_anew(receiver.url))
        try:
            return self._drivers.client(url, "notifier", secrets=self.secrets)  # type: ignore[no-any-return]
        except CumulantError as error:
            raise error.reworded(self.vault.redact) from None

    def _reveal_anew(self, text: str) -> str:
        return self.vault.reveal(text, within=_SECRETS_KEPT)

    def read_aside(self) -> None:
        """From here on write to a copy of a journal that cannot be written (a read-only disk); it is gone at the end.

        For work that changes nothing that others see, and so needs no trace where none can be left.
        """
        journal = self.journal()
        if isinstance(journal, Freezing) and journal.frozen:
            copy = journal.aside()
            with self._lock:
                self._clients["journal", self.endpoints.journal] = copy
            journal.close()

    def close(self) -> None:
        """Close every client that was made. The next use makes them again."""
        with self._lock:
            clients, self._clients = list(self._clients.values()), {}
        for client in clients:
            close = getattr(client, "close", None)
            if close is not None:
                close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _client(self, port: str, url: str) -> Any:
        with self._lock:
            if (port, url) in self._clients:
                return self._clients[port, url]
            if port != "secrets" and str(self.root / STATE) in url:
                make_private(self.root / STATE)
            # Secrets themselves are found without a secret; everything else may need one.
            revealed = url if port == "secrets" else self.vault.reveal(url)
            secrets = None if port == "secrets" else self.secrets
            try:
                client = self._clients[port, url] = self._drivers.client(revealed, port, secrets=secrets)
            except CumulantError as error:
                if revealed == url:
                    raise
                raise error.reworded(self.vault.redact) from None
            return client

    # Plan -----------------------------------------------------------------------------------------------------

    def check_drivers(self, needed: Mapping[str, Mapping[str, str]] | None = None) -> None:
        """Refuse, before anything runs, drivers that are missing or cannot do what the project needs.

        `needed` maps a port to the capabilities it must have, each with what it is for, in words. Nothing is
        opened or imported beyond the drivers' light records.

        Raises:
            ProjectFileError: every problem found, with file and line where a file names the driver.
        """
        problems: list[Problem] = []
        for port, key in KEYS.items():
            wanted = (needed or {}).get(port, {})
            for url, entry in self._named(port, key):
                try:
                    self._drivers.driver(url, port)
                    self._drivers.require(url, port, wanted)
                except UsageError as error:
                    place = None if entry is None else entry.place
                    where = (place.file, place.line) if place is not None else (self.file.name, None)
                    problems.append((*where, error.full_text))
        problems += self._notify_problems()
        if problems:
            raise refused(list(dict.fromkeys(problems)))

    def _notify_problems(self) -> Iterator[Problem]:
        for number, url in enumerate(self.spec.monitoring.notify):
            seen = seen_url(url)
            if seen is None:
                continue  # its scheme is a secret too
            try:
                self._drivers.driver(seen, "notifier")
            except UsageError as error:
                entry = self._layers.project.at(("monitoring", "notify", number))
                where = (self.file.name, None) if entry is None else (entry.place.file, entry.place.line)
                text = masked(error.message)
                yield (*where, f"monitoring.notify: {text}; {error.hint}" if error.hint else text)

    def _named(self, port: str, key: str) -> list[tuple[str, YamlEntry | None]]:
        if port == "traffic" and self.environment.traffic is None:
            return []  # the default is built in
        if port != "files":
            return [(self.endpoints.of(port), self._layers.chosen.get(key))]
        named = []
        for name, source in self.spec.data.items():
            base = files_base(source.path, self.root)
            named.append((base, self._layers.project.at(("data", name, "path"))))
        return named

    def capabilities(self, port: str) -> frozenset[str]:
        """What the driver of `port` can do of the optional parts."""
        return self._drivers.capabilities(self.endpoints.of(port), port)

    def scheme(self, port: str) -> str:
        """The URL scheme of `port`'s driver, for messages."""
        return scheme_of(self.endpoints.of(port)) or ""
