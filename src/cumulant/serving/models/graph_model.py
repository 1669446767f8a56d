"""Model of a graph servable, which reads tensors."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from msgspec import to_builtins

from cumulant.core.errors import IntegrityError, OutOfMemoryError, RequestError, UsageError
from cumulant.core.ids import digest
from cumulant.core.servable import UNREGISTERED, GraphServable, TensorSpec
from cumulant.servable.engine import DTYPES, Array, Engine
from cumulant.servable.graph_signature import check_described
from cumulant.servable.state_tensors import check_state, initial_state
from cumulant.serving.histogram import Histogram
from cumulant.serving.models.request_work import FallbackAnswers, RequestWork
from cumulant.serving.models.sample_inputs import make_noise
from cumulant.serving.protocol.request_schema import first_errors, missing_fields, quoted
from cumulant.serving.protocol.row_counts import MOST_ROWS, row_count_error
from cumulant.serving.protocol.row_tensors import unfit_inputs, unknown_input
from cumulant.serving.protocol.tensors import InputTensor, OutputTensor, TensorConverter, input_of_lists
from cumulant.serving.scheduling.runner import Feeds, Runner, Scheduling
from cumulant.serving.sequences.runner import SequenceRunner, no_state
from cumulant.serving.sequences.sequence_store import SequenceStore

if TYPE_CHECKING:
    from cumulant.serving.protocol.request_rules import RequestRules
    from cumulant.serving.reasons.reasoning import Reasoning

#: a size that a request chooses, in made-up inputs
_SOME = 8
#: values of one made-up input; a description may claim any size
_MOST_MADE_UP = 2**25


class GraphModel:
    """One graph. Plain JSON rows are objects of its inputs; where its one input is a matrix, of its columns.

    Raises:
        IntegrityError: as `Engine`; also where the graph has other tensors than are described.
    """

    def __init__(
        self,
        folder: Path,
        servable: GraphServable,
        *,
        scheduling: Scheduling | None = None,
        sequences: SequenceStore | None = None,
        untried: bool = False,
    ) -> None:
        self.servable = servable
        #: some of the graph's tensors are stored between the requests of a sequence, not sent
        self.stateful = bool(servable.state)
        self.name = servable.name
        self.version = servable.version or UNREGISTERED
        state_inputs = {state.input for state in servable.state}
        sent = [spec for spec in servable.inputs if spec.name not in state_inputs]
        self._specs = {spec.name: spec for spec in sent}
        self._fits = {spec.name: TensorConverter(spec) for spec in sent}
        #: inputs whose first size is the number of rows
        self._free = [spec.name for spec in sent if spec.shape[:1] == (-1,)]
        self.inputs: Mapping[str, dict[str, Any]] = {
            spec.name: {"name": spec.name, "datatype": spec.datatype, "shape": list(spec.shape)} for spec in sent
        }
        self.outputs: Mapping[str, tuple[str, list[int]]] = {
            spec.name: (spec.datatype, list(spec.shape)) for spec in servable.outputs
        }
        self._places = {name: place for place, name in enumerate(self.outputs)}
        #: outputs of a request that names none
        self._default_outputs = [
            name for name in self.outputs if name not in {state.output for state in servable.state}
        ]
        self._columns = {name: place for place, name in enumerate(servable.columns)}
        engine = Engine(folder / servable.model, untried=untried)
        check_described(servable, engine)
        self.fallback: FallbackAnswers | None = None
        self.state_ages: Histogram | None = None
        self.incomplete_rows = 0
        self.rules: RequestRules | None = None
        self.reasons: Reasoning | None = None
        self.runner = (
            self._sequenced(engine, scheduling, sequences)
            if self.stateful
            else Runner(engine, list(self.outputs), exact=self._may_batch(), scheduling=scheduling)
        )
        if not untried:
            self.runner.measure(self._synthetic_feeds)

    def _sequenced(
        self, engine: Engine, scheduling: Scheduling | None, sequences: SequenceStore | None
    ) -> SequenceRunner:
        if sequences is None:
            hint = "name a folder that can be written with --sequences DIR"
            raise UsageError(f"model {self.name} keeps state between requests", subject=self.name, hint=hint)
        check_state(self.servable)
        return SequenceRunner(
            engine,
            list(self.outputs),
            model=self.name,
            owner=f"{self.name}/{self.version}/{digest([self.servable.files, to_builtins(self.servable.state)])}",
            states=self.servable.state,
            idle=self.servable.state_idle,
            store=sequences,
            scheduling=scheduling,
        )

    def _may_batch(self) -> bool:
        """Whether requests may share a run, as measured in packaging."""
        specs = (*self.servable.inputs, *self.servable.outputs)
        return self.servable.batching.exact and all(spec.shape[:1] == (-1,) for spec in specs)

    def _synthetic_feeds(self, rows: int) -> Feeds:
        if any(rows * math.prod(map(abs, spec.shape)) > _MOST_MADE_UP for spec in self.servable.inputs):
            raise RequestError("the inputs are too large to make some up")
        state = initial_state(self.servable.state, rows)
        return state | {spec.name: _synthetic_input(spec, rows) for spec in self._specs.values()}

    def try_run(self) -> None:
        example = self._exemplary()
        try:
            feeds = self._synthetic_feeds(1) if example is None else example
            raw = self.runner.try_run(feeds)
        except (RequestError, OutOfMemoryError) as error:
            if example is None:  # made-up values may be none that the graph takes: an index, a text
                return
            if isinstance(error, OutOfMemoryError):  # no fault of the servable
                raise
            message = f"{self.name} cannot answer its own example: {error.message}"
            raise IntegrityError(message, subject=self.name, hint="package it again") from None
        self.answers(RequestWork(feeds, 1), raw)

    def _exemplary(self) -> Feeds | None:
        """The row that the servable gives as its example; None where there is none of which the shape is known."""
        example, feeds = self.servable.example, dict(initial_state(self.servable.state, 1))
        for spec in self._specs.values():
            inner = [1, *spec.shape[1:]] if spec.shape else []
            if spec.name not in example or spec.shape[:1] not in ((), (-1,), (1,)) or inner.count(-1) > 1:
                return None
            try:
                feeds[spec.name] = np.array(example[spec.name], DTYPES[spec.datatype]).reshape(inner)
            except (ValueError, TypeError, OverflowError):
                message = f'{self.name}: the example of "{spec.name[:100]}" has another shape or type'
                raise IntegrityError(message, subject=self.name, hint="package it again") from None
        return feeds

    def from_tensors(self, inputs: Sequence[InputTensor]) -> RequestWork:
        feeds: dict[str, Array] = {}
        for tensor in inputs:
            fit = self._fits.get(tensor.name)
            if fit is None:
                raise unknown_input(tensor.name, self._specs)
            if tensor.name in feeds:
                raise RequestError(f'input "{tensor.name}" is given twice', subject=tensor.name)
            try:
                feeds[tensor.name] = fit(tensor)
            except RequestError:
                raise unfit_inputs(lambda other: self._fits[other.name](other), inputs, tensor, self._fits) from None
        if len(feeds) < len(self._specs):
            missing = [name for name in self._specs if name not in feeds]
            are = "input {} is" if len(missing) == 1 else "inputs {} are"
            raise RequestError(f"{are.format(quoted(missing))} missing", subject=missing[0])
        return RequestWork(feeds, self._rows(feeds))

    def _rows(self, feeds: Feeds) -> int:
        if len(self._free) == 1:
            return len(feeds[self._free[0]])
        sizes = {name: len(feeds[name]) for name in self._free}
        if len(set(sizes.values())) > 1 and self.runner.exact:
            counts = ", ".join(f"{name} {size}" for name, size in sizes.items())
            raise RequestError(f"the inputs have different numbers of rows: {counts}")
        return max(sizes.values(), default=1)

    def from_rows(self, rows: Sequence[object]) -> RequestWork:
        if self.stateful:
            raise no_state(self.name)
        if not 0 < len(rows) <= MOST_ROWS:
            raise row_count_error(len(rows))
        objects: list[Mapping[str, Any]] = [row for row in rows if isinstance(row, dict)]
        if len(objects) < len(rows):
            hint = f"name its inputs: {', '.join(self._columns or self._specs)[:300]}"
            raise RequestError("expected an object with the inputs of one row", hint=hint)
        feeds = self._matrix(objects) if self._columns else self._stacked(objects)
        return RequestWork(feeds, len(rows), raw=rows)

    def _matrix(self, rows: Sequence[Mapping[str, Any]]) -> Feeds:
        (spec,), required = self.servable.inputs, self.servable.required
        matrix = np.full((len(rows), len(self._columns)), np.nan, dtype=np.float64)
        for number, row in enumerate(rows, 1):
            missing = [name for name in required if row.get(name) is None]
            if missing or not row:
                raise self._incomplete(missing, row, number)
            for name, value in row.items():
                place = self._columns.get(name)
                if place is None:
                    raise unknown_input(name, self._columns)
                if value is None:
                    continue
                if type(value) not in (int, float, bool):
                    numbers = (item for item in row.items() if item[0] in self._columns)
                    raise first_errors(_check_number, numbers, f"row {number}: ")
                try:
                    matrix[number - 1, place] = value
                except OverflowError:
                    raise _too_large(name, number) from None
        with np.errstate(over="ignore", invalid="ignore"):
            narrow = matrix.astype(DTYPES[spec.datatype])
        if np.isinf(narrow).any():
            number, place = np.argwhere(np.isinf(narrow))[0].tolist()
            raise _too_large(self.servable.columns[place], number + 1)
        return {spec.name: narrow}

    def _incomplete(self, missing: list[str], row: Mapping[str, Any], number: int) -> RequestError:
        if not row:
            hint = f"expected fields: {', '.join(self._columns)[:300]}"
            return RequestError(f"row {number}: the row has none of the model's fields", hint=hint)
        return missing_fields(missing, row, f"row {number}: ")

    def _stacked(self, rows: Sequence[Mapping[str, Any]]) -> Feeds:
        unknown = next((name for row in rows for name in row if name not in self._specs), None)
        if unknown is not None:
            raise unknown_input(unknown, self._specs)
        try:
            columns = {
                name: [row[name] for row in rows] if spec.shape else _shared(name, rows)
                for name, spec in self._specs.items()
            }
        except KeyError as error:
            name = str(error.args[0])
            raise RequestError(f'input "{name}" is missing in a row', subject=name) from None
        return self.from_tensors(self.nested(columns)).feeds

    def nested(self, values: Mapping[str, Any]) -> list[InputTensor]:
        """Nested lists by input as tensors.

        Raises:
            RequestError: there is no such input, or as `input_of_lists`.
        """
        unknown = next((name for name in values if name not in self._specs), None)
        if unknown is not None:
            raise unknown_input(unknown, self._specs)
        try:
            return [
                input_of_lists(name, value, self._specs[name].datatype, self._specs[name].shape)
                for name, value in values.items()
            ]
        except RequestError:
            specs = self._specs
            raise first_errors(
                lambda name: input_of_lists(name, values[name], specs[name].datatype, specs[name].shape), values
            ) from None

    def tensors(self, work: RequestWork, raw: Sequence[Array], wanted: Sequence[str]) -> list[OutputTensor]:  # noqa: ARG002 - as Model
        return [
            OutputTensor(name, self.outputs[name][0], array.shape, array)
            for name in wanted or self._default_outputs
            for array in (raw[self._places[name]],)
        ]

    def answers(self, work: RequestWork, raw: Sequence[Array]) -> list[dict[str, Any]]:
        if work.answers is None:
            work.answers = self._answered(work, raw)
        return list(work.answers)

    def _answered(self, work: RequestWork, raw: Sequence[Array]) -> list[dict[str, Any]]:
        columns = {
            name: array.tolist() if array.shape[:1] == (work.rows,) else [array.tolist()] * work.rows
            for name in self._default_outputs
            for array in (raw[self._places[name]],)
        }
        return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]

    def card(self) -> dict[str, object]:
        needed = set(self.servable.required)
        return {
            "name": self.name,
            "version": self.version,
            "classes": list(self.servable.classes),
            "request": [{"name": name, "type": "number", "required": name in needed} for name in self._columns]
            or list(self.inputs.values()),
            "example": self._example(),
        }

    def _example(self) -> Mapping[str, object]:
        values = self.servable.example
        if self._columns and len(values) == 1:
            return dict(zip(self._columns, next(iter(values.values())), strict=False))
        return values

    def close(self) -> None:
        self.runner.close()


def _shared(name: str, rows: Sequence[Mapping[str, Any]]) -> object:
    """The single value of an input that has no rows. Raises RequestError where the rows have several."""
    value = rows[0][name]
    if any(row[name] != value for row in rows):
        raise RequestError(f'input "{name}" is a single value, and the rows have several', subject=name)
    return value


def _check_number(item: tuple[str, object]) -> None:
    name, value = item
    if value is not None and type(value) not in (int, float, bool):
        raise RequestError(f'"{name[:100]}" must be a number or null', subject=name[:100])


def _too_large(name: str, number: int) -> RequestError:
    return RequestError(f'row {number}: "{name}" is too large', subject=name)


def _synthetic_input(spec: TensorSpec, rows: int) -> Array:
    shape = tuple(
        rows if place == 0 and size == -1 else _SOME if size == -1 else size for place, size in enumerate(spec.shape)
    )
    dtype = DTYPES[spec.datatype]
    if spec.datatype == "BYTES":
        texts = np.empty(shape, dtype=np.object_)
        texts.fill("")
        return texts
    values = make_noise(shape, rows)
    return np.asarray(values if dtype.kind == "f" else values > 0, dtype)
