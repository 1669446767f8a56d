"""What a runner reports of the requests that it runs."""

from __future__ import annotations

from typing import Protocol

#: the part of a request in which the engine runs, in traces
RUN = "run model"


class RunObserver(Protocol):
    """Observer of the current request, called in its context."""

    def record_run(self, waited: float) -> None: ...

    def record_stage(self, name: str, began: float, seconds: float) -> None: ...

    def record_hit(self) -> None: ...
