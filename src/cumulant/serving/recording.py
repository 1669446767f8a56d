"""State that moves on: by the rows that were scored, and by events that are posted."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future
from typing import Literal

from cumulant.core.errors import CumulantError, EngineUnavailableError, RequestError
from cumulant.features import Advanced, Advancer
from cumulant.serving.http import Request, Response, json_response
from cumulant.serving.models import Model
from cumulant.serving.posted import EventSchema
from cumulant.serving.row_model import RowModel

Row = Mapping[str, object]
#: of scored rows. durable: the answer waits until they are on the disk; background: it does not, and a kill may lose
#: the last moments; off: they are not taken in
Scored = Literal["durable", "background", "off"]


class Recorder:
    """Takes rows into the stored state of every model that looks back at their source, each once by its key."""

    def __init__(self, scored: Scored = "durable") -> None:
        self._mode = scored
        self._advancer: Advancer | None = None
        self._schema = EventSchema([])

    def put(self, models: Iterable[Model]) -> None:
        """Serve these models' state from now on; what the ones before took in is committed first.

        Raises:
            EngineUnavailableError: the store does not answer.
        """
        found = [model for model in models if isinstance(model, RowModel) and model.servable.plan.needs_state]
        before, self._advancer = self._advancer, None
        if before is not None:
            before.close()
        for model in found:
            model.features.catch_up()
        writers = [writer for model in found if (writer := model.features.writer()) is not None]
        self._schema = EventSchema([model.servable.plan for model in found])
        self._advancer = Advancer(writers) if writers else None

    def scored(self, model: Model, rows: Sequence[Row]) -> Future[Advanced] | None:
        """Take in rows that were answered; done once they are durable. None where nothing is to be waited for.

        A row without its key is not taken in: nobody could tell it from another.
        """
        if self._advancer is None or self._mode == "off" or not isinstance(model, RowModel) or not model.looks_back:
            return None
        whole = [row for row in rows if all(row.get(name) is not None for name in model.key)]
        if not whole:
            return None
        done = self._advancer.post(model.servable.plan.entity, whole)
        return done if self._mode == "durable" else None

    async def post(self, request: Request) -> Response:
        """`POST /v1/events`: answered once the rows are on the disk.

        Raises:
            RequestError: the rows do not fit, or no model here has state.
            EngineUnavailableError: they could not be stored.
        """
        events = self._schema.read(request.body)
        if self._advancer is None:
            raise RequestError("no model here has stored state")
        done = await durable(self._advancer.post(events.source, events.rows))
        told: dict[str, object] = {"accepted": done.accepted, "duplicates": done.duplicates, "unkeyed": done.unkeyed}
        if events.unread:
            told["warnings"] = [f"no served model reads {name}" for name in events.unread]
        return json_response(told)

    def close(self) -> None:
        """Commit what was taken in."""
        if self._advancer is not None:
            self._advancer.close()


async def durable(done: Future[Advanced]) -> Advanced:
    """The outcome, once it is on the disk.

    Raises:
        EngineUnavailableError: it could not be stored.
    """
    try:
        return await asyncio.shield(asyncio.wrap_future(done))
    except CumulantError as error:
        raise EngineUnavailableError(f"the stored state could not be moved on: {error.message}") from error
