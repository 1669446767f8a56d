"""Entries of the prediction log for answered requests."""

from __future__ import annotations

import sys
import time
from asyncio import Future
from collections.abc import Mapping, Sequence
from random import Random
from typing import Any, Protocol

import msgspec
import numpy as np

from cumulant.core.ids import digest, short
from cumulant.core.plan import FeaturePlan
from cumulant.core.servable import GraphServable, Servable
from cumulant.core.units import EPOCH, micros
from cumulant.features.definition.personal_features import stored_features
from cumulant.servable.engine import Array
from cumulant.serving.gateway_headers import Marks
from cumulant.serving.http.messages import encode
from cumulant.serving.models.model import Model, ModelSet
from cumulant.serving.models.request_work import RequestWork
from cumulant.serving.prediction_log.client import LogClient
from cumulant.serving.prediction_log.entry import PATTERNS, LogEntry, PatternEntry, Tensor
from cumulant.serving.prediction_log.personal_values import personal_fields
from cumulant.serving.protocol.request_schema import fields_with_row
from cumulant.serving.protocol.tensors import OutputTensor, raw_bytes

#: numbers lie in memory as they travel
_NATIVE = sys.byteorder == "little"
#: bytes of an array that is copied
_COPIED = 4096


class ScoredRequest(Protocol):
    """Scored request with the caller's request id; empty: none."""

    work: RequestWork
    id: str


class PredictionLogger:
    """Passes every answered request to the log process, at a few microseconds each.

    `features`: the share of the requests whose stored features are logged.
    """

    def __init__(self, client: LogClient, *, features: float = 0.0) -> None:
        self.client = client
        #: of the requests, those whose stored features are logged, out of 2**32; and which features of a model
        self._sampled = round(features * 2**32)
        self._stored: dict[tuple[str, str], tuple[str, ...]] = {}
        #: of names: a tenth of the cost of one system call each
        self._bits = Random().getrandbits  # noqa: S311 - names, not secrets
        self._fingerprints: dict[tuple[str, str], str] = {}
        self._columns: dict[tuple[str, str], list[str]] = {}
        self._ignored: dict[tuple[str, str], frozenset[str]] = {}
        #: numbers of patterns, by all that their entries have in common
        self._patterns: dict[tuple[object, ...], int | None] = {}
        #: those that the client has, so that a model that is loaded again needs no other one
        self._sent_patterns: dict[bytes, int] = {}

    def describe(self, models: ModelSet) -> None:
        """Register the personal fields of models, before their first entries."""
        self._patterns.clear()
        for model in models:
            self.client.describe(model.name, personal_fields(model.servable))
            plan = model.servable.plan if isinstance(model.servable, Servable) else None
            if isinstance(model.servable, GraphServable):
                self._columns[model.name, model.version] = list(model.servable.columns)
            self._fingerprints[model.name, model.version] = short(digest(plan)) if plan is not None else ""
            self._ignored[model.name, model.version] = _ignored(model.servable)
            self._stored[model.name, model.version] = () if plan is None else stored_features(plan)

    def put(
        self, model: Model, scoring: ScoredRequest, raw: Sequence[Array], received: float, marks: Marks
    ) -> Future[None] | None:
        """One answered request; `received` by `time.perf_counter`. It has our name, and the caller's beside it; without
        a gateway callers may name their requests.

        What to wait for before the answer goes, where the log is durable. Tensors without rows are not logged: no
        prediction was made.
        """
        work = scoring.work
        if not work.rows:
            return None
        name = marks.request or scoring.id or f"{self._bits(64):016x}"
        caller = marks.caller if scoring.id in {"", name} else scoring.id
        now, latency = time.time_ns() // 1000, int((time.perf_counter() - received) * 1e6)
        if work.raw is None and len(work.feeds) == len(raw) == 1:
            (inputs,), (outputs,) = work.feeds.values(), raw
            pattern = self._pattern(model, work, inputs, outputs, marks)
            if pattern is not None:
                like = PatternEntry(pattern, name, now, latency, _memory(inputs), _memory(outputs), caller_id=caller)
                return self.client.put(like)
        entry = self._entry(model, work, marks)
        entry.id, entry.time_us, entry.latency_us, entry.caller_id = name, now, latency, caller
        if work.raw is not None:
            entry.rows = encode(self._without_ignored(model, work.raw) if work.warnings else work.raw)
            entry.answers = encode(model.answers(work, raw))
        else:
            self._add_tensors(entry, model, work, raw)
        entry.invalid = list(work.invalid)
        if work.incomplete and not work.fallback:
            entry.incomplete = [",".join(work.incomplete.get(number, ())) for number in range(work.rows)]
        if isinstance(model.servable, Servable):
            entry.event_times = _event_times(model.servable.plan, work)
            entry.ages = list(work.ages) or None
            if work.vectors is not None and self._bits(32) < self._sampled:
                entry.features = feature_texts(work.vectors, self._stored.get((model.name, model.version), ()))
        return self.client.put(entry)

    def _without_ignored(self, model: Model, rows: Sequence[object]) -> Sequence[object]:
        """Rows without ignored columns, which may be personal and are not declared."""
        ignored = self._ignored.get((model.name, model.version), frozenset())
        return [
            {name: value for name, value in row.items() if name not in ignored} if isinstance(row, dict) else row
            for row in rows
        ]

    def _entry(self, model: Model, work: RequestWork, marks: Marks) -> LogEntry:
        return LogEntry(
            id="",
            time_us=0,
            latency_us=0,
            model=model.name,
            version=model.version,
            arm=marks.arm,
            served_arm=marks.served,
            shadow=marks.shadow,
            fallback=work.fallback,
            fingerprint=self._fingerprints.get((model.name, model.version), ""),
            principal=marks.principal,
        )

    def _add_tensors(self, entry: LogEntry, model: Model, work: RequestWork, raw: Sequence[Array]) -> None:
        entry.tensors = [_tensor(name, model.inputs[name]["datatype"], array) for name, array in work.feeds.items()]
        entry.outputs = [
            _tensor(name, datatype, array)
            for (name, (datatype, _)), array in zip(model.outputs.items(), raw, strict=True)
        ]
        entry.columns = self._columns.get((model.name, model.version), [])

    def _pattern(self, model: Model, work: RequestWork, inputs: Array, outputs: Array, marks: Marks) -> int | None:
        """Number of the entry's pattern; None where the entry must be written in full."""
        sizes, answered_shape = inputs.shape, outputs.shape
        if not sizes or sizes[:1] != answered_shape[:1]:
            return None
        common = marks.arm, marks.served, marks.shadow, marks.principal, work.fallback
        key = (model.name, model.version, common, sizes[1:], answered_shape[1:])
        if key in self._patterns:
            return self._patterns[key]
        if len(self._patterns) == PATTERNS:
            return None
        number = self._patterns[key] = self._learn(model, work, inputs, outputs, marks)
        return number

    def _learn(self, model: Model, work: RequestWork, inputs: Array, outputs: Array, marks: Marks) -> int | None:
        if any(array.dtype.hasobject or 0 in array.shape[1:] for array in (inputs, outputs)) or not _NATIVE:
            return None
        entry = self._entry(model, work, marks)
        self._add_tensors(entry, model, work, [outputs])
        entry.tensors, entry.outputs = [(*entry.tensors[0][:3], b"")], [(*entry.outputs[0][:3], b"")]
        content = msgspec.msgpack.encode(entry)
        number = self._sent_patterns.get(content)
        if number is None and (number := self.client.pattern(entry)) is not None:
            self._sent_patterns[content] = number
        return number


def _ignored(servable: Servable | GraphServable) -> frozenset[str]:
    """Columns that a request may carry and no plan reads, such as the target's; the key's are logged, for labels."""
    if not isinstance(servable, Servable):
        return frozenset()
    source = servable.plan.sources.get(servable.plan.entity)
    return frozenset(servable.unread) - (set() if source is None else fields_with_row(source))


def feature_texts(vectors: Mapping[str, Sequence[Any]], names: Sequence[str]) -> list[str]:
    """The named features of each row as a JSON object."""
    rows = zip(*(vectors[name] for name in names), strict=True)
    return [encode(dict(zip(names, row, strict=True))).decode() for row in rows]


def _memory(array: Array) -> bytes:
    """An array's values as they lie in memory: of large ones a view, of small ones a copy, which is faster."""
    if array.nbytes <= _COPIED:
        return array.tobytes()
    view: Any = np.ascontiguousarray(array).data
    return view  # type: ignore[no-any-return]


def _tensor(name: str, datatype: str, array: Array) -> Tensor:
    if _NATIVE and datatype != "BYTES":
        return name, datatype, list(array.shape), array.tobytes()
    return name, datatype, list(array.shape), raw_bytes(OutputTensor(name, datatype, array.shape, array))


def _event_times(plan: FeaturePlan, work: RequestWork) -> list[int | None] | None:
    """Prediction time of each row, in microseconds."""
    if plan.predict_at is None:
        return None
    column, offset = plan.predict_at.column, plan.predict_at.offset_us
    moments: list[int | None] = []
    for row in work.checked:
        when = row.get(column)
        moments.append(None if when is None else micros(when - EPOCH) + offset)
    return moments
