"""The gateway's folder: what is in force, who runs, and the log, each changed whole or not at all."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import msgspec

from cumulant.core.errors import EngineUnavailableError, LeaseHeldError, StorageError
from cumulant.core.traffic import Routes
from cumulant.ports.traffic import Door

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

_PAUSE, _WAIT = 0.01, 10.0
_decode_routes = msgspec.json.Decoder(dict[str, Routes]).decode
_decode_door = msgspec.json.Decoder(Door).decode
_encode = msgspec.json.Encoder().encode


class Folder:
    """The files of one gateway. Raises StorageError where they cannot be read or written."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.log = path / "exchanges"

    def routes(self) -> dict[str, Routes]:
        """By model, as last applied."""
        try:
            return _decode_routes((self.path / "routes.json").read_bytes())
        except FileNotFoundError:
            return {}
        except (OSError, msgspec.DecodeError) as error:
            raise self._error("the routes cannot be read", error) from error

    def put(self, routes: Routes) -> None:
        """Keep these routes, unless others of a higher revision are kept.

        Raises:
            LeaseHeldError: they are.
            EngineUnavailableError: another process holds the lock.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            with held(self.path / "routes.lock", wait=_WAIT):
                for draft in self.path.glob(".routes.json.*"):  # of one that was killed while it wrote
                    draft.unlink(missing_ok=True)
                self._replace(routes)
        except OSError as error:
            raise self._error("the routes cannot be written", error) from error

    def _replace(self, routes: Routes) -> None:
        kept = self.routes()
        present = kept.get(routes.model)
        if present is not None and not present.gives_way_to(routes):
            raise LeaseHeldError(
                f"routes of {routes.model} in force have revision {present.revision}, not below {routes.revision}",
                subject=routes.model,
                hint="another controller went on; read what is in force before changing it",
            )
        if present != routes:
            self._publish(self._aside("routes.json", kept | {routes.model: routes}), "routes.json")

    def door(self) -> Door | None:
        """Where the gateway listens, while it runs: it locks its door, which the system frees however it ends."""
        try:
            with (self.path / "door.json").open("rb") as file:
                told = _decode_door(file.read())
                runs = not _take(file.fileno(), shared=True)
        except FileNotFoundError:
            return None
        except (OSError, msgspec.DecodeError) as error:
            raise self._error("the gateway's addresses cannot be read", error) from error
        return told if runs else None

    @contextmanager
    def open_door(self, door: Door) -> Iterator[None]:
        """Say where the gateway listens, until the block ends or the process does."""
        with self._locked_door(door):
            try:
                yield
            finally:
                self.close_door()

    def _locked_door(self, door: Door) -> BinaryIO:
        # The lock goes with the file to its name: no reader takes the door of a gateway that died for an open one.
        try:
            aside = self._aside("door.json", door)
            file = aside.open("rb")
            _take(file.fileno(), shared=False)
            self._publish(aside, "door.json")
        except OSError as error:
            raise self._error("the gateway's addresses cannot be written", error) from error
        return file

    def close_door(self) -> None:
        with contextlib.suppress(OSError):
            (self.path / "door.json").unlink()

    def _aside(self, name: str, value: Door | Mapping[str, Routes]) -> Path:
        aside = self.path / f".{name}.{os.getpid()}-{time.monotonic_ns()}"
        try:
            with aside.open("wb") as file:
                file.write(_encode(value))
                file.flush()
                os.fsync(file.fileno())
        except OSError:
            aside.unlink(missing_ok=True)
            raise
        return aside

    def _publish(self, aside: Path, name: str) -> None:
        aside.replace(self.path / name)
        if sys.platform != "win32":
            folder = os.open(self.path, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)

    def _error(self, what: str, error: Exception) -> StorageError:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        return StorageError(
            f"{what} in {self.path}: {reason}", subject=str(self.path), hint="check space and permissions"
        )


@contextmanager
def held(path: Path, *, wait: float, shared: bool = False) -> Iterator[None]:
    """Hold the lock file; the system lets go of it when this process dies, however it dies.

    Raises:
        EngineUnavailableError: another process has held it for `wait` seconds.
        OSError: the file cannot be made.
    """
    handle = os.open(path, os.O_CREAT | os.O_RDWR, 0o600)
    try:
        deadline = time.monotonic() + wait
        while not _take(handle, shared=shared):
            if time.monotonic() >= deadline:
                raise EngineUnavailableError(f"{path} is held by another process", subject=str(path))
            time.sleep(_PAUSE)
        yield
    finally:
        os.close(handle)


def _take(handle: int, *, shared: bool) -> bool:
    try:
        if sys.platform == "win32":
            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
        else:
            fcntl.flock(handle, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
