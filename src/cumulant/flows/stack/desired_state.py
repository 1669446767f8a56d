"""The desired state as a file: which versions are served; enough for a rollback without journal and registry."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

import msgspec

from cumulant.core.errors import IntegrityError, NotFoundError
from cumulant.core.system.atomic_files import replace_file, storage_errors
from cumulant.core.traffic import Arm
from cumulant.ports.deploy import ServedSpec

FOLDER = "stack"
LOOPBACK = "127.0.0.1"
_FILE = "desired_state.json"


class ServedVersion(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A version with all that its server needs to start: it is started from this alone, also weeks later.

    Where several machines serve, they share it without `command` and `port`, which each machine adds for itself.
    """

    version: str
    #: what every machine can read of it; None in a state that an earlier release of Cumulant wrote
    spec: ServedSpec | None = None
    #: the server's command line, without the address
    command: tuple[str, ...] = ()
    #: the same for every life of the server; 0: it has none, since other machines serve the version
    port: int = 0
    #: where the server listens
    host: str = LOOPBACK
    #: when it may be stopped; None: not before it is neither champion nor candidate
    warm_until: datetime | None = None
    #: how often a rolling restart replaced it since `up`
    generation: int = 0

    @property
    def name(self) -> str:
        return f"server-{self.version}" + (f".{self.generation}" if self.generation else "")

    @property
    def endpoint(self) -> str:
        return f"http://[{self.host}]:{self.port}" if ":" in self.host else f"http://{self.host}:{self.port}"


class Rollback(msgspec.Struct, frozen=True, kw_only=True):
    """Rollback of which the journal or the registry has not received everything yet."""

    at: datetime
    version: str
    given_up: tuple[str, ...]
    reason: str
    #: the principal's name
    by: str
    #: names of the deliveries that remain
    pending: tuple[str, ...] = ()

    @property
    def id(self) -> str:
        """What names it among the rollbacks of its model."""
        return f"{self.at.isoformat()}/{self.version}"


class DesiredState(msgspec.Struct, frozen=True, kw_only=True):
    """What should be served of one model. Versions beyond the two arms stay for a rollback."""

    model: str
    champion: str | None = None
    candidate: str | None = None
    #: versions that were the champion before, the newest last
    former: tuple[str, ...] = ()
    #: all that have been the champion, added by `change_desired_state`
    champions: tuple[str, ...] = ()
    versions: dict[str, ServedVersion] = {}
    #: rollbacks that are not delivered yet, the newest last
    rollbacks: tuple[Rollback, ...] = ()
    #: new servers of a rolling restart, which get no requests until they are ready
    starting: tuple[ServedVersion, ...] = ()
    #: servers that a rolling restart replaces, which run until their requests go to the new ones
    retiring: tuple[ServedVersion, ...] = ()
    #: how often a rolling restart replaced the controller, which then reads the project file again
    controller: int = 0
    #: counts its writes
    edition: int = 0

    def arm(self, version: str, name: str) -> Arm:
        """The arm of that name with a version's server; without one, where other machines serve it.

        Raises:
            NotFoundError: the version was never served here.
        """
        served = self.versions.get(version)
        if served is None:
            known = ", ".join(sorted(self.versions)) or "none"
            raise NotFoundError(
                f"version {version} of {self.model} has not been served here",
                subject=f"{self.model}/{version}",
                hint=f"versions that can be served again: {known}",
            )
        return msgspec.convert(
            {"name": name, "version": version, "endpoints": (served.endpoint,) if served.port else ()}, Arm
        )

    @property
    def served_before(self) -> tuple[str, ...]:
        """The versions that answered callers: whatever has been the champion. A candidate need not have."""
        return tuple(dict.fromkeys((*self.champions, *self.former, *filter(None, [self.champion]))))

    @property
    def ports(self) -> set[int]:
        return {server.port for server in (*self.versions.values(), *self.starting, *self.retiring)}

    def running(self, now: datetime) -> tuple[ServedVersion, ...]:
        """Those whose servers should be up: both arms, former champions that are kept warm, and those of a restart."""
        return self.current(now) + self.starting + self.retiring

    def current(self, now: datetime) -> tuple[ServedVersion, ...]:
        """As `running`, without those that replace others or are replaced."""
        return tuple(
            server
            for server in self.versions.values()
            if server.version in {self.champion, self.candidate}
            or (server.warm_until is not None and server.warm_until > now)
        )


def read_desired_state(state: Path, model: str) -> DesiredState:
    """The desired state in a project's state folder; an empty one if it has none.

    Raises:
        IntegrityError: the file is damaged.
    """
    path = _path(state)
    try:
        desired = msgspec.json.decode(path.read_bytes(), type=DesiredState)
    except FileNotFoundError:
        return DesiredState(model=model)
    except (msgspec.DecodeError, OSError) as error:
        raise IntegrityError(
            f"{path} cannot be read: {error}",
            subject=str(path),
            hint="`cumulant down`, then `cumulant up --repair` sets it aside and writes it again from the registry",
        ) from None
    return desired


def change_desired_state(state: Path, model: str, change: Callable[[DesiredState], DesiredState]) -> DesiredState:
    """Write what `change` makes of the desired state, which no other process changes meanwhile; durable on return.

    Raises:
        StorageError: the folder cannot be written.
        IntegrityError: the file is damaged.
    """
    path = _path(state)
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with locked_folder(path.parent):
            desired = next_edition(change(read_desired_state(state, model)))
            replace_file(path, msgspec.json.format(msgspec.json.encode(desired)))
    return desired


def next_edition(desired: DesiredState) -> DesiredState:
    """The desired state as it is written, one edition on."""
    return msgspec.structs.replace(desired, edition=desired.edition + 1, champions=desired.served_before)


def _path(state: Path) -> Path:
    return state / FOLDER / _FILE


@contextmanager
def locked_folder(folder: Path) -> Iterator[None]:
    """Wait for the folder's lock, which ends with the block or the process and is no file. Windows has no such lock."""
    try:
        import fcntl
    except ModuleNotFoundError:
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
