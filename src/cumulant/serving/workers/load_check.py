"""Load check: a model is loaded in a process of its own first, so that a crash ends nothing else.

`python -m cumulant.serving.workers.load_check` is that process: it opens one folder after the other and reports each on
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
from cumulant.serving.content_pins import Pin, check, copy_content, pin, refuse_duplicates
from cumulant.serving.models.passed_checks import PassedChecks
from cumulant.serving.models.repository import Repository
from cumulant.serving.settings import Settings
from cumulant.serving.workers.channel import describe_error, restore_error
from cumulant.serving.workers.opening import ModelOpener

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
    """Result of one folder: its pin, or its error."""

    pin: Pin | None = None
    error: tuple[str, str, str | None, str | None] | None = None


class _CrashError(UsageError):
    """A model crashed the process of its load check."""


#: faults of one folder, for which the others need not stand still; the rest is a fault of the server or its settings
_OF_A_FOLDER = (_CrashError, IntegrityError, NotFoundError, DataError)


class LoadCheck:
    """Checks models in processes of their own, and copies their content; raises the errors of those that fail."""

    def __init__(self, settings: Settings, *, seconds: int = _SECONDS) -> None:
        self._settings, self._seconds = settings, seconds
        self._repository = Repository(settings.folders)
        #: why folders are not served that were there at the start
        self.left_out: dict[str, str] = {}
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._stopped = False

    def stop(self) -> None:
        """Cancel a running check of another thread, and start no others."""
        with self._lock:
            self._stopped = True
            if self._process is not None:
                self._process.kill()

    def check_all(self) -> list[Pin]:
        """Pins at the start of a server; servables that fail the check are reported and excluded.

        Raises:
            CumulantError: one cannot be loaded for a reason that is not its folder's, or none is left.
        """
        folders = self._repository.folders()
        if len(folders) == 1:
            return [self._copy(self._check_single(folders[0]))]
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
        return [self._copy(pinned) for pinned in loadable]

    def _check_single(self, folder: Path) -> Pin:
        """Pin of the only servable, which is checked once per content to keep later starts fast."""
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
        """Register the model names of folders, for those whose description breaks later."""
        self._repository.remember_names({Path(pinned.folder): pinned.name for pinned in pins})

    def versions(self, name: str) -> list[Pin]:
        """Checked and copied content of every version of a model.

        Raises:
            NotFoundError: there is none of that name.
            UsageError: the process that tried one was ended by it.
            EngineUnavailableError: it was stopped.
            CumulantError: as `ModelOpener`.
        """
        pins, fault = self._check_folders(self._repository.versions(name))
        if isinstance(fault, _CrashError):
            raise UsageError(f"{fault.message}; the loaded versions stay active", subject=name[:100], hint=fault.hint)
        if fault is not None:
            raise fault
        return [self._copy(pinned) for pinned in pins]

    def _check_folders(self, folders: Sequence[Path]) -> tuple[list[Pin], CumulantError | None]:
        """Pins of the folders up to the first that failed, and its error."""
        code, output = self._run(msgspec.json.encode(_Orders(self._settings, tuple(map(str, folders)), self._seconds)))
        loadable: list[Pin] = []
        for text in output.splitlines():
            line = msgspec.json.decode(text, type=_Line)
            if line.error is not None:
                return loadable, restore_error(line.error)
            if line.pin is not None:
                loadable.append(line.pin)
        return loadable, None if len(loadable) == len(folders) else _crash_error(
            folders[len(loadable)], code, self._seconds
        )

    def _run(self, orders: bytes) -> tuple[int, bytes]:
        """Exit code and output of a check process with these orders."""
        process = self._start()
        try:
            output, _ = process.communicate(orders)
        finally:
            process.kill()
            code = process.wait()
        if self._stopped:
            raise _stopping_error()
        return code, output

    def _start(self) -> subprocess.Popen[bytes]:
        line = [sys.executable, "-P", "-m", "cumulant.serving.workers.load_check"]
        with self._lock:
            if self._stopped:
                raise _stopping_error()
            self._process = subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            return self._process

    def _copy(self, pinned: Pin) -> Pin:
        if self._settings.artifacts is None:
            return pinned
        # A copy holds no links: where those of the folder lead can be seen here only.
        self._repository.check(Path(pinned.folder))
        return copy_content(pinned, Path(self._settings.artifacts))


def _stopping_error() -> EngineUnavailableError:
    return EngineUnavailableError("the server is ending and loads no models any more")


def _crash_error(folder: Path, code: int, seconds: int) -> _CrashError:
    hint = "build the servable again, or give the machine more memory"
    if code == -signal.SIGALRM:
        how = f"was not ready within {seconds} s"
    elif code < 0:
        how = f"was ended by {signal.Signals(-code).name}"
    else:
        how = f"ended with code {code}"
    return _CrashError(f"{folder} cannot be loaded: the process that tried it {how}", subject=str(folder), hint=hint)


def _lower_priority() -> None:
    """Lower the priority of this process, for processor time and for memory."""
    with contextlib.suppress(OSError, AttributeError):
        os.nice(_NICE)
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")


def main() -> int:
    """Exit code 0 after a report on every folder, or on the first that fails."""
    orders = msgspec.json.decode(sys.stdin.buffer.read(), type=_Orders)
    _lower_priority()
    # The signal ends the process whatever an engine does; Python would not get to hear of a flag.
    signal.alarm(orders.seconds)
    try:
        with bounded_memory():
            _open_all(orders)
    except CumulantError as error:
        _print_line(_Line(error=describe_error(error)))
    # Threads of engines may still hold their last run.
    os._exit(0)


def _open_all(orders: _Orders) -> None:
    opening = ModelOpener(orders.settings, untried=True)
    for folder in map(Path, orders.folders):
        signal.alarm(orders.seconds)
        pinned = pin(folder)
        _try(opening, folder)
        check(pinned)
        _print_line(_Line(pin=pinned))


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


def _print_line(line: _Line) -> None:
    sys.stdout.buffer.write(msgspec.json.encode(line) + b"\n")
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    sys.exit(main())
