"""Runs of a graph that nobody knows yet: one that does not come to an end is stopped, also by Ctrl-C."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from cumulant.core.errors import DefinitionError

#: seconds that a run may take, whatever its rows, and in addition for each row
BASE_SECONDS, ROW_SECONDS = 60.0, 0.1


def run_bounded(session: Any, outputs: Sequence[str] | None, feeds: Mapping[str, Any]) -> list[Any]:
    """`session.run(outputs, feeds)`, stopped between two operators once its time is over.

    Raises:
        DefinitionError: it took longer than a minute and a tenth of a second for each row.
        Exception: what onnxruntime raises.
    """
    import onnxruntime

    options = onnxruntime.RunOptions()
    rows = max((value.shape[0] for value in feeds.values() if getattr(value, "ndim", 0)), default=1)
    limit = BASE_SECONDS + ROW_SECONDS * rows
    # On another thread: while the engine runs, this one would hear of no signal.
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(session.run, outputs, feeds, options)
        try:
            found: list[Any] = future.result(limit)
        except TimeoutError:
            raise DefinitionError(
                f"the graph does not come to an end: a run took more than {limit:g} s",
                hint="look for a Loop without an end in the model, and export it again",
            ) from None
        finally:
            options.terminate = True
    return found
