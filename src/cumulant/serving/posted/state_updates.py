"""Updates of the online state by scored rows and by posted events."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future
from typing import Literal, NamedTuple

from cumulant.core.errors import CumulantError, EngineUnavailableError, RequestError, UsageError
from cumulant.features.posted.post_reader import AdvanceResult
from cumulant.features.posted.update_batches import Advancer
from cumulant.serving.http.messages import Request, Response, json_response
from cumulant.serving.models.model import Model
from cumulant.serving.models.row_model import RowModel
from cumulant.serving.posted.posted_events import EventSchema
from cumulant.serving.protocol.responses import EventsResponse

Row = Mapping[str, object]
#: of scored rows. durable: the answer waits until they are on the disk; background: it does not, and a kill may lose
#: the last moments; off: they are not stored
Scored = Literal["durable", "background", "off"]
#: rows that a warning names
_NAMED = 5


class PreparedState(NamedTuple):
    """Models with current state, and the advancer of their rows."""

    models: list[RowModel]
    schema: EventSchema
    advancer: Advancer | None


class StateSwitch(NamedTuple):
    """Former advancers, and the models that replace theirs."""

    before: list[Advancer]
    models: list[RowModel]


class StateRecorder:
    """Applies rows to the online state of every model with windows over their source, once per key."""

    def __init__(self, scored: Scored = "durable", *, most: int = 100_000, clock_skew: float | None = None) -> None:
        """`most`: rows that may wait for the disk; beyond, more are refused rather than kept in memory. Rows dated more
        than `clock_skew` seconds after now are not taken in; None: all are.
        """
        self._skew_us = None if clock_skew is None else round(clock_skew * 1e6)
        self._mode = scored
        #: rows that are dated too far ahead are excluded from the online state
        self.skewed = clock_skew is not None and scored != "off"
        self._advancer: Advancer | None = None
        self._models: list[RowModel] = []
        #: of models that were taken away and still answer what they had accepted
        self._late: dict[RowModel, Advancer] = {}
        self._schema = EventSchema([])
        self._most, self._waiting, self._lock = most, 0, threading.Lock()

    def put(self, models: Iterable[Model]) -> None:
        """Switch to the state of these models.

        Raises:
            EngineUnavailableError: the store does not answer.
        """
        self.settle(self.take(self.prepare(models)))

    def prepare(self, models: Iterable[Model]) -> PreparedState:
        """Bring the models' state up to date, on any thread; the store may let one wait for seconds.

        Raises:
            EngineUnavailableError: the store does not answer.
            UsageError: the models hash different keys.
        """
        stateful = [model for model in models if isinstance(model, RowModel) and model.servable.plan.needs_state]
        if len({() if model.hashed is None else tuple(sorted(model.hashed.names)) for model in stateful}) > 1:
            raise UsageError(
                "the models have different personal keys, so that one row cannot be stored for all of them",
                subject=", ".join(sorted({model.name for model in stateful})),
                hint="serve them by a server each",
            )
        for model in stateful:
            model.features.catch_up()
        writers = [writer for model in stateful if (writer := model.features.writer()) is not None]
        schema = EventSchema([model.servable.plan for model in stateful])
        return PreparedState(stateful, schema, Advancer(writers, skew_us=self._skew_us) if writers else None)

    def take(self, prepared: PreparedState) -> StateSwitch:
        """Switch to prepared state at once, on the thread that scores."""
        before = self._advancers()
        self._advancer, self._schema, self._models = prepared.advancer, prepared.schema, prepared.models
        self._late = {}
        return StateSwitch(before, prepared.models)

    def _advancers(self) -> list[Advancer]:
        return [*([] if self._advancer is None else [self._advancer]), *self._late.values()]

    def settle(self, taken: StateSwitch) -> None:
        """Commit the rows of the former models and update the present ones; on any thread."""
        for advancer in taken.before:
            advancer.close()
        with contextlib.suppress(CumulantError):  # the next stored row does the same
            for model in taken.models:
                model.features.catch_up()

    def record_scored(self, model: Model, rows: Sequence[Row]) -> Future[AdvanceResult] | None:
        """Store answered rows; done once they are durable. None: there is nothing to wait for.

        Rows without a key are skipped, as duplicates of them could not be detected.
        """
        if self._mode == "off" or not isinstance(model, RowModel) or not model.looks_back:
            return None
        advancer = self._advancer_of(model)
        if advancer is None:
            return None
        whole = [row for row in rows if all(row.get(name) is not None for name in model.key)]
        if not whole:
            return None
        entity = model.servable.plan.entity
        done = self._posted(advancer, entity, hashed_rows([model], entity, whole), scored=True)
        return done if self._mode == "durable" else None

    def warn_ahead(self, model: Model, rows: Sequence[Row]) -> tuple[str, ...]:
        """Warning for rows dated so far ahead that `record_scored` skips them."""
        if not isinstance(model, RowModel) or not model.looks_back or (advancer := self._advancer_of(model)) is None:
            return ()
        entity = model.servable.plan.entity
        keyed = hashed_rows([model], entity, rows)
        numbers = [str(number) for number, row in enumerate(keyed, 1) if advancer.is_ahead(entity, row)]
        if not numbers:
            return ()
        named = ", ".join(numbers[:_NAMED]) + (", ..." if len(numbers) > _NAMED else "")
        text = "dated further ahead than serving.clock_skew: answered, and not stored for later rows"
        return (f"row{'s' * (len(numbers) > 1)} {named}: {text}",)

    def _advancer_of(self, model: RowModel) -> Advancer | None:
        """Advancer of a model's rows, also of one that was unloaded and still answers."""
        if any(model is present for present in self._models):
            return self._advancer
        if model not in self._late and (writer := model.features.writer()) is not None:
            self._late[model] = Advancer([writer], skew_us=self._skew_us)
        return self._late.get(model)

    async def post(self, request: Request) -> Response:
        """`POST /v1/events`: answered once the rows are on the disk.

        Raises:
            RequestError: the rows do not fit, or no model here has state.
            EngineUnavailableError: they could not be stored.
        """
        events = self._schema.read(request.body)
        if self._advancer is None:
            raise RequestError("no model here has stored state")
        rows = hashed_rows(self._models, events.source, events.rows)
        done = await await_durable(self._posted(self._advancer, events.source, rows))
        warnings = [f"no served model reads {name}" for name in events.unread]
        if done.future:
            warnings.append(f"{done.future} rows are dated further ahead than serving.clock_skew and are not stored")
        if done.early:
            warnings.append(
                f"{done.early} rows correct or delete a row before their known time and are not stored: post them "
                "again once that time has come, or with the time at which they became known"
            )
        counts = EventsResponse(done.accepted, done.duplicates, done.unkeyed, done.future, done.early, warnings)
        return json_response(counts)

    def _posted(
        self, advancer: Advancer, source: str, rows: Sequence[Row], *, scored: bool = False
    ) -> Future[AdvanceResult]:
        if self._waiting + len(rows) > max(self._most, len(rows)):
            raise EngineUnavailableError(
                f"{self._waiting} rows wait for the store of the features already", hint="try again when it keeps up"
            )
        done = advancer.post(source, rows, scored=scored)
        self._count(len(rows))
        done.add_done_callback(lambda _: self._count(-len(rows)))
        return done

    def _count(self, rows: int) -> None:
        with self._lock:  # rows are counted off on the thread that commits them
            self._waiting += rows

    def close(self) -> None:
        """Commit applied rows."""
        for advancer in self._advancers():
            advancer.close()


def hashed_rows(models: Sequence[RowModel], source: str, rows: Sequence[Row]) -> Sequence[Row]:
    """Rows of a source with hashes in place of personal keys, as the state of one of the models holds them.

    Raises:
        RequestError: a value does not fit its field.
    """
    of = next((model for model in models if source in model.servable.plan.sources and model.hashed is not None), None)
    return rows if of is None or of.hashed is None else of.hashed.rows(source, rows)


async def await_durable(done: Future[AdvanceResult]) -> AdvanceResult:
    """The outcome, once it is on the disk.

    Raises:
        EngineUnavailableError: it could not be stored.
    """
    try:
        return await asyncio.shield(asyncio.wrap_future(done))
    except CumulantError as error:
        raise EngineUnavailableError(f"the stored state could not be moved on: {error.message}") from error
