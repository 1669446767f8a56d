"""Child processes of a supervisor: start, delay before the next start, and end by SIGTERM, then SIGKILL."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from typing import IO

#: seconds before the next start after so many short lives in a row
_DELAYS = (0.0, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
_SET_DEATH_SIGNAL = 1
#: seconds between two looks at whether a child has ended
_PAUSE = 0.02


class RestartDelay:
    """Delay before the next start: it grows with each life that ends before `reset`."""

    def __init__(self, longest: float) -> None:
        """`longest`: seconds."""
        self._longest = longest
        #: lives that ended since `reset`
        self.ends = 0

    def reset(self) -> None:
        """Call this for a life that was long enough."""
        self.ends = 0

    def after_end(self) -> float:
        """Seconds before the next start, of a life that has just ended."""
        delay = _DELAYS[min(self.ends, len(_DELAYS) - 1)]
        self.ends += 1
        return min(delay, self._longest)


def start(
    line: Sequence[str],
    *,
    content: bytes | None = None,
    stdout: int = subprocess.DEVNULL,
    stderr: int | IO[bytes] | None = None,
    pass_fds: Collection[int] = (),
    env: Mapping[str, str] | None = None,
    own_session: bool = True,
    death_signal: signal.Signals | None = None,
) -> subprocess.Popen[bytes]:
    """Start a program, by default in a session of its own: signals of a terminal reach its supervisor only.

    `content`: its standard input, for what an argument would show to every user of the machine. `death_signal`: what
    the system sends to it when this process dies (on Linux).

    Raises:
        OSError: the system cannot start it.
    """
    process = subprocess.Popen(
        line,
        stdin=subprocess.DEVNULL if content is None else subprocess.PIPE,
        stdout=stdout,
        stderr=stderr,
        pass_fds=pass_fds,
        env=env,
        start_new_session=own_session,
        preexec_fn=_bind_to_parent(death_signal),  # noqa: PLW1509 - it calls the system and nothing else
    )
    if content is not None:
        assert process.stdin is not None
        with suppress(BrokenPipeError), process.stdin as stream:  # it has ended already, which its supervisor notices
            stream.write(content)
    return process


def stop(process: subprocess.Popen[bytes], patience: float) -> bool:
    """Ask a process to end; as `wait_or_kill`."""
    process.terminate()
    return wait_or_kill(process, patience)


def wait_or_kill(process: subprocess.Popen[bytes], patience: float) -> bool:
    """Wait `patience` seconds for the end of a process, then kill it; returns whether it ended by itself."""
    try:
        process.wait(max(0.0, patience))
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        return False
    return True


def end_child(pid: int, patience: float) -> None:
    """Ask a child of this process to end, and kill it after `patience` seconds or where the wait is interrupted, such
    as by a second Ctrl-C; nothing happens if it is gone.
    """
    deadline = time.monotonic() + patience
    with suppress(ProcessLookupError, ChildProcessError):
        try:
            os.kill(pid, signal.SIGTERM)
            while os.waitpid(pid, os.WNOHANG) == (0, 0):
                if time.monotonic() >= deadline:
                    _kill(pid)
                    return
                time.sleep(_PAUSE)
        except (KeyboardInterrupt, SystemExit):
            _kill(pid)
            raise


def _kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def kill_group(pid: int) -> None:
    """Kill a process that leads a session and all that it has started; nothing happens if it is gone."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


def _bind_to_parent(death_signal: signal.Signals | None) -> Callable[[], None] | None:
    if death_signal is None or sys.platform != "linux":
        return None
    # Loaded here: between fork and exec nothing may be.
    prctl, parent = ctypes.CDLL(None).prctl, os.getpid()

    def bind() -> None:
        prctl(_SET_DEATH_SIGNAL, death_signal)
        if os.getppid() != parent:  # it died in between
            os._exit(1)

    return bind
