"""Smaller or faster forms of a graph: all are made and measured, and the best within the loss is written."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec

from cumulant.core.errors import DataError
from cumulant.core.servable import FormResult
from cumulant.packaging.quantize.choice import ORIGINAL, Aim, choose_form
from cumulant.packaging.quantize.measure import Array
from cumulant.packaging.quantize.search import explain_no_forms, try_forms

#: seconds spent on the clock, in all
_BUDGET = 60.0


def quantize(
    model: Path,
    sample: Mapping[str, Array],
    *,
    aim: Aim,
    accuracy_loss: float,
    out: Path,
    threshold: float | None = None,
    budget: float = _BUDGET,
) -> tuple[FormResult, ...]:
    """Write the form of `model` that serves `aim` best to `out`; return all that were tried, and why.

    `sample` holds rows as the model meets them, by input name, the first axis being the rows. A quarter (at most
    400) is learned from; every form is then compared on others (2,000, or more where the loss needs them): the share of
    rows with the same decision must be at least 1 - `accuracy_loss`. Of two classes it is the decision at `threshold`
    of the second's probability, without one that at each of several; of more, the largest; where an output decides
    nothing, 1 - relative error counts. Of a share, the lower end of its exact one-sided 95% interval does, and forms
    are tested so that 95% hold for all together (`choose_form`).
    `size` takes the smallest file, `speed` the fastest of those that are faster beyond the noise of the measurement.
    The original stays where nothing else is within the loss, smaller, or faster. Times are of one thread.

    `budget`: about how many seconds the timing may take; making the forms comes on top.

    Raises:
        DataError: the loss is no share, the threshold is none of two classes, or the sample is too short, uneven, or
            names other inputs than the graph.
        DefinitionError, IntegrityError: `model` is no graph that can be read or run.
        MissingPartError: `onnx` is not installed.
    """
    if not 0 <= accuracy_loss < 1:
        raise DataError(f"the accuracy loss must be at least 0 and below 1, not {accuracy_loss:g}")
    with TemporaryDirectory() as folder:
        forms = try_forms(
            model, sample, accuracy_loss=accuracy_loss, folder=Path(folder), budget=budget, threshold=threshold
        )
        candidates = choose_form(forms.trials, aim=aim, accuracy_loss=accuracy_loss)
        chosen = next(candidate for candidate in candidates if candidate.chosen)
        if chosen.kind != ORIGINAL or out.resolve() != model.resolve():
            shutil.copyfile(forms.paths[chosen.kind], out)
    if len(candidates) == 1:
        return (msgspec.structs.replace(candidates[0], reason=explain_no_forms(model)),)
    return candidates
