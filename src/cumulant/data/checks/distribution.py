"""Distribution rules of a column: mean, quantiles, shares of values and distance of each new batch of rows.

A batch breaks a rule where its figure is outside the declared range by more than chance explains. All evaluations of a
run share a level (Bonferroni), and rows are taken as independent, save for `drift`, which sees how days differ.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from cumulant.core.errors import DataError
from cumulant.core.plan import Field
from cumulant.data.checks.batches import Batch, NewFile, name_combined
from cumulant.data.checks.distribution_distance import BLOCK, VALUE, ReferenceCounts, collect_values, measure_distance
from cumulant.data.checks.severity import batch_severity, severity_of
from cumulant.data.parts.packs import blocks_of
from cumulant.data.parts.part import PartContext
from cumulant.data.policy import DistributionRule
from cumulant.data.profile import power_of_two
from cumulant.data.snapshot import BatchCheck, Snapshot
from cumulant.data.spec import Range
from cumulant.statistics.exact import binomial_at_least, binomial_at_most
from cumulant.statistics.rows import Floats

LEVEL = 0.001
#: fewest values whose mean is evaluated, with the deviation of earlier rows and by their own alone
FEWEST, FEWEST_ALONE = 20, 1000
#: of the interval of a distance
_INTERVAL = 0.99
_NUMBERS = ("int", "float")


@dataclass(frozen=True)
class _Tested:
    """A figure that may be outside; `p`: the chance of a figure so far out if it were just inside."""

    batch: str
    rule: str
    p: float
    rows: int
    limit: float
    text: str
    failed: int = 0


def check_distributions(
    new: Sequence[NewFile],
    batches: Sequence[Batch],
    fields: Sequence[Field],
    context: PartContext,
    previous: Snapshot | None,
) -> tuple[BatchCheck, ...]:
    """The rules on distributions that new rows break: of each file, of all together, and of each period in `batches`.

    Raises:
        DataError: a rule that needs numbers is of a column that holds none.
    """
    tested: list[tuple[Field, _Tested]] = []
    for field in fields:
        rule = context.policy.distributions.get(field.name)
        if rule is None:
            continue
        _refuse_other_types(field, rule, context.source)
        values = _values(field, new, batches, context)
        reference = (
            ReferenceCounts.of(field, previous, context, least=rule.drift)
            if values and rule.drift is not None
            else None
        )
        spread = _spread(field, previous)
        for name, rows in values:
            tested += [(field, test) for test in _tests(name, rows, field, rule, spread)]
            if reference is not None and rule.drift is not None:
                tested += [(field, _distance(name, rows, field, rule.drift, reference))]
    level = LEVEL / max(len(tested), 1)
    return tuple(_check(test, field, context) for field, test in tested if test.p < level)


def _refuse_other_types(field: Field, rule: DistributionRule, source: str) -> None:
    if (rule.mean or rule.quantiles) and field.dtype not in _NUMBERS:
        raise DataError(
            f'source {source}: the rule `{"mean" if rule.mean else "quantiles"}` needs numbers; column "{field.name}" '
            f"is of type {field.dtype}",
            subject=field.name,
            hint="use `shares` for categories; declare the column's `type` if it was read wrongly",
        )


def _values(
    field: Field, new: Sequence[NewFile], batches: Sequence[Batch], context: PartContext
) -> list[tuple[str, pl.DataFrame]]:
    """Batch to its values of a column, with the day (or declared period) that each is of."""
    frames = [(file.name, frame) for file, frame in _of_files(field, new, context) if frame.height]
    if not frames:
        return []
    pooled = pl.concat(frame for _, frame in frames)
    if len(frames) > 1:
        frames.append((name_combined(len(frames)), pooled))
    names = {batch.name for batch in batches if batch.kind == "period"}
    if names:
        for (label,), rows in pooled.group_by(BLOCK, maintain_order=True):
            if (name := f"{context.spec.batch.period} {label}") in names:
                frames.append((name, rows))
    return frames


def _of_files(field: Field, new: Sequence[NewFile], context: PartContext) -> Iterator[tuple[NewFile, pl.DataFrame]]:
    """The new values of each file; neighbours in one table are read together."""
    for block in blocks_of([file.accepted for file in new]):
        files = new[block.begin : block.begin + len(block.parts)]
        values = collect_values(block.scan(context), field, context)
        for file, (first, rows) in zip(files, block.slices(), strict=True):
            earlier = file.earlier.rows.rows if file.grown and file.earlier is not None else 0
            yield file, values.slice(first + earlier, rows - earlier)


def _spread(field: Field, previous: Snapshot | None) -> float:
    """The deviation of the column in the rows that were accepted before."""
    if previous is None or field.name not in previous.profile:
        return 0.0
    return previous.profile[field.name].std or 0.0


def _tests(name: str, rows: pl.DataFrame, field: Field, rule: DistributionRule, spread: float) -> Iterator[_Tested]:
    values = rows[VALUE].drop_nulls()
    if rule.mean is not None:
        yield from _mean(name, values, field, rule.mean, spread)
    count = values.len()
    for at, quantile, bounds in rule.quantiles:
        if bounds.max is not None:
            above = int((values > bounds.max).sum())
            text = f"the {quantile} quantile of {field.name} is above {bounds.max:g}: {above:,} of {count:,} values are"
            p = binomial_at_least(above, count, 1 - at)
            yield _Tested(name, f"{field.name}:quantiles", p, count, bounds.max, text, above)
        if bounds.min is not None:
            below = int((values < bounds.min).sum())
            text = f"the {quantile} quantile of {field.name} is below {bounds.min:g}: {below:,} of {count:,} values are"
            p = binomial_at_least(below, count, at)
            yield _Tested(name, f"{field.name}:quantiles", p, count, bounds.min, text, below)
    if rule.shares:
        yield from _shares(name, values, field, rule)


def mean_p_value(values: Floats, limit: float, *, above: bool, spread: float) -> float:
    """The chance of a mean of `values` [n] so far above (else below) `limit`, were the true mean at the limit.

    By Student's t, with the larger of the deviation of the values and `spread`, that of earlier rows: of skewed values
    a mean far out comes with a small deviation. 1 for fewer than FEWEST values, or FEWEST_ALONE if `spread` is 0.
    """
    from scipy.special import stdtr

    count = len(values)
    if count < (FEWEST if spread > 0 else FEWEST_ALONE):
        return 1.0
    unit = _power_of(values)
    values, limit, spread = values / unit, limit / unit, spread / unit
    gap = float(values.mean()) - limit if above else limit - float(values.mean())
    error = max(float(values.std(ddof=1)), spread) / math.sqrt(count)
    return float(stdtr(count - 1, -gap / error)) if error > 0 else float(gap <= 0)


def _power_of(values: Floats) -> float:
    return power_of_two(float(np.abs(values).max(initial=0.0)))


def _mean(name: str, values: pl.Series, field: Field, bounds: Range, spread: float) -> Iterator[_Tested]:
    numbers = values.cast(pl.Float64).to_numpy()
    numbers = numbers[np.isfinite(numbers)]
    mean = (numbers / (unit := _power_of(numbers))).mean() * unit if len(numbers) else 0.0
    shown = "" if field.personal or not len(numbers) else f" ({mean:.6g} over {len(numbers):,} values)"
    for limit, word in ((bounds.min, "below"), (bounds.max, "above")):
        if limit is not None:
            p = mean_p_value(numbers, limit, above=word == "above", spread=spread)
            text = f"the mean of {field.name} is {word} {limit:g}{shown}"
            yield _Tested(name, f"{field.name}:mean", p, len(numbers), limit, text)


def _shares(name: str, values: pl.Series, field: Field, rule: DistributionRule) -> Iterator[_Tested]:
    texts, count = values.cast(pl.String), values.len()
    for value, bounds in rule.shares.items():
        hits = int((texts == value).sum())
        low, high = bounds.min, bounds.max
        counted = f"{hits:,} of {count:,} values of {field.name} are {'of a single kind' if field.personal else value}"
        if low is not None:
            text = f"{counted}, fewer than the {low:.4g} that `shares` allows"
            p = binomial_at_most(hits, count, low)
            yield _Tested(name, f"{field.name}:shares", p, count, low, text, hits)
        if high is not None:
            text = f"{counted}, more than the {high:.4g} that `shares` allows"
            p = binomial_at_least(hits, count, high)
            yield _Tested(name, f"{field.name}:shares", p, count, high, text, hits)


def _distance(name: str, rows: pl.DataFrame, field: Field, limit: float, reference: ReferenceCounts) -> _Tested:
    distance = measure_distance(reference, rows, level=_INTERVAL, least=LEVEL)
    if distance is None:
        return _Tested(name, f"{field.name}:drift", 1.0, rows.height, limit, "")
    text = (
        f"{field.name} is {distance.value:.3f} (at least {distance.low:.3f}) from the rows accepted before, more than "
        f"the {limit:g} that `drift` allows"
    )
    return _Tested(name, f"{field.name}:drift", distance.p if distance.low > limit else 1.0, rows.height, limit, text)


def _check(test: _Tested, field: Field, context: PartContext) -> BatchCheck:
    return BatchCheck(
        batch=test.batch,
        rule=test.rule,
        column=field.name,
        severity=batch_severity(context.policy, severity_of(context.policy, test.rule, field.name)),
        failed=test.failed,
        rows=test.rows,
        limit=test.limit,
        text=f"{test.batch}: {test.text}",
    )
