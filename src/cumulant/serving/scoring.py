"""One request through one model, whichever way it came: read, run, answer, count."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Generic, Protocol, TypeVar

import msgspec

from cumulant.core.errors import CumulantError
from cumulant.packaging.engine import Array
from cumulant.serving.errors import status_of
from cumulant.serving.inference import Call
from cumulant.serving.metrics import Metrics
from cumulant.serving.models import Model
from cumulant.serving.scheduling import Demand
from cumulant.serving.tensors import Output
from cumulant.serving.work import Work


class Timed(Protocol):
    """A request; `received`: when its last byte came, by `time.perf_counter`."""

    received: float


Q = TypeVar("Q", bound=Timed)
R = TypeVar("R")
C = TypeVar("C", bound=Call)


class Scoring(msgspec.Struct, Generic[R]):
    """A request that was read: what to run, how urgent it is, and how to answer."""

    work: Work
    demand: Demand
    finish: Callable[[Sequence[Array]], R]


def inference(
    model: Model, call: C, write: Callable[[C, str, str, Sequence[Output], Mapping[str, Any]], R]
) -> Scoring[R]:
    """A call of the protocol, whose answer `write` makes.

    Raises:
        RequestError: the call does not fit the model.
    """
    model.check_outputs(call.wanted)
    work = model.from_tensors(call.inputs)

    def finish(raw: Sequence[Array]) -> R:
        return write(call, model.name, model.version, model.tensors(work, raw, call.wanted), work.parameters())

    return Scoring(work, call.demand, finish)


class Counted:
    """Scores requests and counts them in `metrics`."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def __call__(
        self, request: Q, read: Callable[[Model, Q], Scoring[R]], endpoint: str, model: Model
    ) -> R | Awaitable[R]:
        """The answer, or one to wait for.

        Raises:
            CumulantError: as `read`, and as `Runner.now` and `Runner.later`.
        """
        rows = 0
        try:
            scoring = read(model, request)
            rows = scoring.work.rows
            raw = model.runner.now(scoring.work.feeds, rows)
            if raw is None:
                return self._later(request, scoring, endpoint, model)
            response = scoring.finish(raw)
        except CumulantError as error:
            self._observe(model, endpoint, status_of(error), rows, request)
            raise
        self._observe(model, endpoint, 200, rows, request)
        return response

    async def _later(self, request: Q, scoring: Scoring[R], endpoint: str, model: Model) -> R:
        status, work = 500, scoring.work
        try:
            response = scoring.finish(await model.runner.later(work.feeds, work.rows, scoring.demand))
            status = 200
        except CumulantError as error:
            status = status_of(error)
            raise
        finally:
            self._observe(model, endpoint, status, work.rows, request)
        return response

    def _observe(self, model: Model, endpoint: str, status: int, rows: int, request: Timed) -> None:
        seconds = time.perf_counter() - request.received
        self._metrics.observe(model.name, model.version, endpoint, status=status, rows=rows, seconds=seconds)
