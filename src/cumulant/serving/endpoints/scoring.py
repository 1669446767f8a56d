"""Scoring of requests over any protocol: read, run, answer, count."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import Future
from typing import Any, Generic, Protocol, TypeVar

import msgspec

from cumulant.core.errors import CumulantError, DeadlineError, OverloadedError
from cumulant.features.posted.post_reader import AdvanceResult
from cumulant.servable.engine import Array
from cumulant.serving.errors import status_of
from cumulant.serving.gateway_headers import NONE, Marks
from cumulant.serving.logged_answers import PredictionLogger
from cumulant.serving.models.model import Model
from cumulant.serving.models.request_work import RequestWork
from cumulant.serving.posted.state_updates import StateRecorder, await_durable
from cumulant.serving.protocol.classification import check_ranked, classify
from cumulant.serving.protocol.inference import InferenceCall
from cumulant.serving.protocol.row_tensors import check_outputs
from cumulant.serving.protocol.tensors import OutputTensor
from cumulant.serving.reasons.reasoning import LEFT_OUT, OUTPUT, Inquiry, read_reasons_output
from cumulant.serving.scheduling.job_queue import Demand
from cumulant.serving.telemetry.metrics import Metrics
from cumulant.serving.telemetry.observation import RequestObservation


class TimedRequest(Protocol):
    """A request; `received`: when its last byte came, by `time.perf_counter`; `principal`: who sends it."""

    received: float
    principal: str


Q = TypeVar("Q", bound=TimedRequest)
R = TypeVar("R")
C = TypeVar("C", bound=InferenceCall)
#: of a request whose client went away, as proxies write it
_GONE = 499


class Scoring(msgspec.Struct, Generic[R]):
    """Decoded request: its work, its demand, and the function that builds the response."""

    work: RequestWork
    demand: Demand
    finish: Callable[[Sequence[Array]], R]
    #: the caller's name of the request; empty: none
    id: str = ""


def read_inference(
    model: Model, call: C, write: Callable[[C, str, str, Sequence[OutputTensor], Mapping[str, Any]], R]
) -> Scoring[R]:
    """A call of the protocol, whose answer `write` makes.

    Raises:
        RequestError: the call does not fit the model.
    """
    if call.wanted or call.classes:
        known = model.outputs if model.reasons is None else {**model.outputs, **OUTPUT}
        check_outputs(call.wanted, known)
        if call.classes:
            check_ranked(call.classes, known)
    work = model.from_tensors(call.inputs)
    if call.reasons is not None or model.reasons is not None:
        work.reasons = read_reasons_output(model.reasons, call.reasons, call.wanted)

    def finish(raw: Sequence[Array]) -> R:
        outputs = model.tensors(work, raw, call.wanted)
        if call.classes:
            outputs = [_classified(model, call, output) for output in outputs]
        return write(call, model.name, model.version, outputs, work.parameters())

    return Scoring(work, call.demand, finish, call.id or "")


def _classified(model: Model, call: InferenceCall, output: OutputTensor) -> OutputTensor:
    count = call.classes.get(output.name)
    if count is None:
        return output
    return classify(output, count, model.outputs[output.name][1], model.servable.classes)


async def _or_fallback(model: Model, scoring: Scoring[Any]) -> Sequence[Array]:
    """Outputs of the engine, or of the fallback where the engine is overloaded."""
    work = scoring.work
    try:
        return await model.runner.run_later(work.feeds, work.rows, scoring.demand)
    except (OverloadedError, DeadlineError):
        raw = None if model.fallback is None else model.fallback.raw(work)
        if raw is None:
            raise
        return raw


async def _explain(model: Model, scoring: Scoring[Any], raw: Sequence[Array]) -> None:
    """Attach the requested reasons by one more queued run. Raises HttpError (413), OverloadedError, DeadlineError."""
    work, reasoning = scoring.work, model.reasons
    if reasoning is None or work.reasons is None:
        return
    if work.fallback:
        work.warnings += (LEFT_OUT,)
        return
    (matrix,) = work.feeds.values()
    inquiry = reasoning.plan(work.reasons, matrix, model.answers(work, raw), raw)
    if inquiry is None:
        return
    try:
        outputs = await _run_inquiry(model, inquiry, scoring.demand)
    except (OverloadedError, DeadlineError):
        if model.fallback is None:
            raise
        work.warnings += (LEFT_OUT,)
        return
    reasoning.attach(inquiry, outputs)


async def _run_inquiry(model: Model, inquiry: Inquiry, demand: Demand) -> Sequence[Array]:
    if not inquiry.rows:
        return []
    outputs = model.runner.run_now(inquiry.feeds, inquiry.rows)
    return await model.runner.run_later(inquiry.feeds, inquiry.rows, demand) if outputs is None else outputs


def _ignore(done: asyncio.Future[None]) -> None:
    """Retrieve the error of an entry without a waiter, which the event loop would report otherwise."""
    if not done.cancelled():
        done.exception()


async def _await_both(logged: Awaitable[None] | None, scored: Future[AdvanceResult]) -> None:
    """Wait for the log and for the stored state."""
    if logged is not None:
        await logged
    await await_durable(scored)


class ScoringService:
    """Scores requests, counts them in `metrics`, and passes them to the prediction log and the online state."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self.prediction_logger: PredictionLogger | None = None
        self.recorder: StateRecorder | None = None
        self.watch: RequestObservation | None = None
        #: reads the gateway marks of a request; None: there is no gateway
        self.marks: Callable[[TimedRequest], Marks] | None = None
        #: the arm that a request is counted under; None: there is no gateway
        self.arm: Callable[[TimedRequest], str] | None = None

    def __call__(
        self, request: Q, read: Callable[[Model, Q], Scoring[R]], endpoint: str, model: Model
    ) -> R | Awaitable[R]:
        """The answer, or one to wait for.

        Raises:
            CumulantError: as `read`, and as `Runner.run_now` and `Runner.run_later`.
        """
        try:
            scoring = read(model, request)
            if self.watch is not None:
                self.watch.record_id(scoring.id)
        except CumulantError as error:
            self._observe(model, endpoint, status_of(error), 0, request)
            raise
        if scoring.work.read_state is not None:
            return self._with_state(scoring.work.read_state, request, scoring, endpoint, model)
        return self._score(request, scoring, endpoint, model)

    async def _with_state(
        self,
        read_state: Callable[[], Awaitable[None]],
        request: Q,
        scoring: Scoring[R],
        endpoint: str,
        model: Model,
    ) -> R:
        """The answer, once the stored features were read over the network."""
        try:
            await read_state()
        except CumulantError as error:
            self._observe(model, endpoint, status_of(error), scoring.work.rows, request)
            raise
        except asyncio.CancelledError:
            self._observe(model, endpoint, _GONE, scoring.work.rows, request)
            raise
        response = self._score(request, scoring, endpoint, model)
        return await response if isinstance(response, Awaitable) else response

    def _score(self, request: Q, scoring: Scoring[R], endpoint: str, model: Model) -> R | Awaitable[R]:
        rows = scoring.work.rows
        try:
            if self.recorder is not None and self.recorder.skewed:
                scoring.work.warnings += self.recorder.warn_ahead(model, scoring.work.checked)
            raw = model.runner.run_now(scoring.work.feeds, rows)
            if raw is None or scoring.work.reasons is not None:
                return self._later(request, scoring, endpoint, model, raw)
            response = scoring.finish(raw)
        except CumulantError as error:
            self._observe(model, endpoint, status_of(error), rows, request)
            raise
        stored = self._record(request, scoring, raw, model)
        if stored is not None:
            return self._durable(stored, response, lambda status: self._observe(model, endpoint, status, rows, request))
        self._observe(model, endpoint, 200, rows, request)
        return response

    async def _later(
        self, request: Q, scoring: Scoring[R], endpoint: str, model: Model, raw: Sequence[Array] | None
    ) -> R:
        status, work = 500, scoring.work
        try:
            if raw is None:
                raw = await _or_fallback(model, scoring)
            await _explain(model, scoring, raw)
            response = scoring.finish(raw)
            stored = self._record(request, scoring, raw, model)
            if stored is not None:
                await stored
            status = 200
        except CumulantError as error:
            status = status_of(error)
            raise
        except asyncio.CancelledError:
            status = _GONE
            raise
        finally:
            self._observe(model, endpoint, status, work.rows, request)
        return response

    async def _durable(self, stored: Awaitable[None], response: R, count: Callable[[int], None]) -> R:
        """Response, once its records are durable."""
        status = 503
        try:
            await stored
            status = 200
        except asyncio.CancelledError:
            status = _GONE
            raise
        finally:
            count(status)
        return response

    def _record(
        self, request: TimedRequest, scoring: Scoring[R], raw: Sequence[Array], model: Model
    ) -> Awaitable[None] | None:
        """Log a request and update the state; returns what to wait for before the response."""
        logged = None
        if self.prediction_logger is not None:
            marks = NONE if self.marks is None else self.marks(request)
            marks = marks._replace(principal=request.principal)
            logged = self.prediction_logger.put(model, scoring, raw, request.received, marks)
        try:
            scored = None if self.recorder is None else self.recorder.record_scored(model, scoring.work.accepted())
        except CumulantError:
            if logged is not None:  # the request is refused, whatever the log answers
                logged.add_done_callback(_ignore)
            raise
        return logged if scored is None else _await_both(logged, scored)

    def _observe(self, model: Model, endpoint: str, status: int, rows: int, request: TimedRequest) -> None:
        trace_id = ""
        if self.watch is not None:
            self.watch.record_rows(model.name, model.version, rows)
            trace_id = self.watch.sampled_trace()
        self._metrics.observe(
            model.name,
            model.version,
            endpoint,
            status=status,
            rows=rows,
            seconds=time.perf_counter() - request.received,
            arm="" if self.arm is None else self.arm(request),
            trace_id=trace_id,
        )
