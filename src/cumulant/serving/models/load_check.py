"""A model is tried in a process of its own before it is loaded: one that ends its process ends nothing else.

`python -m cumulant.serving.models.load_check` is that process: it opens one folder after the other and reports each on
standard output.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec

from cumulant.core.errors import (
    CumulantError,
    DataError,
    DefinitionError,
    EngineUnavailableError,
    IntegrityError,
    NotFoundError,
    UsageError,
)
from cumulant.core.system.memory import bounded_memory
from cumulant.serving.models.content_pins import Pin, check, copy_content, pin, refuse_duplicates
from cumulant.serving.models.opening import ModelOpener
from cumulant.serving.models.passed_checks import PassedChecks
from cumulant.serving.models.repository import Repository
from cumulant.serving.settings import Settings
from cumulant.serving.workers.channel import describe_error, restore_error

#: to load and warm one version; until then other changes of the models wait
_SECONDS = 300
#: other work goes first
_NICE = 10


class _Orders(msgspec.Struct, frozen=True):
    settings: Settings
    folders: tuple[str, ...]
    #: that each may take
    seconds: int


class _Line(msgspec.Struct, omit_defaults=True):
    """A folder that was opened, or what was wrong with it."""

    pin: Pin | None = None
    error: tuple[str, str, str | None, str | None] | None = None


class _CrashError(UsageError):
    """A model ended the process that tried it."""


#: faults of one folder, for which the others need not stand still; the rest is told of the server or its settings
_OF_A_FOLDER = (_CrashError, IntegrityError, NotFoundError, DataError)


class LoadCheck:
    """Tries models in processes of their own, and keeps the content that was tried where the server has a place for it.

    Raises what cannot be loaded, and leaves everything else as it is.
    """

    def __init__(self, settings: Settings, *, seconds: int = _SECONDS) -> None:
        self._settings, self._seconds = settings, seconds
        self._repository = Repository(settings.folders)
        #: why folders are not served that were there at the start
        self.left_out: dict[str, str] = {}
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._stopped = False

    def stop(self) -> None:
        """End the trial that is under way on another thread, and begin no other."""
        with self._lock:
            self._stopped = True
            if self._process is not None:
                self._process.kill()

    def check_all(self) -> list[Pin]:
        """What a server starts with; a servable that is broken, or ends its process, is named on standard error and
        left out.

        Raises:
            CumulantError: one cannot be loaded for a reason that is not its folder's, or none is left.
        """
        folders = self._repository.folders()
        if len(folders) == 1:
            return [self._keep(self._only(folders[0]))]
        loadable: list[Pin] = []
        while folders:
            pins, fault = self._check_folders(folders)
            loadable += pins
            rest = folders[len(pins) + 1 :]
            if fault is not None:
                if not isinstance(fault, _OF_A_FOLDER) or not (rest or loadable):
                    raise fault
                self._leave_out(folders[len(pins)], fault)
            folders = rest
        refuse_duplicates(loadable)
        return [self._keep(pinned) for pinned in loadable]

    def _only(self, folder: Path) -> Pin:
        """What a start does each time has to cost little: a single servable is tried once for its content."""
        passed, pinned = PassedChecks(self._settings.passed), pin(folder)
        if pinned in passed:
            return pinned
        pins, fault = self._check_folders([folder])
        if fault is not None:
            raise fault
        passed.add(pins[0])
        return pins[0]

    def _leave_out(self, folder: Path, fault: CumulantError) -> None:
        self.left_out[str(folder)] = fault.message
        named = fault.message if str(folder) in fault.message else f"{folder}: {fault.message}"
        sys.stderr.write(f"{named}; the server starts without it\n")

    def remember_names(self, pins: Iterable[Pin]) -> None:
        """Whose folders are whose: one that is broken later has no name to be found by."""
        self._repository.remember_names({Path(pinned.folder): pinned.name for pinned in pins})

    def versions(self, name: str) -> list[Pin]:
        """Every version of a model as its folders hold it now, tried and kept.

        Raises:
            NotFoundError: there is none of that name.
            UsageError: the process that tried one was ended by it.
            EngineUnavailableError: it was stopped.
            CumulantError: as `Opening`.
        """
        pins, fault = self._check_folders(self._repository.versions(name))
        if isinstance(fault, _CrashError):
            raise UsageError(f"{fault.message}; what was served goes on", subject=name[:100], hint=fault.hint)
        if fault is not None:
            raise fault
        return [self._keep(pinned) for pinned in pins]

    def _check_folders(self, folders: Sequence[Path]) -> tuple[list[Pin], CumulantError | None]:
        """Those that could be opened, up to the first that could not, and what was wrong with that one."""
        code, output = self._run(msgspec.json.encode(_Orders(self._settings, tuple(map(str, folders)), self._seconds)))
        loadable: list[Pin] = []
        for text in output.splitlines():
            line = msgspec.json.decode(text, type=_Line)
            if line.error is not None:
                return loadable, restore_error(line.error)
            if line.pin is not None:
                loadable.append(line.pin)
        return loadable, None if len(loadable) == len(folders) else _crash(folders[len(loadable)], code, self._seconds)

    def _run(self, orders: bytes) -> tuple[int, bytes]:
        """The exit code of a process with these orders, and what it said."""
        process = self._started()
        try:
            output, _ = process.communicate(orders)
        finally:
            process.kill()
            code = process.wait()
        if self._stopped:
            raise _ending()
        return code, output

    def _started(self) -> subprocess.Popen[bytes]:
        line = [sys.executable, "-P", "-m", "cumulant.serving.models.load_check"]
        with self._lock:
            if self._stopped:
                raise _ending()
            self._process = subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            return self._process

    def _keep(self, pinned: Pin) -> Pin:
        if self._settings.artifacts is None:
            return pinned
        # A copy holds no links: where those of the folder lead can be seen here only.
        self._repository.check(Path(pinned.folder))
        return copy_content(pinned, Path(self._settings.artifacts))


def _ending() -> EngineUnavailableError:
    return EngineUnavailableError("the server is ending and loads no models any more")


def _crash(folder: Path, code: int, seconds: int) -> _CrashError:
    hint = "build the servable again, or give the machine more memory"
    if code == -signal.SIGALRM:
        how = f"was not ready within {seconds} s"
    elif code < 0:
        how = f"was ended by {signal.Signals(-code).name}"
    else:
        how = f"ended with code {code}"
    return _CrashError(f"{folder} cannot be loaded: the process that tried it {how}", subject=str(folder), hint=hint)


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
    # The signal ends the process whatever an engine does; Python would not get to hear of a flag.
    signal.alarm(orders.seconds)
    try:
        with bounded_memory():
            _open_all(orders)
    except CumulantError as error:
        _say(_Line(error=describe_error(error)))
    # Threads of engines may still hold their last run.
    os._exit(0)


def _open_all(orders: _Orders) -> None:
    opening = ModelOpener(orders.settings, untried=True)
    for folder in map(Path, orders.folders):
        signal.alarm(orders.seconds)
        pinned = pin(folder)
        _try(opening, folder)
        check(pinned)
        _say(_Line(pin=pinned))


def _try(opening: ModelOpener, folder: Path) -> None:
    try:
        model = opening(folder)
        model.try_run()
    except DefinitionError as error:  # a run took too long or too much memory: that is the folder's fault alone
        raise IntegrityError(f"{folder}: {error.message}", subject=str(folder), hint=error.hint) from None
    except MemoryError:
        hint = "use a smaller model, or a machine with more memory"
        raise IntegrityError(f"{folder} has too little memory to run", subject=str(folder), hint=hint) from None
    model.close()


def _say(line: _Line) -> None:
    sys.stdout.buffer.write(msgspec.json.encode(line) + b"\n")
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    sys.exit(main())
