"""Prefetching: a step of a pipeline in a thread of its own, a few items ahead of its consumer."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from queue import Empty, Full, Queue
from typing import TypeVar

Item = TypeVar("Item")
_POLL_SECONDS = 0.1
_END = object()


class _Failed:
    def __init__(self, error: BaseException) -> None:
        self.error = error


@contextmanager
def prefetch(items: Iterable[Item], depth: int = 1) -> Iterator[Iterator[Item]]:
    """The items, taken by a thread at most `depth` + 1 ahead, until the block ends; its error is raised here."""
    queue: Queue[object] = Queue(depth)
    stop = threading.Event()
    thread = threading.Thread(target=_fill, args=(items, queue, stop), daemon=True)
    thread.start()
    try:
        yield _drain(queue)
    finally:
        stop.set()
        _empty(queue)
        thread.join()


def _fill(items: Iterable[object], queue: Queue[object], stop: threading.Event) -> None:
    try:
        for item in items:
            if not _put(queue, item, stop):
                return
    except BaseException as error:  # noqa: BLE001 - it is raised in the thread that waits for the item
        _put(queue, _Failed(error), stop)
        return
    _put(queue, _END, stop)


def _put(queue: Queue[object], item: object, stop: threading.Event) -> bool:
    while not stop.is_set():
        try:
            queue.put(item, timeout=_POLL_SECONDS)
        except Full:
            continue
        return True
    return False


def _drain(queue: Queue[object]) -> Iterator[Item]:
    while (item := queue.get()) is not _END:
        if isinstance(item, _Failed):
            raise item.error
        yield item  # type: ignore[misc]


def _empty(queue: Queue[object]) -> None:
    try:
        while True:
            queue.get_nowait()
    except Empty:
        return
