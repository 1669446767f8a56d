"""Model of a project's servable: request rows, stored features, scores, decisions."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cumulant.core.errors import CumulantError, IntegrityError, RequestError, UsageError
from cumulant.core.servable import UNREGISTERED, Answer, FieldRule, Servable
from cumulant.core.units import from_micros
from cumulant.features.online.hashed_keys import HashedKeys
from cumulant.features.online.online import FeatureRequest, OnlineFeatures, Vectors
from cumulant.servable.engine import Array
from cumulant.servable.scorer import Scorer
from cumulant.serving.histogram import AGES, Histogram
from cumulant.serving.models.request_work import FallbackAnswers, RequestWork
from cumulant.serving.models.sample_inputs import make_noise
from cumulant.serving.protocol.request_rules import Fault, RequestRules, invalid_rows
from cumulant.serving.protocol.request_schema import RequestSchema
from cumulant.serving.protocol.row_counts import MOST_ROWS, row_count_error
from cumulant.serving.protocol.row_tensors import DATATYPES, from_answers, output_specs, to_rows
from cumulant.serving.protocol.tensors import InputTensor, OutputTensor
from cumulant.serving.reasons.reasoning import NAME, OUTPUT, Reasoning
from cumulant.serving.scheduling.runner import Feeds, Runner, Scheduling

if TYPE_CHECKING:
    from cumulant.ports.online import OnlineStore

#: late rows that a warning names
_NAMED = 5
#: rows whose features are computed on the event loop
_INLINE_ROWS = 200
#: made-up rows of a trial
_TRIED = 3


def late_warnings(since: Sequence[int | None]) -> tuple[str, ...]:
    """Warning for rows whose prediction time is before the stored history of their keys."""
    rows = [number for number, at in enumerate(since, 1) if at is not None]
    begin = from_micros(max(at for at in since if at is not None))
    named = ", ".join(str(number) for number in rows[:_NAMED]) + (", ..." if len(rows) > _NAMED else "")
    text = (
        f"row{'s' * (len(rows) > 1)} {named}: the prediction is for a moment before {begin.isoformat()}, from which the"
        " history of its key is kept, so windows may lack events"
    )
    return (text,)


#: the part of a request in which stored features are read, in traces
READ = "read features"


class RowModel:
    """One servable of a project.

    `table` names its online state; by default the `state` of the servable's lineage. `refuse_invalid`: rows that
    break the data contract are refused, else answered with a warning. `salt`: of the hashes that the state has
    in place of personal keys.

    Raises:
        NotFoundError, IntegrityError: as `Scorer`; also for state of another plan, and as `Reasoning`.
        UsageError: the plan needs stored features and no store is given, or their salt.
        EngineUnavailableError: the store holds no such state yet.
    """

    def __init__(
        self,
        folder: Path | str,
        *,
        store: OnlineStore | None = None,
        table: str | None = None,
        scheduling: Scheduling | None = None,
        refuse_invalid: bool = False,
        untried: bool = False,
        salt: bytes = b"",
    ) -> None:
        self.scorer = Scorer(folder, untried=untried)
        self.servable: Servable = self.scorer.servable
        self.name = self.servable.name
        self.version = self.servable.version or UNREGISTERED
        self.schema = RequestSchema(self.servable.plan, self.servable.unread)
        self.rules: RequestRules | None = None
        if self.servable.rules or self.servable.closed or self.servable.complete or self.servable.nonnegative:
            self.rules = RequestRules(self.servable, self.schema.fields, refuse=refuse_invalid)
        #: fields without which a request is refused, in the order of the schema
        needed = {*self.schema.required, *(() if self.rules is None else self.rules.required)}
        self.required = tuple(name for name in self.schema.fields if name in needed)
        self.table = table or self.servable.lineage.get("state") or self.name
        self.outputs: Mapping[str, tuple[str, list[int]]] = output_specs(self.servable)
        self.inputs = self._metadata()
        self.reasons: Reasoning | None = None if self.servable.reasons is None else Reasoning(self.scorer)
        self._names = tuple(self.outputs)
        self._known = self.outputs if self.reasons is None else {**self.outputs, **OUTPUT}
        #: what the state holds in place of personal keys
        self.hashed = self._hashed_keys(salt, store)
        self.features = self._with_state(store)
        #: of the stored features that requests used; None: the model has none
        self.state_ages = Histogram(AGES) if self.servable.plan.needs_state else None
        self.incomplete_rows = 0
        plan, writer = self.servable.plan, self.features.writer() if self.servable.plan.needs_state else None
        #: the key of the rows that are scored, and whether some window counts such rows
        self.key = plan.sources[plan.entity].key if plan.entity in plan.sources else ()
        self.looks_back = bool(self.key) and writer is not None and plan.entity in writer.sources
        engine = self.scorer.engine
        self._input = engine.inputs[0].name
        self.fallback: FallbackAnswers | None = None
        self.stateful = False
        self.runner = Runner(engine, [engine.outputs[0].name], exact=True, scheduling=scheduling)
        if not untried:
            self.runner.measure(self._synthetic_feeds)

    def _metadata(self) -> Mapping[str, dict[str, Any]]:
        required = set(self.required)
        return {
            field.name: {
                "name": field.name,
                "datatype": DATATYPES[field.dtype],
                "shape": [-1],
                "parameters": {"type": field.dtype, "optional": field.name not in required},
            }
            for field in self.schema.fields.values()
        }

    def _hashed_keys(self, salt: bytes, store: OnlineStore | None) -> HashedKeys | None:
        if not self.servable.plan.needs_state:
            return None
        if store is None:
            hint = "name the store with --online URL"
            raise UsageError(f"model {self.name} needs stored features", subject=self.name, hint=hint)
        return HashedKeys(self.servable.plan, salt)

    def _with_state(self, store: OnlineStore | None) -> OnlineFeatures:
        plan = self.servable.plan if self.hashed is None else self.hashed.plan
        features = OnlineFeatures(plan, store, self.table)
        # Met now rather than by the first request: no state under that name, or one made for another plan.
        features.state()
        return features

    def _synthetic_feeds(self, rows: int) -> Feeds:
        """Rows of noise of the model's width, to measure cost and batching."""
        return self.scorer.feeds(make_noise((rows, len(self.scorer.features)), rows).astype(np.float32))

    def try_run(self) -> None:
        feeds = self._synthetic_feeds(_TRIED)
        try:
            answers = self.answers(RequestWork(feeds, _TRIED), self.runner.try_run(feeds))
        except (RequestError, ValueError, IndexError) as error:  # the others of answers of other shapes
            why = error.message if isinstance(error, CumulantError) else str(error)
            message = f"{self.name} cannot answer the rows that it describes: {why[:200]}"
            raise IntegrityError(message, subject=self.name, hint="package it again") from None
        if len(answers) != _TRIED:
            message = f"{self.name} gives {len(answers)} answers for {_TRIED} rows"
            raise IntegrityError(message, subject=self.name, hint="package it again")

    def from_tensors(self, inputs: Sequence[InputTensor]) -> RequestWork:
        rows = to_rows(inputs, self.schema.fields, self.schema.unread)
        work = self.from_rows(rows, {tensor.name: tensor.datatype for tensor in inputs})
        if self.schema.unread:
            work.warnings = (*self.schema.warnings({tensor.name for tensor in inputs}), *work.warnings)
        return work

    def from_rows(self, rows: Sequence[object], datatypes: Mapping[str, str] | None = None) -> RequestWork:
        if not 0 < len(rows) <= MOST_ROWS:
            raise row_count_error(len(rows))
        checked = [self.schema.row(rows[0])] if len(rows) == 1 else self.schema.rows(rows)
        broken = {} if self.rules is None else self.rules.broken(checked, datatypes)
        work = RequestWork({}, len(rows), (), rows, checked)
        if broken:
            work.refused = frozenset[int]().union(*broken.values())
        if self.schema.unread:
            names = set[str]().union(*(row for row in rows if isinstance(row, dict)))
            work.warnings = self.schema.warnings(names)
        keyed = checked if self.hashed is None else self.hashed.requests(checked)
        if self.features.awaits:
            work.read_state = partial(self._read_state, work, self.features.request(keyed), broken)
        else:
            began = time.perf_counter()
            vectors = self.features.vectors(keyed)
            self._trace_read(began)
            self._complete(work, vectors, broken)
        return work

    def _trace_read(self, began: float) -> None:
        """Record that stored features were read from then until now."""
        if self.runner.observer is not None and self.state_ages is not None:
            self.runner.observer.record_stage(READ, began, time.perf_counter() - began)

    async def _read_state(self, work: RequestWork, request: FeatureRequest, broken: Mapping[Fault, list[int]]) -> None:
        began = time.perf_counter()
        entities = await self.features.read_entities(request)
        self._trace_read(began)

        def complete() -> None:
            self._complete(work, self.features.vectors_of(request, entities), broken)

        if work.rows > _INLINE_ROWS:  # so many would hold up all other requests of the event loop
            await asyncio.to_thread(complete)
        else:
            complete()

    def _complete(self, work: RequestWork, vectors: Vectors, broken: Mapping[Fault, list[int]]) -> None:
        """Set what follows from the features."""
        work.feeds = {self._input: self.scorer.encoder.matrix(vectors.columns)}
        work.ages = vectors.age
        work.vectors = vectors.columns if self.state_ages is not None else None
        if self.state_ages is not None and (age := work.age()) is not None:
            self.state_ages.observe(age)
        if vectors.incomplete:
            work.incomplete, work.warnings = vectors.incomplete, work.warnings + late_warnings(vectors.late)
            self.incomplete_rows += len(vectors.incomplete)
        faults = {} if self.rules is None else self.rules.unusual(work.checked, vectors.columns, broken)
        if self.rules is not None and faults:
            work.warnings += self.rules.warnings(faults, work.rows)
            work.invalid = invalid_rows(faults, work.rows)

    def tensors(self, work: RequestWork, raw: Sequence[Array], wanted: Sequence[str]) -> list[OutputTensor]:
        names = wanted or self._names
        if work.reasons is not None and NAME not in names:
            names = [*names, NAME]
        return from_answers(self.answers(work, raw), self._known, names)

    def answers(self, work: RequestWork, raw: Sequence[Array]) -> list[Answer]:
        if work.answers is None:
            work.answers = self.scorer.decide(self.scorer.finish(raw), age=work.ages or None)
            for number, names in work.incomplete.items():
                work.answers[number].incomplete = names
        return list(work.answers)

    def card(self) -> dict[str, object]:
        required = set(self.required)
        reasons = {} if self.reasons is None else {"reasons": self.reasons.card()}
        return {
            "name": self.name,
            "version": self.version,
            "task": self.servable.task,
            "classes": list(self.servable.classes),
            "threshold": self.servable.threshold,
            "request": [
                {
                    "name": field.name,
                    "type": field.dtype,
                    "required": field.name in required,
                    "zone": field.zone,
                    **self._written(field.name),
                }
                for field in self.schema.fields.values()
            ],
            "example": self.servable.example,
            **reasons,
        }

    def _written(self, field: str) -> dict[str, str]:
        """Number and date formats of the field in files of rows, for clients that read such."""
        rule = self.servable.rules.get(field, FieldRule())
        formats = {"number_format": rule.number_format, "date_format": rule.date_format}
        return {name: form for name, form in formats.items() if form is not None}

    def close(self) -> None:
        self.runner.close()
