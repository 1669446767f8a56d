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
from collections.abc import Sequence
from pathlib import Path

import msgspec

from cumulant.core.errors import CumulantError, UsageError
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
            pins, crash = _tried(self._settings, folders)
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
            CumulantError: as `Opening`.
        """
        pins, crash = _tried(self._settings, self._repository.versions(name))
        if crash is not None:
            raise UsageError(f"{crash.message}; what was served goes on", subject=name[:100], hint=crash.hint)
        return [self._keep(one) for one in pins]

    def _keep(self, pinned: Pin) -> Pin:
        return pinned if self._settings.kept is None else keep(pinned, Path(self._settings.kept))


def _tried(settings: Settings, folders: Sequence[Path]) -> tuple[list[Pin], UsageError | None]:
    """Those that could be opened, up to the one at which the process ended. Raises what it told of another one."""
    orders = msgspec.json.encode(_Orders(settings, tuple(map(str, folders))))
    line = [sys.executable, "-m", "cumulant.serving.trial"]
    try:
        ended = subprocess.run(line, input=orders, stdout=subprocess.PIPE, timeout=_SECONDS, check=False)
        code, said = ended.returncode, ended.stdout
    except subprocess.TimeoutExpired as late:
        code, said = None, late.stdout or b""
    found: list[Pin] = []
    for one in said.splitlines():
        told = msgspec.json.decode(one, type=_Line)
        if told.error is not None:
            raise error_of(told.error)
        if told.pin is not None:
            found.append(told.pin)
    return found, None if len(found) == len(folders) else _crash(folders[len(found)], code)


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
