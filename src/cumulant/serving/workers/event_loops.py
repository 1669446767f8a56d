"""Event loops and termination signals."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_LOOK_SECONDS = 1.0
#: Python's own 5 ms are longer than most runs of a model: its thread, done, would wait that long for a busy loop
_TURN_SECONDS = 0.0005
_ENDINGS = (signal.SIGTERM, signal.SIGINT)


def new_loop() -> asyncio.AbstractEventLoop:
    """Event loop of uvloop where installed, else of asyncio."""
    try:
        import uvloop
    except ModuleNotFoundError:
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()


@contextmanager
def shorten_thread_turns() -> Iterator[None]:
    """Shorter thread switch interval, so that a busy event loop does not delay the engine's thread."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(min(before, _TURN_SECONDS))
    try:
        yield
    finally:
        sys.setswitchinterval(before)


@contextmanager
def loaded_objects_frozen() -> Iterator[None]:
    """The garbage collector leaves out what is loaded by now, which took it 50 to 100 ms each time that it looked at
    everything.
    """
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


@contextmanager
def end_on_signals(ended: asyncio.Event, parent: int | None = None) -> Iterator[None]:
    """SIGTERM and SIGINT set `ended`, and so does the end of the process `parent`.

    Afterwards they do nothing: a second signal does not cut off what is still being written. `restore_signals`
    ends that. In a thread of another program, its handlers stay.
    """
    if parent is not None:
        _watch(parent, ended)
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    loop = asyncio.get_running_loop()
    removed: Callable[[int], object] = loop.remove_signal_handler
    try:
        for number in _ENDINGS:
            loop.add_signal_handler(number, ended.set)
    except NotImplementedError:  # Windows
        for number in _ENDINGS:
            signal.signal(number, lambda *_: loop.call_soon_threadsafe(ended.set))
        removed = _nothing
    try:
        yield
    finally:
        for number in _ENDINGS:
            removed(number)
            # Not SIG_IGN, which processes that are started afterwards would inherit.
            signal.signal(number, _nothing)


@contextmanager
def restore_signals() -> Iterator[None]:
    """Restore the handlers of SIGTERM and SIGINT when the block ends."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in _ENDINGS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _nothing(*_: object) -> None:
    """A handler."""


def _watch(parent: int, ended: asyncio.Event) -> None:
    if os.getppid() != parent:
        ended.set()
    elif not ended.is_set():
        asyncio.get_running_loop().call_later(_LOOK_SECONDS, _watch, parent, ended)
