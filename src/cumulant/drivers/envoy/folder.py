"""The gateway's folder: what is wanted, who runs, and the files that Envoy watches.

state.json          routes by model, those before them, and a generation that counts every change
door.json           where the gateway listens; true while `running.lock` is held
apply.lock          held by whoever changes state.json
xds/*/*.json        what Envoy watches, made from state.json
exchanges/*.jsonl   what was answered
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from cumulant.core.errors import EngineUnavailableError, StorageError
from cumulant.core.traffic import Routes
from cumulant.ports.traffic import Door

#: begins the name of the folder of a socket
PRIVATE = "cumulant-gateway-"
_WAIT = 60.0
_PAUSE = 0.02


class State(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is wanted. `before` keeps the servers of the routes before, so that requests under way end there."""

    generation: int = 0
    routes: dict[str, Routes] = {}
    before: dict[str, Routes] = {}
    #: of the gateway that started last
    gateway_key_file: str | None = None

    def changed(self, routes: Routes) -> State:
        old = self.routes.get(routes.model)
        before = self.before | ({routes.model: old} if old else {})
        return State(self.generation + 1, self.routes | {routes.model: routes}, before, self.gateway_key_file)


class Seat(msgspec.Struct, frozen=True):
    """A gateway that runs: its door, and the socket of Envoy's own administration."""

    door: Door
    socket: str
    #: the gateway's folder: a copy of it names a socket that is not its own
    folder: str = ""


class Folder:
    """Paths and files of one gateway."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.exchanges = path / "exchanges"
        self.bootstrap = path / "bootstrap.json"
        self.clusters = path / "xds" / "clusters" / "clusters.json"
        self.routes = path / "xds" / "routes" / "routes.json"
        self._state = path / "state.json"
        self._seat = path / "door.json"
        self._running = path / "running.lock"

    @classmethod
    def at(cls, url: str) -> Folder:
        """The folder that `envoy:///abs/gateway` or `envoy://relative/gateway` names; `~` is the user's home."""
        rest = re.sub(r"^//+", "/", re.sub(r"^[A-Za-z][A-Za-z0-9+.-]+:(//)?", "", url, count=1))
        return cls(Path(rest or ".").expanduser().absolute())

    def make(self) -> None:
        for folder in (self.clusters.parent, self.routes.parent, self.exchanges):
            folder.mkdir(parents=True, exist_ok=True)

    def state(self) -> State:
        """What is wanted; nothing where the folder is new."""
        try:
            return msgspec.json.decode(self._state.read_bytes(), type=State)
        except FileNotFoundError:
            return State()
        except msgspec.DecodeError as error:
            raise StorageError(f"{self._state} cannot be read: {error}", subject=str(self._state)) from None

    def write_state(self, state: State) -> None:
        write(self._state, msgspec.json.encode(state))

    def seat(self) -> Seat | None:
        """The gateway that runs, if one does and it is open."""
        seat = self._last()
        return seat if seat and self.is_running() else None

    def write_seat(self, seat: Seat) -> None:
        write(self._seat, msgspec.json.encode(msgspec.structs.replace(seat, folder=str(self.path.resolve()))))

    def remove_seat(self) -> None:
        """Forget the gateway, with the folder of its socket, which stays where it was killed."""
        seat = self._last()
        self._seat.unlink(missing_ok=True)
        private = Path(seat.socket).parent if seat else None
        if seat and private and private.name.startswith(PRIVATE) and seat.folder == str(self.path.resolve()):
            shutil.rmtree(private, ignore_errors=True)

    def _last(self) -> Seat | None:
        try:
            return msgspec.json.decode(self._seat.read_bytes(), type=Seat)
        except (FileNotFoundError, msgspec.DecodeError):
            return None

    def is_running(self) -> bool:
        """Whether the gateway's process lives, which may not be open yet."""
        # A shared lock, so that those who look do not see each other as the gateway.
        try:
            handle = os.open(self._running, os.O_RDONLY)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(handle)
        return False

    @contextmanager
    def running(self) -> Iterator[None]:
        """Be the one gateway of this folder; the system lets go of it however the process ends."""
        with _held(self._running, within=2.0, what="a gateway runs in this folder already"):
            self.remove_seat()
            yield

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Be the one that changes the routes."""
        self.make()
        with _held(
            self.path / "apply.lock", within=_WAIT, what="another process has been changing the routes too long"
        ):
            for path in (self._state, self.clusters, self.routes):
                _forget_drafts(path)
            yield


@contextmanager
def _held(path: Path, *, within: float, what: str) -> Iterator[None]:
    handle = os.open(path, os.O_CREAT | os.O_RDWR, 0o600)
    try:
        deadline = time.monotonic() + within
        while not _take(handle):
            if time.monotonic() > deadline:
                raise EngineUnavailableError(f"{what}: {path.parent}", subject=str(path.parent))
            time.sleep(_PAUSE)
        yield
    finally:
        os.close(handle)


def _take(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _forget_drafts(path: Path) -> None:
    """Remove what a process left that was killed while it wrote; whoever calls is the only writer."""
    for draft in path.parent.glob(f".{path.name}.*"):
        draft.unlink(missing_ok=True)


def write(path: Path, content: bytes) -> None:
    """Replace `path` at once and durably: readers, and Envoy, see the old or the new content.

    Raises:
        StorageError: it cannot be written, as where the disk is full; the old content stays.
    """
    before = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with before.open("wb") as file:
            os.fchmod(file.fileno(), 0o600)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        before.rename(path)
    except OSError as error:
        before.unlink(missing_ok=True)
        raise StorageError(f"{path} cannot be written: {error.strerror}", subject=str(path)) from error
