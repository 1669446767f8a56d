"""Every form of one graph, made and measured."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from cumulant.core.errors import DataError, DefinitionError, IntegrityError, RequestError
from cumulant.packaging.graphs.graph import onnx_part
from cumulant.packaging.quantize import decisions, forms, measure, packed, static
from cumulant.packaging.quantize.choice import ORIGINAL, Trial
from cumulant.packaging.quantize.layers import Array, Layer, layers, second_moments, visits
from cumulant.packaging.quantize.lookup import lookups
from cumulant.packaging.quantize.mixed import Rounder, first_good, ladder
from cumulant.packaging.quantize.normal import OLDEST, normalized, opset_of
from cumulant.servable.engine import Engine

if TYPE_CHECKING:
    from onnx import ModelProto

#: rows that forms are held to, at most, and rows that they may learn from
HELD_OUT, CALIBRATION = 2000, 400
#: rows on which ranges and sensitivities are tried, many times over
_TRIED = 96
_FEWEST, _SOME = 20, 1000
#: of the allowed loss, what a mixed plan may spend on the rows that it was fitted to
_SPENT = (0.7, 0.35, 0.1)
#: what converters and quantizers raise for a graph that they cannot take
_FAULTS = (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)

Sample = Mapping[str, Array]
Make = Callable[[], "ModelProto"]


class _Answered(NamedTuple):
    """Rows, and what the original answers."""

    sample: Sample
    answers: list[Array]

    @classmethod
    def by(cls, engine: Engine, sample: Sample) -> _Answered:
        return cls(sample, measure.answers(engine, sample))


class _Aim(NamedTuple):
    """What forms are held to: the loss of decisions at a threshold; rows to learn from, and fresh ones."""

    loss: float
    threshold: float | None
    learned: _Answered
    fresh: _Answered


class Tried(NamedTuple):
    """The trials, the original first, and the graph of each that could be made, by kind."""

    trials: tuple[Trial, ...]
    paths: dict[str, Path]


def tried(
    model: Path, sample: Sample, *, accuracy_loss: float, folder: Path, budget: float, threshold: float | None = None
) -> Tried:
    """Make every form in `folder` and measure it on rows that it did not learn from.

    `threshold`: of two classes, the probability of the second from which a caller says yes.
    """
    proto = _load(model)
    engine = Engine(model)
    calibration, held_out = _split(sample, engine, accuracy_loss, threshold)
    aim = _Aim(accuracy_loss, threshold, _Answered.by(engine, calibration), _Answered.by(engine, held_out))
    _check_answers(aim.fresh.answers, model)
    decisions.check_threshold(aim.fresh.answers, threshold)
    trials, paths = [Trial(ORIGINAL, model.stat().st_size, 1.0, note=_note(model, held_out))], {ORIGINAL: model}
    engines: dict[str, Engine] = {ORIGINAL: engine}
    for kind, make in _forms(proto, engine, aim):
        trial, found = _try(kind, make, folder / f"{len(trials)}.onnx", aim)
        trials.append(trial)
        if found is not None:
            engines[kind], paths[kind] = found, folder / f"{len(trials) - 1}.onnx"
    paces = dict(zip(engines, measure.paces([*engines.values()], held_out, budget=budget), strict=True))
    return Tried(tuple(one._replace(paces=paces.get(one.kind, ())) for one in trials), paths)


def _load(model: Path) -> ModelProto:
    from google.protobuf.message import DecodeError

    onnx = onnx_part()
    try:
        found: ModelProto = onnx.load(str(model), load_external_data=False)
    except (DecodeError, OSError) as error:
        raise DefinitionError(f"{model} is no ONNX graph that can be read: {error}", subject=str(model)) from None
    if any(one.data_location == onnx.TensorProto.EXTERNAL for one in found.graph.initializer):
        raise DefinitionError(
            f"{model} keeps weights in other files, which would not be counted nor copied",
            subject=str(model),
            hint="save it as one file first: onnx.save(onnx.load(path), path), up to 2 GB",
        )
    return found


def _split(sample: Sample, engine: Engine, accuracy_loss: float, threshold: float | None) -> tuple[Sample, Sample]:
    """Rows to learn from, and others to be held to; evenly mixed, the same at every call.

    Raises:
        DataError: too few rows to tell whether the loss is kept.
    """
    single = [spec.name for spec in engine.inputs if not spec.shape]
    if single:
        hint = "package the model without --quantize"
        raise DataError(f"forms are measured by rows, and the input {single[0]} is a single value", hint=hint)
    rows = measure.count(sample)
    names = {spec.name for spec in engine.inputs}
    if names != set(sample):
        raise DataError(f"the sample has {', '.join(sorted(sample))}; the graph takes {', '.join(sorted(names))}")
    step = measure.fixed_rows(engine) or 1
    fewest = max(_FEWEST, _fewest(sample, engine, accuracy_loss, threshold), step)
    learn = min(CALIBRATION, max(rows // 4, step)) // step * step
    if rows - learn < fewest:
        raise DataError(
            f"the sample has {rows} rows; a loss of {accuracy_loss:g} needs at least "
            f"{min(math.ceil(fewest * 4 / 3), fewest + CALIBRATION)}: some to learn from, the others to be held to",
            hint="give a longer sample, or allow a larger loss",
        )
    order = np.random.default_rng(0).permutation(rows)
    first, second = np.sort(order[:learn]), np.sort(order[learn : learn + max(HELD_OUT, fewest)])
    return _rows(sample, first), _rows(sample, second)


def _fewest(sample: Sample, engine: Engine, accuracy_loss: float, threshold: float | None) -> int:
    """Rows on which a form that always agrees shows it; a relative error needs no more than some.

    Raises:
        DataError: no number of rows can show it.
    """
    few = measure.answers(engine, _rows(sample, slice(measure.fixed_rows(engine) or 1)))
    if not measure.shares(few, threshold):
        return min(_SOME, math.ceil(1 / accuracy_loss) if accuracy_loss else 0)
    if not accuracy_loss:
        hint = "allow a small loss, such as 0.01"
        raise DataError("no number of rows shows that no answer ever changes: the loss must be above 0", hint=hint)
    return decisions.rows_to_show(accuracy_loss)


def _rows(sample: Sample, chosen: Any) -> Sample:
    return {name: value[chosen] for name, value in sample.items()}


def _check_answers(expected: Iterable[Array], model: Path) -> None:
    for one in expected:
        if one.dtype.kind == "f" and one.size and not np.isfinite(one).any():
            raise DataError(
                f"{model} gives no finite number on the sample, so that nothing can be held to it",
                subject=str(model),
                hint="give rows as the model meets them in use",
            )


def _try(kind: str, make: Make, path: Path, aim: _Aim) -> tuple[Trial, Engine | None]:
    onnx = onnx_part()
    try:
        onnx.save(make(), str(path))
        engine = Engine(path)
        distance = measure.distance(aim.learned.answers, measure.answers(engine, aim.learned.sample))
        answers = measure.answers(engine, aim.fresh.sample)
        found = measure.agreement(aim.fresh.answers, answers, aim.threshold)
        bound = measure.bound(aim.fresh.answers, answers, aim.threshold)
        sides = [
            decisions.lost_side(one, other, aim.threshold, aim.loss)
            for one, other in zip(aim.fresh.answers, answers, strict=True)
            if one.shape == other.shape
        ]
    except (*_FAULTS, IntegrityError, RequestError, onnx.checker.ValidationError) as error:
        first = str(error).strip().split("\n", 1)[0][:200]
        return Trial(kind, fault=f"could not be made: {type(error).__name__}: {first}"), None
    trial = Trial(kind, path.stat().st_size, found, note=_note(path, aim.fresh.sample), bound=bound, distance=distance)
    return trial._replace(one_sided=next(filter(None, sides), "")), engine


def _note(path: Path, sample: Sample) -> str:
    batching = measure.neighbours_matter(path, sample)
    return "" if batching.exact else f"not exact in batches: {batching.reason}"


def _forms(proto: ModelProto, engine: Engine, aim: _Aim) -> Iterator[tuple[str, Make]]:
    """Each form's name and how to make it, in order of rising effort."""
    try:
        base, replaced = lookups(normalized(proto))
    except _FAULTS:
        return
    found = layers(base)
    if replaced:
        yield "lookup", lambda: packed.compact(_copy(base))
    if not found:
        return
    step = measure.fixed_rows(engine) or 1
    work, loss = _Work(base, found, step, aim), aim.loss
    yield "float16 weights", lambda: packed.packed(base, {})
    yield "float16", lambda: forms.half_computed(base)
    yield "int8 weights", lambda: work.weights(8)
    yield "4-bit weights", lambda: work.weights(4)
    yield "int8 dynamic", lambda: _rest(forms.dynamic_int8(base))
    if any(forms.can_be_four_bits(base, one) for one in found):
        yield "4-bit products", work.products
    if any(static.can_be_static(base, one) for one in found):
        yield "int8 static", work.all_static
        yield "int8 static, mixed", lambda: work.some_static(loss * _SPENT[0])
        yield "int8 static, careful", lambda: work.some_static(loss * _SPENT[-1])
    for spent in _SPENT:
        yield f"mixed weights, {spent:.0%} of the loss spent", partial(work.mixed, loss * spent)


def why_nothing(model: Path) -> str:
    """What the graph lacks, where no form of it was tried."""
    proto = _load(model)
    try:
        normalized(proto)
    except _FAULTS as error:
        return (
            f"no form was tried: quantized weights need operator set {OLDEST} or newer, and onnx cannot convert the "
            f"graph's {opset_of(proto)}: {str(error).strip().splitlines()[-1][:120]}; export the model with a newer one"
        )
    kinds = sorted({node.op_type for node in proto.graph.node})
    return f"no form was tried: no layer with large float32 weights among its operators ({', '.join(kinds[:8])})"


def _copy(model: ModelProto) -> ModelProto:
    found: ModelProto = onnx_part().ModelProto()
    found.CopyFrom(model)
    return found


def _rest(model: ModelProto) -> ModelProto:
    """What a form left as float32, such as tables, as int8 weights."""
    rounder = Rounder(layers(model), {})
    return packed.packed(model, rounder.plan(dict.fromkeys(rounder.layers, 8)))


class _Work:
    """What several forms of one graph share: moments, ranges, sensitivities; each computed when first wanted."""

    def __init__(self, base: ModelProto, found: tuple[Layer, ...], step: int, aim: _Aim) -> None:
        self._base, self._layers, self._step = base, found, step
        self._calibration, self._expected, self._threshold = aim.learned.sample, aim.learned.answers, aim.threshold
        few = min(measure.count(self._calibration), max(_TRIED // step, 1) * step)
        self._few, self._few_expected = _rows(self._calibration, slice(few)), [one[:few] for one in self._expected]
        self._rounder: Rounder | None = None
        self._ranges: static.Ranges | None = None
        self._cuts: static.Cuts | None = None

    @property
    def rounder(self) -> Rounder:
        if self._rounder is None:
            moments = second_moments(self._base, self._layers, self._calibration, self._step)
            self._rounder = Rounder(self._layers, moments)
        return self._rounder

    def weights(self, bits: int) -> ModelProto:
        return packed.packed(self._base, self.rounder.plan(dict.fromkeys(self.rounder.layers, bits)))

    def products(self) -> ModelProto:
        fit = {one.weight: one for one in self._layers if forms.can_be_four_bits(self._base, one)}
        return _rest(forms.four_bit_products(self._base, fit, self.rounder.moments))

    def mixed(self, loss: float) -> ModelProto:
        steps = ladder(self.rounder, {weight: self._sensitivity(weight) for weight in self.rounder.layers})
        good = first_good(len(steps), lambda k: self._agrees(self._planned(steps[k].plan), loss))
        return self._planned(steps[good].plan)

    def _planned(self, plan: Mapping[str, int]) -> ModelProto:
        return packed.packed(self._base, self.rounder.plan(plan))

    def _sensitivity(self, weight: str, bits: int = 4) -> float:
        alone = self._planned({weight: bits})
        return self._error(alone) ** 2 / max(self.rounder.error(weight, bits), 1e-12)

    def all_static(self) -> ModelProto:
        return _rest(self._static(self._able(), self._best_cuts()))

    def some_static(self, loss: float) -> ModelProto:
        """int8 arithmetic in as many layers as the loss allows, those left out that hurt most for what they win."""
        cuts, able = self._best_cuts(), self._able()
        won = visits(self._base, able, self._few, self._step)
        able.sort(key=lambda one: self._error(self._static((one,), cuts)) ** 2 / won[one.weight], reverse=True)
        left_out = first_good(len(able), lambda k: self._agrees(self._static(able[k:], cuts), loss))
        return _rest(self._static(able[left_out:], cuts))

    def _able(self) -> list[Layer]:
        return [one for one in self._layers if static.can_be_static(self._base, one)]

    def _best_cuts(self) -> static.Cuts:
        if self._cuts is None:
            able = self._able()
            self._cuts = static.best_cuts(lambda cuts: self._error(self._static(able, cuts)))
        return self._cuts

    def _static(self, chosen: Iterable[Layer], cuts: static.Cuts) -> ModelProto:
        if self._ranges is None:
            self._ranges = static.ranges(self._base, self._able(), self._few, self._step)
        return static.static_int8(self._base, chosen, self._ranges, cuts)

    def _error(self, model: ModelProto) -> float:
        return measure.distance(self._few_expected, measure.of_model(model, self._few))

    def _agrees(self, model: ModelProto, loss: float) -> bool:
        found = measure.of_model(model, self._calibration)
        return measure.agreement(self._expected, found, self._threshold) >= 1 - loss
