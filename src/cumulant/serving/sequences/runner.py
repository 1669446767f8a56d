"""Runner of stateful graphs: the requests of a sequence run in order, each on the state of the last."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial

from cumulant.core.errors import DeadlineError, DefinitionError, NotFoundError, OverloadedError, RequestError
from cumulant.core.servable import StateTensor
from cumulant.servable.engine import Array, Engine
from cumulant.servable.state_tensors import check_next, initial_state
from cumulant.serving.cache.answer_cache import Caching
from cumulant.serving.errors import HttpError
from cumulant.serving.scheduling.job_queue import Demand, SequencePosition
from cumulant.serving.scheduling.runner import Feeds, Runner, Scheduling
from cumulant.serving.sequences.sequence_store import SequenceState, SequenceStore

#: requests of one sequence that may wait in one worker
_MOST_WAITING = 64
#: runs of one request, of which each but the last was overtaken by another worker's
_MOST_RUNS = 64


def no_state(model: str) -> RequestError:
    """Error for a request without a sequence to a stateful model."""
    return RequestError(
        f"the model {model[:100]} keeps state between requests, and this one names no sequence",
        subject="sequence_id",
        hint="send sequence_id, and with the first request sequence_start, to /v2/models/NAME/infer",
    )


class SequenceRunner(Runner):
    """As `Runner`, for requests of sequences. Nothing is gathered and no answer is cached: each has its own state.

    `owner` names model, version and file: state belongs to them alone. A sequence's requests of one worker take their
    turns as they came. Those of several differ by the revision of what they read: one that was overtaken
    finds out when it puts its step, and runs again on what is there by then.
    """

    def __init__(
        self,
        engine: Engine,
        outputs: Sequence[str],
        *,
        model: str,
        owner: str,
        states: Sequence[StateTensor],
        idle: float,
        store: SequenceStore,
        scheduling: Scheduling | None = None,
    ) -> None:
        super().__init__(engine, outputs, exact=False, scheduling=scheduling, caching=Caching(mode="off"))
        self._model, self._owner, self._states, self._idle, self._store = model, owner, states, idle, store
        places = {name: place for place, name in enumerate(outputs)}
        self._results = [places[state.output] for state in states]
        self._turns: dict[bytes, tuple[asyncio.Lock, list[int]]] = {}

    def run_now(self, feeds: Feeds, rows: int) -> list[Array] | None:  # noqa: ARG002 - as Runner
        """None: what a request runs on is read when its turn has come."""
        return None

    async def run_later(self, feeds: Feeds, rows: int, demand: Demand | None = None) -> list[Array]:
        """As `Runner.run_later`, once the sequence's earlier requests are answered.

        Raises:
            NotFoundError: there is no such sequence, and the request does not start one.
            HttpError: 409, the sequence is at another step than that of the request.
            DeadlineError: as `Runner.run_later`, or its turn came too late.
            OverloadedError: too many requests of the sequence wait, or too much is stored.
            EngineUnavailableError: the store of the state does not answer.
        """
        turn = None if demand is None else demand.turn
        if demand is None or turn is None:
            raise no_state(self._model)
        async with self._turn(turn.key):
            if demand.deadline is not None and time.perf_counter() > demand.deadline:
                raise DeadlineError("the request's timeout passed while it waited for its turn in the sequence")
            for _ in range(_MOST_RUNS):
                previous = self._previous_state(turn, rows)
                outputs = await self._run({**feeds, **self._inputs(previous, rows)}, rows, demand)
                if await self._put(turn, previous, outputs):
                    return outputs
        raise OverloadedError("other requests of the sequence came before this one again and again", retry_after=1.0)

    @asynccontextmanager
    async def _turn(self, key: bytes) -> AsyncIterator[None]:
        """Exclusive turn of a sequence in this worker, in the order of arrival."""
        lock, waiting = self._turns.setdefault(key, (asyncio.Lock(), [0]))
        if waiting[0] > _MOST_WAITING:
            raise OverloadedError(f"{waiting[0]} requests of the sequence wait already", retry_after=1.0)
        waiting[0] += 1
        try:
            async with lock:
                yield
        finally:
            waiting[0] -= 1
            if not waiting[0]:
                del self._turns[key]

    def _previous_state(self, turn: SequencePosition, rows: int) -> SequenceState | None:
        """State that the request continues; None where it starts the sequence."""
        if turn.starts:
            _check_step(turn, 0)
            return None
        previous = self._store.find(self._owner, turn.key)
        if previous is None:
            raise NotFoundError(
                "there is no such sequence of this model's version",
                hint="begin it with sequence_start; a sequence ends when it is idle for"
                f" {self._idle:g} s, and a new version starts without any",
            )
        _check_step(turn, previous.step)
        for spec, array in zip(self._states, previous.states, strict=True):
            for size, got in zip(spec.shape, array.shape, strict=True):
                if size == -1 and got != rows:
                    counts = f"{got} row{'' if got == 1 else 's'}"
                    raise RequestError(f"the requests of the sequence have {counts}, and this one {rows}")
        return previous

    def _inputs(self, previous: SequenceState | None, rows: int) -> Mapping[str, Array]:
        if previous is None:
            return initial_state(self._states, rows)
        return {spec.input: array for spec, array in zip(self._states, previous.states, strict=True)}

    async def _run(self, feeds: Feeds, rows: int, demand: Demand) -> list[Array]:
        outputs = super().run_now(feeds, rows)
        return await super().run_later(feeds, rows, demand) if outputs is None else outputs

    async def _put(self, turn: SequencePosition, previous: SequenceState | None, outputs: Sequence[Array]) -> bool:
        states = None if turn.ends else self._next_states(outputs)
        put = partial(self._store.put, self._owner, turn.key, states, after=previous, idle=self._idle)
        return await asyncio.get_running_loop().run_in_executor(self._store.executor, put)

    def _next_states(self, outputs: Sequence[Array]) -> list[Array]:
        """Next state tensors. Raises RequestError for state that the next request could not run on."""
        states = [outputs[place] for place in self._results]
        try:
            for spec, array in zip(self._states, states, strict=True):
                check_next(spec, array)
        except DefinitionError as error:
            raise RequestError(f"the model cannot continue after this request: {error.message}") from None
        return states


def _check_step(turn: SequencePosition, done: int) -> None:
    if turn.step is not None and turn.step != done + 1:
        raise HttpError(
            409,
            f"the sequence has processed {done} requests, so that step {turn.step} is not the next",
            hint="leave sequence_step out, or start the sequence again",
        )
