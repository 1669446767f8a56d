"""Bounded runs of an untried graph: one that takes too long or too much memory is aborted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from threading import Thread
from typing import Any

from cumulant.core.errors import DefinitionError
from cumulant.core.system.memory import bounded_memory

#: seconds that a run may take, whatever its rows, and in addition for each row
BASE_SECONDS, ROW_SECONDS = 60.0, 0.1


def run_bounded(session: Any, outputs: Sequence[str] | None, feeds: Mapping[str, Any]) -> list[Any]:
    """`session.run(outputs, feeds)`, aborted after a time limit; the run ends after its current operator.

    Its memory is bounded by the machine's (`bounded_memory`).

    Raises:
        DefinitionError: it took longer than a minute and a tenth of a second for each row.
        Exception: what onnxruntime raises.
    """
    return run_each_bounded(session, outputs, [feeds])[0]


def run_each_bounded(
    session: Any, outputs: Sequence[str] | None, several: Sequence[Mapping[str, Any]]
) -> list[list[Any]]:
    """`run_bounded` of each feeds, one after the other, for the price of one thread and one bound of memory."""
    import onnxruntime

    options = onnxruntime.RunOptions()
    answers: list[Future[list[Any]]] = [Future() for _ in several]
    # On another thread: while the engine runs, this one would hear of no signal.
    thread = Thread(target=_run, args=(answers, session, outputs, several, options), daemon=True)
    try:
        with bounded_memory():
            thread.start()
            return [_within(answer, _limit(feeds)) for answer, feeds in zip(answers, several, strict=True)]
    finally:
        options.terminate = True


def _limit(feeds: Mapping[str, Any]) -> float:
    rows = max((value.shape[0] for value in feeds.values() if getattr(value, "ndim", 0)), default=1)
    return BASE_SECONDS + ROW_SECONDS * rows


def _within(answer: Future[list[Any]], limit: float) -> list[Any]:
    try:
        return answer.result(limit)
    except TimeoutError:
        raise DefinitionError(
            f"a run of the graph took more than {limit:g} s",
            hint="the model is too slow to be served, or has a Loop without an end: check it, and export it again",
        ) from None


def _run(
    answers: Sequence[Future[list[Any]]], session: Any, outputs: Sequence[str] | None, several: Any, options: Any
) -> None:
    for answer, feeds in zip(answers, several, strict=True):
        try:
            answer.set_result(session.run(outputs, feeds, options))
        except Exception as error:  # noqa: BLE001 - the waiting thread raises it
            answer.set_exception(error)
            return
