"""Answered requests as entries of the prediction log."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from typing import Protocol

from cumulant.core.ids import digest, short
from cumulant.core.plan import FeaturePlan
from cumulant.core.servable import GraphServable, Servable
from cumulant.core.units import EPOCH, micros
from cumulant.packaging.engine import Array
from cumulant.serving.gateway import Marks
from cumulant.serving.http import encode
from cumulant.serving.log import Entry, LogClient, personal_fields
from cumulant.serving.log.entry import Tensor
from cumulant.serving.models import Model, ModelSet
from cumulant.serving.tensors import Output, raw_bytes
from cumulant.serving.work import Work

#: numbers lie in memory as they travel
_NATIVE = sys.byteorder == "little"


class Told(Protocol):
    """A request that was scored, and the caller's name of it; empty: none."""

    work: Work
    id: str


class Logbook:
    """Hands every answered request to the log process; costs a few microseconds, and never waits."""

    def __init__(self, client: LogClient) -> None:
        self.client = client
        self._fingerprints: dict[tuple[str, str], str] = {}
        self._columns: dict[str, list[str]] = {}

    def describe(self, models: ModelSet) -> None:
        """Before the first entry of a model: which of its fields are personal."""
        for model in models:
            self.client.describe(model.name, personal_fields(model.servable))
            plan = model.servable.plan if isinstance(model.servable, Servable) else None
            if isinstance(model.servable, GraphServable):
                self._columns[model.name] = list(model.servable.columns)
            self._fingerprints[model.name, model.version] = short(digest(plan)) if plan is not None else ""

    def put(self, model: Model, scoring: Told, raw: Sequence[Array], received: float, marks: Marks) -> None:
        """One answered request; `received` by `time.perf_counter`. It has the gateway's name, else the caller's."""
        work = scoring.work
        entry = Entry(
            id=marks.request or scoring.id or os.urandom(8).hex(),
            time_us=time.time_ns() // 1000,
            latency_us=int((time.perf_counter() - received) * 1e6),
            model=model.name,
            version=model.version,
            arm=marks.arm,
            served_arm=marks.served,
            shadow=marks.shadow,
            fallback=work.fallback,
            fingerprint=self._fingerprints.get((model.name, model.version), ""),
        )
        if work.raw is not None:
            entry.rows = encode(work.raw)
            entry.answers = encode(model.answers(work, raw))
        else:
            entry.tensors = [_tensor(name, model.inputs[name]["datatype"], array) for name, array in work.feeds.items()]
            entry.outputs = [
                _tensor(name, datatype, array)
                for (name, (datatype, _)), array in zip(model.outputs.items(), raw, strict=True)
            ]
            entry.columns = self._columns.get(model.name, [])
        if isinstance(model.servable, Servable):
            entry.event_times = _moments(model.servable.plan, work)
            entry.ages = list(work.ages) or None
        self.client.put(entry)


def _tensor(name: str, datatype: str, array: Array) -> Tensor:
    if _NATIVE and datatype != "BYTES":
        return name, datatype, list(array.shape), array.tobytes()
    return name, datatype, list(array.shape), raw_bytes(Output(name, datatype, array.shape, array))


def _moments(plan: FeaturePlan, work: Work) -> list[int | None] | None:
    """The moment that each row was scored for, in microseconds."""
    if plan.predict_at is None:
        return None
    column, offset = plan.predict_at.column, plan.predict_at.offset_us
    found: list[int | None] = []
    for row in work.checked:
        when = row.get(column)
        found.append(None if when is None else micros(when - EPOCH) + offset)
    return found
