"""A loaded project: its name and folders, its policies, and its clients of the ports."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

import msgspec

from cumulant.core.errors import CumulantError, UsageError
from cumulant.core.occurrences import OccurrenceCounter
from cumulant.core.scope import Scope
from cumulant.ports.access import Access, Principal, Via
from cumulant.ports.compute import Compute, HistoryEngine, StreamEngine
from cumulant.ports.driver import PartKind
from cumulant.ports.files import Files
from cumulant.ports.journal import Freezing, Journal
from cumulant.ports.log import Log
from cumulant.ports.notifier import Notifier
from cumulant.ports.objects import Artifacts, ObjectStore
from cumulant.ports.online import OnlineStore
from cumulant.ports.plugins import Drivers
from cumulant.ports.registry import Registry
from cumulant.ports.secrets import Secrets
from cumulant.ports.streams import Schemas, Streams
from cumulant.ports.tables import TableStore
from cumulant.ports.traffic import Gateway
from cumulant.project.endpoints import STATE, Endpoints, endpoints, state_folder, url_below
from cumulant.project.file.layers import LOCAL
from cumulant.project.file.project_file import ProjectFile
from cumulant.project.file.spec import ProjectSpec
from cumulant.project.file.text_values import SECRET
from cumulant.project.identity import Code, code_of, principal
from cumulant.project.keys.audit_key import AuditKey
from cumulant.project.keys.salt import Salt
from cumulant.project.notifiers import Receiver, full_url, receivers
from cumulant.project.policies import Policies
from cumulant.project.private import make_private
from cumulant.project.sources import RoutedFiles
from cumulant.project.vault import Vault

if TYPE_CHECKING:
    from cumulant.project.sign_in_section import SignInPolicy
    from cumulant.training.policy import TrainingPolicy

#: the logs of a project: what servers answered, labels of it, the join of both, requests by the gateway, and what is
#: not ingested yet: labels that were posted, and requests that servers refused
LogName = Literal["predictions", "labels", "joined", "exchanges", "inbox", "refusals"]
PREDICTIONS: LogName = "predictions"
#: seconds after which a receiver's secret is read again, since it may have been replaced
_SECRET_SECONDS = 60.0


class Project:
    """A project in one environment. Clients are made on first use, once, and may be shared by threads.

    Attributes:
        name: the model's name, under which the registry and the events know the project.
        root: the project's folder, absolute.
        environment: the environment's name.
        scope: whose state it is, in which project, environment and region.
        policies: the sections of the file as numbers with units.
        file: what the files say, and where.
        drivers: the installed drivers.
        endpoints: the URL of each port.
        vault: reveals and redacts secrets.
        salt_source: where the salt of personal values is.
        audit_key: what signs checkpoints of the event chain.
    """

    def __init__(
        self,
        root: Path,
        *,
        file: ProjectFile,
        environment: str,
        drivers: Drivers,
        variables: Mapping[str, str] = os.environ,
        via: Via = "service",
    ) -> None:
        self.name = file.spec.model.name
        self.root = root
        self.environment = environment
        self.scope = Scope(
            tenant=file.environment.tenant, project=self.name, environment=environment, region=file.environment.region
        )
        self.file = file
        self.policies = Policies(file.spec, root)
        self.drivers = drivers
        self.endpoints: Endpoints = endpoints(file.environment, drivers=drivers, root=root, scope=self.scope)
        self.vault = Vault(self.secrets)
        self.salt_source = Salt(file.environment.salt, root / STATE, self.vault)
        self.audit_key = AuditKey(file.environment.audit_key, root / STATE, self.vault)
        #: counts refusals of a process that serves requests; None: each one is an event
        self.refusals: OccurrenceCounter[Any] | None = None
        #: seconds for which this process waits for a journal that is away or busy; None: as long as its driver does
        self.journal_wait: float | None = None
        #: whether the journal is a copy, which other processes do not see
        self.reads_aside = False
        self._variables, self._via = variables, via
        self._clients: dict[tuple[str, str], Any] = {}
        self._lock = threading.RLock()

    def __repr__(self) -> str:
        return f"Project({self.name!r}, root={str(self.root)!r}, environment={self.environment!r})"

    @property
    def state(self) -> Path:
        """The folder of what this environment keeps on this machine; only its owner can enter it."""
        make_private(self.root / STATE)
        return state_folder(self.root, self.environment)

    def line(self, command: str) -> str:
        """A command line to run next in this environment: `line("train --quick")`."""
        return f"cumulant {command}" if self.environment == LOCAL else f"cumulant {command} --env {self.environment}"

    @property
    def spec(self) -> ProjectSpec:
        """The sections as they are written; `policies` has them parsed."""
        return self.file.spec

    def training(self) -> TrainingPolicy:
        """The policy of the training section.

        Raises:
            UsageError: the project file has none.
        """
        policy = self.policies.training
        if policy is None:
            raise UsageError(
                "the project file has no training section, so there is nothing to train",
                subject=str(self.file.path),
                hint="add `training:` with a `target:`, for example `target: arr_delay > 15`",
            )
        return policy

    @cached_property
    def code(self) -> Code:
        """The commit that the project's folder stands at."""
        return code_of(self.root)

    def principal(self) -> Principal:
        """Who acts: the variable `CUMULANT_USER`, else the user of this machine."""
        return principal(self._variables, tenant=self.scope.tenant, via=self._via)

    @cached_property
    def sign_in(self) -> SignInPolicy:
        """Who may call the API and the console, and how they show who they are."""
        from cumulant.project.sign_in_section import sign_in_policy

        return sign_in_policy(self.file.environment.sign_in)

    def salt(self) -> bytes:
        """The secret of the keyed hashes of personal values.

        Raises:
            NotFoundError: the secret that the environment names does not exist.
            StorageError: the default file cannot be made.
        """
        return self.salt_source.read()

    def stored(self, port: str) -> dict[Path, PartKind]:
        """Files and folders of this machine that a backup of `port` copies, each with the way to copy it."""
        return self.drivers.stored(self.endpoints.of(port), port, self.scope)

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

    def log(self, name: LogName = PREDICTIONS) -> Log:
        """The log of that name, which every machine of this environment shares where its `log` is elsewhere."""
        return self._client("log", self.log_url(name))  # type: ignore[no-any-return]

    def log_url(self, name: LogName = PREDICTIONS) -> str:
        """The URL of a log, for the processes that write it."""
        return url_below(self.endpoints.log, name)

    @property
    def reads_streams(self) -> bool:
        """Whether a source has a stream, or the environment says where topics are."""
        named = self.file.environment.streams is not None
        return named or any(source.stream is not None for source in self.file.spec.data.values())

    def streams(self) -> Streams:
        """The topics that sources name."""
        return self._client("streams", self.endpoints.streams)  # type: ignore[no-any-return]

    def history(self) -> HistoryEngine | None:
        """The engine that computes features of the history; None: the process of the step does."""
        url = self.endpoints.history
        return None if url is None else self._client("history", url)

    def stream_engine(self) -> StreamEngine | None:
        """The engine that runs jobs over streams; None: the environment names none."""
        url = self.endpoints.stream_engine
        return None if url is None else self._client("stream_engine", url)

    def schemas(self) -> Schemas:
        """The registry of the schemas by which messages are written.

        Raises:
            UsageError: the environment names none.
        """
        if self.endpoints.schemas is None:
            hint = "write `schemas: confluent+https://HOST:8081` under the environment"
            raise UsageError("a source needs a schema registry, and the environment names none", hint=hint)
        return self._client("schemas", self.endpoints.schemas)  # type: ignore[no-any-return]

    def artifacts(self, url: str) -> Artifacts:
        """The files below an address in an object store, whatever they are."""
        return self._client("artifacts", url)  # type: ignore[no-any-return]

    def registry(self) -> Registry:
        return self._client("registry", self.endpoints.registry)  # type: ignore[no-any-return]

    def audit(self, url: str | None = None) -> ObjectStore | None:
        """The place of checkpoints: of the environment, where it has one, or at `url`."""
        where = (
            self.endpoints.audit
            if url is None
            else self.drivers.anchored(url, "objects", root=Path.cwd(), state=self.state)
        )
        return None if where is None else self._client("objects", where)

    def secrets(self) -> Secrets:
        return self._client("secrets", self.endpoints.secrets)  # type: ignore[no-any-return]

    def access(self) -> Access:
        return self._client("access", self.endpoints.access)  # type: ignore[no-any-return]

    def compute(self) -> Compute:
        return self._client("compute", self.endpoints.compute)  # type: ignore[no-any-return]

    def gateway(self) -> Gateway:
        """The gateway of this machine. What all gateways do is read and changed by `flows.traffic`."""
        return self._client("traffic", self.endpoints.traffic)  # type: ignore[no-any-return]

    def receivers(self) -> list[Receiver]:
        """The receivers of messages on alerts and releases: `monitoring.notify`, without what is secret."""
        return receivers(self.file.spec.monitoring.notify, self.drivers, self._reveal_anew)

    def notifier(self, receiver: Receiver) -> Notifier:
        """A new client of a receiver, made with the secrets of its URL as they are now.

        Raises:
            NotFoundError: a secret of its URL does not exist.
            UsageError: no driver has its scheme, or the driver cannot use the URL.
        """
        url = full_url(self._reveal_anew(receiver.url))
        try:
            return self.drivers.client(url, "notifier", secrets=self.secrets)  # type: ignore[no-any-return]
        except CumulantError as error:
            raise error.reworded(self.vault.redact) from None

    def _reveal_anew(self, text: str) -> str:
        return self.vault.reveal(text, within=_SECRET_SECONDS)

    def read_aside(self) -> None:
        """From here on write to a copy of a journal that cannot be written (a read-only disk); it is gone at the end.

        For work that changes nothing that others see, and so needs no trace where none can be left.
        """
        journal = self.journal()
        if isinstance(journal, Freezing) and journal.frozen:
            copy = journal.aside()
            with self._lock:
                self._clients["journal", self.endpoints.journal] = copy
                self.reads_aside = True
            journal.close()

    def adopt(self, fresh: Project) -> None:
        """Take the sections and access policies of the same project, loaded again; clients of stores are kept.

        Raises:
            UsageError: its name, or its environment beyond `access`, differs, which processes take when they start.
        """
        before, after = self.file.environment, fresh.file.environment
        if fresh.name != self.name or msgspec.structs.replace(before, access=after.access) != after:
            raise UsageError(
                "the name or the environment of the project has changed, which a running process does not take",
                subject=str(self.file.path),
                hint="start it again",
            )
        fresh.access()  # policies that cannot be read are refused before anything is changed
        with self._lock:
            self.file, self.policies, self.endpoints = fresh.file, fresh.policies, fresh.endpoints
            self._clients = {key: client for key, client in self._clients.items() if key[0] != "access"}

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
            secrets = None if port == "secrets" else self.secrets
            make = partial(self.drivers.client, port=port, secrets=secrets, scope=self.scope, journal=self.journal)
            if port == "journal":
                make = partial(make, wait=self.journal_wait)
            if port == "access":
                make = partial(make, bindings=self.policies.bindings)
            if port == "secrets" or not SECRET.search(url):
                client = make(url)
            else:
                revealed = self.vault.reveal_url(url)
                try:
                    client = make(revealed)
                except CumulantError as error:
                    raise error.reworded(self.vault.redact) from None
            self._clients[port, url] = client
            return client
