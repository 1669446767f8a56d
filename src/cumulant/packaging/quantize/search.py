"""Building and measuring of every form of a graph."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from cumulant.core.errors import DataError, DefinitionError, IntegrityError, OutOfMemoryError, RequestError
from cumulant.packaging.batching import measure_batching
from cumulant.packaging.graphs.graph import import_onnx
from cumulant.packaging.quantize import decisions, forms, measure, packed, static
from cumulant.packaging.quantize.choice import ORIGINAL, FormTrial
from cumulant.packaging.quantize.layers import Array, WeightedLayer, count_products, find_layers, second_moments
from cumulant.packaging.quantize.lookup import replace_lookups
from cumulant.packaging.quantize.mixed import Rounder, first_good, make_ladder
from cumulant.packaging.quantize.normal import OLDEST, normalize_graph, opset_of
from cumulant.servable.engine import Engine

if TYPE_CHECKING:
    from onnx import ModelProto

#: rows that forms are compared on, at most, and rows that they may learn from
HELD_OUT, CALIBRATION = 2000, 400
#: rows on which ranges and sensitivities are tried, many times over
_TRIED = 96
#: rows that are scored alone and beside each other
_BESIDE = 32
_FEWEST, _SOME = 20, 1000
#: of the allowed loss, what a mixed plan may spend on the rows that it was fitted to
_SPENT = (0.7, 0.35, 0.1)
#: what converters and quantizers raise for a graph that they cannot take
_FAULTS = (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)

Sample = Mapping[str, Array]
Make = Callable[[], "ModelProto"]


class _AnsweredRows(NamedTuple):
    sample: Sample
    answers: list[Array]

    @classmethod
    def by(cls, engine: Engine, sample: Sample) -> _AnsweredRows:
        return cls(sample, measure.run_sample(engine, sample))


class _Requirement(NamedTuple):
    """Requirement for forms: allowed loss at a threshold, on calibration rows and fresh ones."""

    loss: float
    threshold: float | None
    learned: _AnsweredRows
    fresh: _AnsweredRows


class TriedForms(NamedTuple):
    """The trials, the original first, and the graph of each that could be made, by kind."""

    trials: tuple[FormTrial, ...]
    paths: dict[str, Path]


def try_forms(
    model: Path, sample: Sample, *, accuracy_loss: float, folder: Path, budget: float, threshold: float | None = None
) -> TriedForms:
    """Make every form in `folder` and measure it on rows that it did not learn from.

    `threshold`: of two classes, the probability of the second from which the decision is positive.
    """
    proto = _load(model)
    engine = Engine(model)
    calibration, held_out = _split(sample, engine, accuracy_loss, threshold)
    aim = _Requirement(
        accuracy_loss, threshold, _AnsweredRows.by(engine, calibration), _AnsweredRows.by(engine, held_out)
    )
    _check_answers(aim.fresh.answers, model)
    decisions.check_threshold(aim.fresh.answers, threshold)
    trials, paths = [FormTrial(ORIGINAL, model.stat().st_size, 1.0, note=_note(model, held_out))], {ORIGINAL: model}
    engines: dict[str, Engine] = {ORIGINAL: engine}
    for kind, make in _forms(proto, engine, aim):
        trial, form_engine = _try(kind, make, folder / f"{len(trials)}.onnx", aim)
        trials.append(trial)
        if form_engine is not None:
            engines[kind], paths[kind] = form_engine, folder / f"{len(trials) - 1}.onnx"
    paces = dict(zip(engines, measure.time_engines([*engines.values()], held_out, budget=budget), strict=True))
    return TriedForms(tuple(entry._replace(paces=paces.get(entry.kind, ())) for entry in trials), paths)


def _load(model: Path) -> ModelProto:
    from google.protobuf.message import DecodeError

    onnx = import_onnx()
    try:
        proto: ModelProto = onnx.load(str(model), load_external_data=False)
    except (DecodeError, OSError) as error:
        raise DefinitionError(f"{model} is no ONNX graph that can be read: {error}", subject=str(model)) from None
    if any(constant.data_location == onnx.TensorProto.EXTERNAL for constant in proto.graph.initializer):
        raise DefinitionError(
            f"{model} keeps weights in other files, which would not be counted nor copied",
            subject=str(model),
            hint="save it as one file first: onnx.save(onnx.load(path), path), up to 2 GB",
        )
    return proto


def _split(sample: Sample, engine: Engine, accuracy_loss: float, threshold: float | None) -> tuple[Sample, Sample]:
    """Rows to learn from, and others to compare on; evenly mixed, the same at every call."""
    single = [spec.name for spec in engine.inputs if not spec.shape]
    if single:
        hint = "package the model without --quantize"
        raise DataError(f"forms are measured by rows, and the input {single[0]} is a single value", hint=hint)
    rows = measure.count_rows(sample)
    names = {spec.name for spec in engine.inputs}
    if names != set(sample):
        raise DataError(f"the sample has {', '.join(sorted(sample))}; the graph takes {', '.join(sorted(names))}")
    step = measure.fixed_rows(engine) or 1
    fewest = max(_FEWEST, _fewest(sample, engine, accuracy_loss, threshold), step)
    learn = min(CALIBRATION, max(rows // 4, step)) // step * step
    if rows - learn < fewest:
        raise DataError(
            f"the sample has {rows} rows; a loss of {accuracy_loss:g} needs at least "
            f"{min(math.ceil(fewest * 4 / 3), fewest + CALIBRATION)}: some to learn from, the others to compare on",
            hint="give a longer sample, or allow a larger loss",
        )
    order = np.random.default_rng(0).permutation(rows)
    first, second = np.sort(order[:learn]), np.sort(order[learn : learn + max(HELD_OUT, fewest)])
    return _rows(sample, first), _rows(sample, second)


def _fewest(sample: Sample, engine: Engine, accuracy_loss: float, threshold: float | None) -> int:
    """Rows on which a form that always agrees shows it; a relative error needs no more than some."""
    few = measure.run_sample(engine, _rows(sample, slice(measure.fixed_rows(engine) or 1)))
    if not measure.is_share(few, threshold):
        return min(_SOME, math.ceil(1 / accuracy_loss) if accuracy_loss else 0)
    if not accuracy_loss:
        hint = "allow a small loss, such as 0.01"
        raise DataError("no number of rows shows that no answer ever changes: the loss must be above 0", hint=hint)
    return decisions.rows_to_show(accuracy_loss)


def _rows(sample: Sample, chosen: Any) -> Sample:
    return {name: value[chosen] for name, value in sample.items()}


def _check_answers(expected: Iterable[Array], model: Path) -> None:
    for answer in expected:
        if answer.dtype.kind == "f" and answer.size and not np.isfinite(answer).any():
            raise DataError(
                f"{model} gives no finite number on the sample, so that nothing can be compared with it",
                subject=str(model),
                hint="give rows as the model meets them in use",
            )


def _try(kind: str, make: Make, path: Path, aim: _Requirement) -> tuple[FormTrial, Engine | None]:
    onnx = import_onnx()
    try:
        onnx.save(make(), str(path))
        engine = Engine(path)
        distance = measure.measure_distance(aim.learned.answers, measure.run_sample(engine, aim.learned.sample))
        answers = measure.run_sample(engine, aim.fresh.sample)
        agreement = measure.measure_agreement(aim.fresh.answers, answers, aim.threshold)
        bound = measure.agreement_bound(aim.fresh.answers, answers, aim.threshold)
        sides = [
            decisions.describe_lost_side(original, answer, aim.threshold, aim.loss)
            for original, answer in zip(aim.fresh.answers, answers, strict=True)
            if original.shape == answer.shape
        ]
    except (*_FAULTS, IntegrityError, OutOfMemoryError, RequestError, onnx.checker.ValidationError) as error:
        first = str(error).strip().split("\n", 1)[0][:200]
        return FormTrial(kind, fault=f"could not be made: {type(error).__name__}: {first}"), None
    trial = FormTrial(
        kind, path.stat().st_size, agreement, note=_note(path, aim.fresh.sample), bound=bound, distance=distance
    )
    return trial._replace(one_sided=next(filter(None, sides), "")), engine


def _note(path: Path, sample: Sample) -> str:
    batching = measure_batching(Engine(path), sample, _BESIDE)
    return "" if batching.exact else f"not exact in batches: {batching.reason}"


def _forms(proto: ModelProto, engine: Engine, aim: _Requirement) -> Iterator[tuple[str, Make]]:
    try:
        base, replaced = replace_lookups(normalize_graph(proto))
    except _FAULTS:
        return
    weighted = find_layers(base)
    if replaced:
        yield "lookup", lambda: packed.compact(deepcopy(base))
    if not weighted:
        return
    step = measure.fixed_rows(engine) or 1
    work, loss = _FormWork(base, weighted, step, aim), aim.loss
    yield "float16 weights", lambda: packed.pack_weights(base, {})
    yield "float16", lambda: forms.to_float16(base)
    yield "int8 weights", lambda: work.weights(8)
    yield "4-bit weights", lambda: work.weights(4)
    yield "int8 dynamic", lambda: _rest(forms.to_dynamic_int8(base))
    if any(forms.can_be_four_bits(base, layer) for layer in weighted):
        yield "4-bit products", work.products
    if any(static.can_be_static(base, layer) for layer in weighted):
        yield "int8 static", work.all_static
        yield "int8 static, mixed", lambda: work.some_static(loss * _SPENT[0])
        yield "int8 static, careful", lambda: work.some_static(loss * _SPENT[-1])
    for spent in _SPENT:
        yield f"mixed weights, {spent:.0%} of the loss spent", partial(work.mixed, loss * spent)


def explain_no_forms(model: Path) -> str:
    """Reason why no form of the graph was tried."""
    proto = _load(model)
    try:
        normalize_graph(proto)
    except _FAULTS as error:
        return (
            f"no form was tried: quantized weights need operator set {OLDEST} or newer, and onnx cannot convert the "
            f"graph's {opset_of(proto)}: {str(error).strip().splitlines()[-1][:120]}; export the model with a newer one"
        )
    kinds = sorted({node.op_type for node in proto.graph.node})
    return f"no form was tried: no layer with large float32 weights among its operators ({', '.join(kinds[:8])})"


def _rest(model: ModelProto) -> ModelProto:
    """The form with its remaining float32 weights, such as tables, as int8."""
    rounder = Rounder(find_layers(model), {})
    return packed.pack_weights(model, rounder.plan(dict.fromkeys(rounder.layers, 8)))


class _FormWork:
    def __init__(self, base: ModelProto, model_layers: tuple[WeightedLayer, ...], step: int, aim: _Requirement) -> None:
        self._base, self._layers, self._step = base, model_layers, step
        self._calibration, self._expected, self._threshold = aim.learned.sample, aim.learned.answers, aim.threshold
        few = min(measure.count_rows(self._calibration), max(_TRIED // step, 1) * step)
        self._few, self._few_expected = (
            _rows(self._calibration, slice(few)),
            [answer[:few] for answer in self._expected],
        )
        self._rounder: Rounder | None = None
        self._ranges: static.Ranges | None = None
        self._cuts: static.TailCuts | None = None

    @property
    def rounder(self) -> Rounder:
        if self._rounder is None:
            moments = second_moments(self._base, self._layers, self._calibration, self._step)
            self._rounder = Rounder(self._layers, moments)
        return self._rounder

    def weights(self, bits: int) -> ModelProto:
        return packed.pack_weights(self._base, self.rounder.plan(dict.fromkeys(self.rounder.layers, bits)))

    def products(self) -> ModelProto:
        fit = {layer.weight: layer for layer in self._layers if forms.can_be_four_bits(self._base, layer)}
        return _rest(forms.to_four_bit_products(self._base, fit, self.rounder.moments))

    def mixed(self, loss: float) -> ModelProto:
        steps = make_ladder(self.rounder, {weight: self._sensitivity(weight) for weight in self.rounder.layers})
        good = first_good(len(steps), lambda k: self._agrees(self._planned(steps[k].plan), loss))
        return self._planned(steps[good].plan)

    def _planned(self, plan: Mapping[str, int]) -> ModelProto:
        return packed.pack_weights(self._base, self.rounder.plan(plan))

    def _sensitivity(self, weight: str, bits: int = 4) -> float:
        alone = self._planned({weight: bits})
        return self._error(alone) ** 2 / max(self.rounder.error(weight, bits), 1e-12)

    def all_static(self) -> ModelProto:
        return _rest(self._static(self._able(), self._best_cuts()))

    def some_static(self, loss: float) -> ModelProto:
        """int8 arithmetic in as many layers as the loss allows, those left out that hurt most for what they win."""
        cuts, able = self._best_cuts(), self._able()
        won = count_products(self._base, able, self._few, self._step)
        able.sort(key=lambda layer: self._error(self._static((layer,), cuts)) ** 2 / won[layer.weight], reverse=True)
        left_out = first_good(len(able), lambda k: self._agrees(self._static(able[k:], cuts), loss))
        return _rest(self._static(able[left_out:], cuts))

    def _able(self) -> list[WeightedLayer]:
        return [layer for layer in self._layers if static.can_be_static(self._base, layer)]

    def _best_cuts(self) -> static.TailCuts:
        if self._cuts is None:
            able = self._able()
            self._cuts = static.find_best_cuts(lambda cuts: self._error(self._static(able, cuts)))
        return self._cuts

    def _static(self, chosen: Iterable[WeightedLayer], cuts: static.TailCuts) -> ModelProto:
        if self._ranges is None:
            self._ranges = static.measure_ranges(self._base, self._able(), self._few, self._step)
        return static.to_static_int8(self._base, chosen, self._ranges, cuts)

    def _error(self, model: ModelProto) -> float:
        return measure.measure_distance(self._few_expected, measure.run_model(model, self._few))

    def _agrees(self, model: ModelProto, loss: float) -> bool:
        answers = measure.run_model(model, self._calibration)
        return measure.measure_agreement(self._expected, answers, self._threshold) >= 1 - loss
