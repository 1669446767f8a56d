"""A model is tried in a process of its own before it is loaded: one that ends its process ends nothing else.

`python -m cumulant.serving.trial` is that process: it opens one folder after the other and tells of each on standard
output.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

import msgspec

from cumulant.core.errors import CumulantError, EngineUnavailableError, UsageError
from cumulant.serving.channel import error_of, told_of
from cumulant.serving.opening import Opening
from cumulant.serving.pins import Pin, check, keep, pin
from cumulant.serving.repository import Repository
from cumulant.serving.settings import Settings

#: to load and warm all of them
_SECONDS = 600.0
#: other work goes first
_NICE = 10


class _Orders(msgspec.Struct, frozen=True):
    settings: Settings
    folders: tuple[str, ...]


class _Line(msgspec.Struct, omit_defaults=True):
    """A folder that was opened, or what was wrong with it."""

    pin: Pin | None = None
    error: tuple[str, str, str | None, str | None] | None = None


class Trial:
    """Tries models in processes of their own, and keeps the content that was tried where the server has a place for it.

    Raises what cannot be loaded, and leaves everything else as it is.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._repository = Repository(settings.folders)
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._stopped = False

    def stop(self) -> None:
        """End the trial that is under way on another thread, and begin no other."""
        with self._lock:
            self._stopped = True
            if self._process is not None:
                self._process.kill()

    def first(self) -> list[Pin]:
        """What a server starts with; a model that ends its process is named on standard error and left out.

        A single model is not tried: without it there is nothing to serve, and whoever started the server hears of it.

        Raises:
            CumulantError: one cannot be loaded for another reason, or none is left.
        """
        folders = self._repository.folders()
        if len(folders) == 1:
            return [self._keep(pin(folders[0]))]
        found: list[Pin] = []
        while folders:
            pins, crash = self._tried(folders)
            found += pins
            folders = folders[len(pins) + 1 :]
            if crash is not None:
                sys.stderr.write(f"{crash.message}; the server starts without it\n")
                if not folders and not found:
                    raise crash
        return [self._keep(one) for one in found]

    def versions(self, name: str) -> list[Pin]:
        """Every version of a model as its folders hold it now, tried and kept.

        Raises:
            NotFoundError: there is none of that name.
            UsageError: the process that tried one was ended by it.
            EngineUnavailableError: it was stopped.
            CumulantError: as `Opening`.
        """
        pins, crash = self._tried(self._repository.versions(name))
        if crash is not None:
            raise UsageError(f"{crash.message}; what was served goes on", subject=name[:100], hint=crash.hint)
        return [self._keep(one) for one in pins]

    def _tried(self, folders: Sequence[Path]) -> tuple[list[Pin], UsageError | None]:
        """Those that could be opened, up to the one at which the process ended. Raises what it told of another one."""
        code, said = self._run(msgspec.json.encode(_Orders(self._settings, tuple(map(str, folders)))))
        found: list[Pin] = []
        for one in said.splitlines():
            told = msgspec.json.decode(one, type=_Line)
            if told.error is not None:
                raise error_of(told.error)
            if told.pin is not None:
                found.append(told.pin)
        return found, None if len(found) == len(folders) else _crash(folders[len(found)], code)

    def _run(self, orders: bytes) -> tuple[int | None, bytes]:
        """The exit code of a process with these orders, None where it took too long, and what it said."""
        code: int | None = None
        process = self._started()
        try:
            said, _ = process.communicate(orders, timeout=_SECONDS)
            code = process.returncode
        except subprocess.TimeoutExpired:
            process.kill()
            said, _ = process.communicate()
        finally:
            process.kill()
            process.wait()
        if self._stopped:
            raise _ending()
        return code, said

    def _started(self) -> subprocess.Popen[bytes]:
        line = [sys.executable, "-m", "cumulant.serving.trial"]
        with self._lock:
            if self._stopped:
                raise _ending()
            self._process = subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            return self._process

    def _keep(self, pinned: Pin) -> Pin:
        if self._settings.kept is None:
            return pinned
        # A copy holds no links: where those of the folder lead can be seen here only.
        self._repository.check(Path(pinned.folder))
        return keep(pinned, Path(self._settings.kept))


def _ending() -> EngineUnavailableError:
    return EngineUnavailableError("the server is ending and loads no models any more")


def _crash(folder: Path, code: int | None) -> UsageError:
    hint = "build the servable again, or give the machine more memory"
    if code is None:
        how = f"was not ready within {_SECONDS:g} s"
    elif code < 0:
        how = f"was ended by {signal.Signals(-code).name}"
    else:
        how = f"ended with code {code}"
    return UsageError(f"{folder} cannot be loaded: the process that tried it {how}", subject=str(folder), hint=hint)


def _first_to_go() -> None:
    """Where the system runs out of time or memory, it is this process that waits or ends."""
    with contextlib.suppress(OSError, AttributeError):
        os.nice(_NICE)
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")


def main() -> int:
    """Exit code 0 when it told of every folder, or of one that cannot be opened."""
    orders = msgspec.json.decode(sys.stdin.buffer.read(), type=_Orders)
    _first_to_go()
    try:
        opening = Opening(orders.settings)
        for folder in map(Path, orders.folders):
            pinned = pin(folder)
            opening(folder).close()
            check(pinned)
            _say(_Line(pin=pinned))
    except CumulantError as error:
        _say(_Line(error=told_of(error)))
    # Threads of engines may still hold their last run.
    os._exit(0)


def _say(line: _Line) -> None:
    sys.stdout.buffer.write(msgspec.json.encode(line) + b"\n")
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    sys.exit(main())
