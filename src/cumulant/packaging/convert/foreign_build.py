"""Building of servables from foreign models."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import msgspec
import numpy as np

from cumulant.core.errors import DataError, DefinitionError, IntegrityError, RequestError
from cumulant.core.servable import Batching, FormResult, GraphServable, Parity, StateTensor, TensorSpec
from cumulant.packaging.batching import measure_batching
from cumulant.packaging.convert.foreign_model import ForeignModel
from cumulant.packaging.convert.missing_values import needed_columns
from cumulant.packaging.convert.onnx_files import unservable_graph
from cumulant.packaging.parity import compare_answers, rows_to_compare
from cumulant.packaging.samples import ModelSample, random_sample, row_count, take_rows
from cumulant.servable.engine import DTYPES, Array, Engine
from cumulant.servable.folder import new_folder, write_sealed
from cumulant.servable.state_tensors import initial_state, pair_state, try_state

#: the rows of a sample for a graph's inputs and the names of its columns
Rows = Callable[[tuple[TensorSpec, ...], tuple[str, ...]], ModelSample]
#: the graph's file, which it may replace, and rows to measure on -> the forms that were tried
Shrink = Callable[[Path, Mapping[str, Array]], tuple[FormResult, ...]]
#: rows that the first step of a graph with state is compared on
_FIRST = 256
#: sizes that stand for those that a request chooses, and texts that may be read as numbers
_SIZES, _TEXTS = (1, 8), ("0", "")
#: values of one made-up input; a graph may claim any size
_MOST = 2**25


class GraphOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What a caller may choose about the servable of a foreign model."""

    #: of the comparison with the original; None: the model kind's own
    tolerance: float | None = None
    #: may put a smaller or faster form in the graph's place once it is known to agree
    shrink: Shrink | None = None
    #: inputs that a server keeps, with the output that each gets next, and the seconds for which it does; they are no
    #: part of the sample
    state: Mapping[str, str] | None = None
    idle: float = 600.0


def build_graph(
    foreign: ForeignModel,
    *,
    name: str,
    out: Path,
    sample: Rows | None,
    lineage: Mapping[str, str],
    options: GraphOptions,
) -> GraphServable:
    """Write the servable of `foreign` to the folder `out`, whole or not at all; a servable there is replaced.

    `sample` gives rows for the comparison with the original, for the example and for the batching test; without it
    made-up rows serve for the latter and no agreement is claimed.

    Raises:
        DefinitionError: onnxruntime cannot run the graph, a run takes too long, or its state cannot be as declared.
        DataError: the sample does not fit the model.
        ParityError: the packaged model does not answer as the original; nothing is left at `out`.
        StorageError: the folder cannot be written.
    """
    with new_folder(out) as folder:
        packages = {f"package.{key}": value for key, value in foreign.packages.items()}
        draft = GraphServable(name=name, inputs=(), outputs=(), lineage={**lineage, **packages})
        (folder / draft.model).write_bytes(foreign.model.SerializeToString(deterministic=True))
        for place, file in foreign.files.items():
            (folder / place).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, folder / place)
        engine = load_engine(folder / draft.model, name)
        if options.state:
            servable = _with_state(foreign, engine, draft, sample=sample, options=options)
        else:
            servable = _without_state(foreign, engine, draft, folder / draft.model, sample=sample, options=options)
        return write_sealed(folder, servable)


def _without_state(
    foreign: ForeignModel,
    engine: Engine,
    draft: GraphServable,
    path: Path,
    *,
    sample: Rows | None,
    options: GraphOptions,
) -> GraphServable:
    columns = foreign.columns if _is_matrix(engine, len(foreign.columns)) else ()
    rows = sample(engine.inputs, columns) if sample else random_sample(engine.inputs)
    parity = _parity(foreign, engine, rows, draft.name, options.tolerance) if rows.given else None
    feeds = rows.feeds(engine.inputs)
    if not rows.given:
        _check_runs(engine, feeds, draft.name)
    candidates: tuple[FormResult, ...] = ()
    tolerance: float | None = _tolerance(foreign, options.tolerance)
    if options.shrink is not None:
        tolerance, candidates = None, options.shrink(path, feeds)
        engine = load_engine(path, draft.name)
    return msgspec.structs.replace(
        draft,
        inputs=engine.inputs,
        outputs=engine.outputs,
        columns=columns,
        required=needed_columns(foreign, engine, rows, columns, tolerance=tolerance),
        classes=foreign.classes,
        parity=parity,
        candidates=candidates,
        batching=measure_batching(engine, feeds),
        example=_example(feeds) if rows.given else {},
    )


def _first_step(
    foreign: ForeignModel,
    engine: Engine,
    rows: ModelSample,
    states: Sequence[StateTensor],
    *,
    name: str,
    tolerance: float | None,
) -> Parity:
    part = rows.take(slice(0, _FIRST))
    carried = initial_state(states, part.rows)
    sent = [spec for spec in engine.inputs if spec.name not in carried]
    feeds = {**part.feeds(sent), **carried}
    state_outputs = {state.output for state in states}
    expected = {
        key: array
        for key, array in _original_answers(foreign, {**part.values, **carried}, name).items()
        if key not in state_outputs
    }
    answers = dict(zip([spec.name for spec in engine.outputs], _run_engine(engine, feeds, name), strict=True))
    return compare_answers(expected, answers, tolerance=_tolerance(foreign, tolerance), name=name)


def _tolerance(foreign: ForeignModel, given: float | None) -> float:
    return foreign.tolerance if given is None else given


def _run_engine(engine: Engine, feeds: Mapping[str, Array], name: str) -> list[Array]:
    try:
        return engine.run(feeds)
    except RequestError as error:
        raise _misfit(error, name) from None


def _original_answers(foreign: ForeignModel, values: Mapping[str, Array], name: str) -> dict[str, Array]:
    try:
        return foreign.predict(values)
    except RequestError as error:
        raise _misfit(error, name) from None


def _misfit(error: RequestError, name: str) -> DataError:
    return DataError(f"the sample does not fit the model: {error.message}", subject=name)


def _with_state(
    foreign: ForeignModel,
    engine: Engine,
    draft: GraphServable,
    *,
    sample: Rows | None,
    options: GraphOptions,
) -> GraphServable:
    """The servable of a graph some of whose tensors a server keeps. The comparison is of a sequence's first step."""
    pairs = options.state or {}
    states = pair_state(pairs, engine, foreign.model)
    sent = tuple(spec for spec in engine.inputs if spec.name not in pairs)
    rows = sample(sent, ()) if sample else random_sample(sent)
    free = any(spec.shape[:1] == (-1,) for spec in sent)
    try_state(engine, states, (rows.take(slice(0, 1)) if free else rows).feeds(sent), 1)
    parity = None
    if rows.given:
        parity = _first_step(foreign, engine, rows, states, name=draft.name, tolerance=options.tolerance)
    return msgspec.structs.replace(
        draft,
        inputs=engine.inputs,
        outputs=engine.outputs,
        classes=foreign.classes,
        state=states,
        state_idle=options.idle,
        parity=parity,
        batching=Batching(exact=False, reason="it keeps state between requests, so each runs alone"),
        example=_example(rows.feeds(sent)) if rows.given else {},
    )


def _example(feeds: Mapping[str, Array]) -> dict[str, list[str | int | float | bool]]:
    """One row without missing numbers, which JSON has not; where there is none, zeros stand for them."""
    whole = np.ones(row_count(feeds), bool)
    for array in feeds.values():
        if array.ndim and array.dtype.kind == "f":
            whole &= np.isfinite(array).reshape(len(array), -1).all(axis=1)
    row = int(whole.argmax())
    return {name: _finite(array).ravel().tolist() for name, array in take_rows(feeds, row).items()}


def _finite(row: Array) -> Array:
    return np.nan_to_num(row, posinf=0.0, neginf=0.0) if row.dtype.kind == "f" else np.asarray(row)


def load_engine(path: Path, subject: str) -> Engine:
    """The graph in onnxruntime.

    Raises:
        DefinitionError: it cannot run it.
    """
    try:
        return Engine(path, untried=True)
    except IntegrityError as error:
        # The draft's path is of no use: it is gone when the message is read.
        raise unservable_graph(
            IntegrityError(error.message.replace(str(path), f"the graph of {subject}")), subject
        ) from None


def _is_matrix(engine: Engine, columns: int) -> bool:
    return len(engine.inputs) == 1 and len(engine.inputs[0].shape) == 2 and engine.inputs[0].shape[1] == columns


def _parity(foreign: ForeignModel, engine: Engine, rows: ModelSample, name: str, tolerance: float | None) -> Parity:
    rows.feeds(engine.inputs)  # a misfit is reported as one of the sample, before the original gets it
    expected = {key: np.atleast_1d(array) for key, array in _original_answers(foreign, rows.values, name).items()}
    # An answer that is not of one row is that of all rows together.
    by_row = all(len(array) == rows.rows for array in expected.values())
    chosen = rows_to_compare(expected) if by_row else slice(None)
    part = {key: array[chosen] for key, array in expected.items()}
    raw = _run_engine(engine, rows.take(chosen).feeds(engine.inputs), name)
    answers = {spec.name: np.atleast_1d(array) for spec, array in zip(engine.outputs, raw, strict=True)}
    return compare_answers(part, answers, tolerance=_tolerance(foreign, tolerance), name=name)


def _check_runs(engine: Engine, feeds: Mapping[str, Array], name: str) -> None:
    """Run made-up rows, then rows of zeros and of ones in several sizes, until the graph takes some."""
    if any(np.prod([float(size) for size in _made_up_shape(spec, max(_SIZES))]) > _MOST for spec in engine.inputs):
        return
    first: RequestError | None = None
    for trial_feeds in (feeds, *_made_up_rows(engine)):
        try:
            engine.run(trial_feeds)
        except RequestError as error:
            first = first or error
        else:
            return
    if first is not None:
        reason = first.message.partition(": ")[2] or first.message
        hint = "fix the graph; if it refuses made-up values only, add --sample FILE with rows that it takes"
        raise DefinitionError(
            f"onnxruntime loads the graph of {name} and cannot run it: {reason}", subject=name, hint=hint
        )


def _made_up_rows(engine: Engine) -> Iterator[dict[str, Array]]:
    for size in _SIZES:
        for value in (0, 1):
            yield {spec.name: _filled(spec, size, value) for spec in engine.inputs}


def _made_up_shape(spec: TensorSpec, size: int) -> tuple[int, ...]:
    return tuple(
        (1 if place == 0 else size) if declared == -1 else declared for place, declared in enumerate(spec.shape)
    )


def _filled(spec: TensorSpec, size: int, value: int) -> Array:
    return np.full(
        _made_up_shape(spec, size), _TEXTS[value] if spec.datatype == "BYTES" else value, DTYPES[spec.datatype]
    )
