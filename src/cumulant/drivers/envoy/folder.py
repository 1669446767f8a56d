"""The gateway's folder: desired routes, the running process, and the files that Envoy watches.

state.json          routes by model, the previous ones, and a generation that counts every change
gateway.lock        locked by the only gateway
running.lock        locked by it once no record of an earlier one remains
address.json        where the gateway listens; valid while `running.lock` is locked
apply.lock          locked by the process that changes state.json
readiness.json      until when the gateway is ready, or why it is not, written by an agent
xds/*/*.json        the files that Envoy watches, made from state.json
exchanges/*.jsonl   the exchange log
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
from cumulant.core.system.atomic_files import replace_file, storage_errors
from cumulant.core.system.locks import lock_file
from cumulant.core.traffic import Routes
from cumulant.ports.traffic import GatewayAddress

#: prefix of the name of the folder of a socket
PRIVATE = "cumulant-gateway-"
_WAIT = 60.0


class RoutesBusyError(EngineUnavailableError):
    """Another process changes the routes."""


class GatewayState(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """The desired routes. `before`: the previous routes, whose servers complete the requests in progress.

    Without a field that is not used, so that the release of Cumulant before it reads the file too.
    """

    generation: int = 0
    routes: dict[str, Routes] = {}
    before: dict[str, Routes] = {}
    #: of the gateway that started last
    gateway_key_file: str | None = None
    #: whether it has an agent
    agent: bool = False
    #: how many share the rates
    gateways: int = 1

    def with_routes(self, routes: Routes) -> GatewayState:
        old = self.routes.get(routes.model)
        before = self.before | ({routes.model: old} if old else {})
        return msgspec.structs.replace(
            self, generation=self.generation + 1, routes=self.routes | {routes.model: routes}, before=before
        )

    def shared_by(self, gateways: int) -> GatewayState:
        """Of the same generation where no route has a rate: Envoy takes no table that is as the one before."""
        has_rate = any(routes.limits.rate is not None for routes in self.routes.values())
        return msgspec.structs.replace(self, generation=self.generation + has_rate, gateways=gateways)


class RunningGateway(msgspec.Struct, frozen=True):
    """A running gateway: its addresses, and the socket of Envoy's administration interface."""

    address: GatewayAddress
    socket: str
    #: the gateway's folder: in a copy of it, the socket is not the copy's
    folder: str = ""


class Readiness(msgspec.Struct, frozen=True):
    """The gateway is ready for `seconds`, to the moment `until` of the machine's monotonic clock; or not, and why."""

    until: float = 0.0
    seconds: float = 0.0
    reason: str = ""

    @classmethod
    def lasting(cls, seconds: float, reason: str = "") -> Readiness:
        return cls(time.monotonic() + seconds, seconds, reason)

    @property
    def fault(self) -> str:
        """Why the gateway is not ready; empty while it is. The clock begins anew where the machine is started again."""
        if 0.0 < self.until - time.monotonic() <= self.seconds:
            return ""
        return self.reason or "the agent does not confirm the routes"


class Folder:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.exchanges = path / "exchanges"
        self.bootstrap = path / "bootstrap.json"
        self.clusters = path / "xds" / "clusters" / "clusters.json"
        self.routes = path / "xds" / "routes" / "routes.json"
        self._state = path / "state.json"
        self._gateway = path / "address.json"
        self._owned = path / "gateway.lock"
        self._running = path / "running.lock"
        self._readiness = path / "readiness.json"

    @classmethod
    def at(cls, url: str) -> Folder:
        """The folder that `envoy:///abs/gateway` or `envoy://relative/gateway` names; `~` is the user's home."""
        rest = re.sub(r"^//+", "/", re.sub(r"^[A-Za-z][A-Za-z0-9+.-]+:(//)?", "", url, count=1))
        return cls(Path(rest or ".").expanduser().absolute())

    def make(self) -> None:
        for folder in (self.clusters.parent, self.routes.parent, self.exchanges):
            folder.mkdir(parents=True, exist_ok=True)

    def state(self) -> GatewayState:
        """The desired state; empty if the folder is new."""
        try:
            return msgspec.json.decode(self._state.read_bytes(), type=GatewayState)
        except FileNotFoundError:
            return GatewayState()
        except msgspec.DecodeError as error:
            raise StorageError(f"{self._state} cannot be read: {error}", subject=str(self._state)) from None

    def write_state(self, state: GatewayState) -> None:
        write_file(self._state, msgspec.json.encode(state))

    def gateway(self) -> RunningGateway | None:
        """The running gateway; None if none runs or it does not listen yet."""
        gateway = self._read_gateway()
        return gateway if gateway and self.is_running() else None

    def write_gateway(self, gateway: RunningGateway) -> None:
        write_file(
            self._gateway, msgspec.json.encode(msgspec.structs.replace(gateway, folder=str(self.path.resolve())))
        )

    def remove_gateway(self) -> None:
        """Remove the gateway's record and the folder of its socket, which remain after a killed process."""
        gateway = self._read_gateway()
        self._gateway.unlink(missing_ok=True)
        private = Path(gateway.socket).parent if gateway else None
        if gateway and private and private.name.startswith(PRIVATE) and gateway.folder == str(self.path.resolve()):
            shutil.rmtree(private, ignore_errors=True)

    def _read_gateway(self) -> RunningGateway | None:
        try:
            return msgspec.json.decode(self._gateway.read_bytes(), type=RunningGateway)
        except (FileNotFoundError, msgspec.DecodeError):
            return None

    def is_running(self) -> bool:
        # A shared lock, so that processes that check do not take each other for the gateway.
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

    def readiness(self) -> Readiness:
        """The last report of the agent; not ready where there is none."""
        try:
            return msgspec.json.decode(self._readiness.read_bytes(), type=Readiness)
        except (OSError, msgspec.DecodeError):
            return Readiness()

    def write_readiness(self, readiness: Readiness) -> None:
        with storage_errors(self._readiness):
            replace_file(self._readiness, msgspec.json.encode(readiness), durable=False)

    @contextmanager
    def lock_gateway(self) -> Iterator[None]:
        """Lock the folder for its only gateway; the system releases the lock however the process ends."""
        busy = EngineUnavailableError(f"a gateway runs in this folder already: {self.path}", subject=str(self.path))
        with lock_file(self._owned, busy, wait=2.0, private=True):
            # The record of a killed gateway goes before `is_running` is true: no reader takes it for this gateway's.
            self.remove_gateway()
            with lock_file(self._running, busy, wait=2.0, private=True):
                yield

    @contextmanager
    def lock_routes(self, *, wait: float = _WAIT) -> Iterator[None]:
        """Lock the folder for a change of the routes.

        Raises:
            RoutesBusyError: another process has been changing them for `wait` seconds.
        """
        self.make()
        message = f"another process has been changing the routes too long: {self.path}"
        busy = RoutesBusyError(message, subject=str(self.path))
        with lock_file(self.path / "apply.lock", busy, wait=wait, private=True):
            for path in (self._state, self.clusters, self.routes):
                for draft in path.parent.glob(f".{path.name}.*"):
                    draft.unlink(missing_ok=True)
            yield


def write_file(path: Path, content: bytes) -> None:
    """Replace `path` atomically and durably: readers, and Envoy, see the old or the new content.

    Raises:
        StorageError: it cannot be written, such as on a full disk; the old content remains.
    """
    with storage_errors(path):
        replace_file(path, content, private=True)
