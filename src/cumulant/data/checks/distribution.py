"""Distribution rules of a column: mean, quantiles, shares of values, and distance of each new batch.

All tests of a run share a level (Bonferroni). Rows count as independent, except for `drift`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import polars as pl

from cumulant.core.errors import DataError
from cumulant.core.plan import Field
from cumulant.data.checks.batches import Batch, NewFile, name_combined, period_of
from cumulant.data.parts.packs import blocks_of, load_part
from cumulant.data.parts.part import PartContext
from cumulant.data.policy import DistributionRule
from cumulant.data.profile import power_of_two
from cumulant.data.rules.severity import batch_severity, severity_of
from cumulant.data.rules.verdict_spec import Range
from cumulant.data.snapshot import BatchCheck, RowRange, Snapshot
from cumulant.data.text.casts import conform
from cumulant.statistics.drift.bins import Grid, groups
from cumulant.statistics.drift.bins import cells as drift_cells
from cumulant.statistics.drift.bins import grid as drift_grid
from cumulant.statistics.drift.effects import sum_groups
from cumulant.statistics.drift.evidence import two_samples
from cumulant.statistics.drift.intervals import effect
from cumulant.statistics.drift.stationary import steady_from
from cumulant.statistics.exact import binomial_at_least, binomial_at_most
from cumulant.statistics.rows import Codes, Floats

LEVEL = 0.001
#: fewest values whose mean is evaluated, with the deviation of earlier rows and by their own alone
FEWEST, FEWEST_ALONE = 20, 1000
#: of the interval of a distance
_INTERVAL = 0.99
_NUMBERS = ("int", "float")
VALUE, BLOCK = "value", "block"
#: of the earlier rows, the newest that are read, and the parts that they are read from
_ROWS, _PARTS = 1_000_000, 200
#: values with a cell of their own; all others share a single cell
_ALONE = 200
_NO_DISTANCE = ("time", "date", "bytes")


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
    for quantile in rule.quantiles:
        bounds, named = quantile.bounds, f"the {quantile.text} quantile of {field.name}"
        if bounds.max is not None:
            above = int((values > bounds.max).sum())
            text = f"{named} is above {bounds.max:g}: {above:,} of {count:,} values are"
            p = binomial_at_least(above, count, 1 - quantile.share)
            yield _Tested(name, f"{field.name}:quantiles", p, count, bounds.max, text, above)
        if bounds.min is not None:
            below = int((values < bounds.min).sum())
            text = f"{named} is below {bounds.min:g}: {below:,} of {count:,} values are"
            p = binomial_at_least(below, count, quantile.share)
            yield _Tested(name, f"{field.name}:quantiles", p, count, bounds.min, text, below)
    if rule.shares:
        yield from _shares(name, values, field, rule)


def mean_p_value(values: Floats, limit: float, *, above: bool, spread: float) -> float:
    """The p-value of a mean of `values` [n] above (else below) `limit`, were the true mean at the limit.

    Student's t, with the larger of the deviation of the values and `spread`, that of earlier rows. 1 for fewer than
    FEWEST values, or FEWEST_ALONE if `spread` is 0.
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


class Distance(NamedTuple):
    """A Jensen-Shannon distance without what chance adds, the lower end of its interval, and whether it is chance."""

    value: float
    low: float
    p: float


@dataclass(frozen=True)
class ReferenceCounts:
    """Counts [blocks, cells] of earlier rows, nulls in the last cell; cells of numbers (`grid`), or of `values`."""

    counts: Floats
    grid: Grid | None
    values: tuple[str, ...] = ()

    @staticmethod
    def of(field: Field, previous: Snapshot | None, context: PartContext, *, least: float) -> ReferenceCounts | None:
        """Counts of the newest rows of the last snapshot that vary by less than `least`; None without a value."""
        rows = None if previous is None or field.dtype in _NO_DISTANCE else _earlier_values(field, previous, context)
        if previous is None or rows is None or rows[VALUE].null_count() == rows.height:
            return None
        grid, values = None, ()
        if field.dtype == "float" or (field.dtype == "int" and not previous.profile[field.name].top):
            numbers = _numbers(rows)
            finite = np.sort(numbers[np.isfinite(numbers)])
            if not len(finite):
                return None
            grid = drift_grid(finite)
        else:
            texts = rows.select(pl.col(VALUE).cast(pl.String).drop_nulls()).to_series()
            values = tuple(texts.value_counts(sort=True)[VALUE].head(_ALONE).to_list())
        whole = ReferenceCounts(np.zeros((0, 0)), grid, values)
        counts = whole.cells(rows)
        return ReferenceCounts(counts[steady_from(counts, least) :], grid, values)

    def cells(self, rows: pl.DataFrame) -> Floats:
        """How many rows lie in each cell: [blocks, cells], blocks in the order of their names."""
        blocks = rows[BLOCK].rank("dense").to_numpy().astype(np.int64) - 1
        count = int(blocks.max()) + 1
        null = rows[VALUE].is_null().to_numpy()
        if self.grid is not None:
            result = drift_cells(_numbers(rows), self.grid, block=blocks[~null], blocks=count)
        else:
            result = _of_values(rows.filter(~pl.Series(null)), self.values, blocks[~null], count)
        nulls = np.bincount(blocks[null], minlength=count)
        return np.column_stack([result, nulls]).astype(np.float64)


def measure_distance(reference: ReferenceCounts, rows: pl.DataFrame, *, level: float, least: float) -> Distance | None:
    """The distance of `rows` (`value`, `block`) from the reference, with an interval at `level`.

    None where chance explains a difference of `least`.
    """
    earlier, current = reference.counts, reference.cells(rows)
    pooled = (earlier.sum(axis=0) + current.sum(axis=0))[:-1]
    smaller = min(float(earlier.sum()), float(current.sum()))
    group = groups(pooled, smaller, ordered=reference.grid is not None)
    earlier_cells, current_cells = (
        np.column_stack([sum_groups(counts[:, :-1], group), counts[:, -1]]) for counts in (earlier, current)
    )
    evidence = two_samples(earlier_cells, current_cells)
    if evidence.p >= least:
        return None  # the interval takes most of the time
    result = effect(earlier_cells, current_cells, design=evidence.design, level=level)
    return Distance(result.value, result.low, evidence.p)


def collect_values(rows: pl.LazyFrame, field: Field, context: PartContext) -> pl.DataFrame:
    """The values of a column (`value`), and the day or declared period of each (`block`); empty without a time."""
    period, time = period_of(context.spec, default="day"), context.spec.time
    fields = [field] if time is None or time.column == field.name else [field, Field(time.column, "time")]
    label = pl.lit("") if period is None else period
    return conform(rows, fields).select(pl.col(field.name).alias(VALUE), label.alias(BLOCK)).collect()


def _earlier_values(field: Field, previous: Snapshot, context: PartContext) -> pl.DataFrame | None:
    if all(own.name != field.name or own.dtype != field.dtype for own in previous.fields):
        return None
    frames: list[pl.DataFrame] = []
    rows_wanted = _ROWS
    for rows, files in _ranges(previous, context):
        if rows_wanted <= 0 or len(frames) == _PARTS:
            break
        if not rows.rows:
            continue
        step = max(rows.rows // rows_wanted, 1)
        frame = collect_values(rows.scan(context.tables).gather_every(step), field, context)
        if context.spec.time is None:
            frame = frame.with_columns(files.gather_every(step).alias(BLOCK))
        frames.append(frame)
        rows_wanted -= frame.height
    return pl.concat(reversed(frames)) if frames else None


def _ranges(previous: Snapshot, context: PartContext) -> Iterator[tuple[RowRange, pl.Series]]:
    """The accepted rows, the newest first, and of each row the place of its file as text."""
    parts = [load_part(file.parts[-1], context) for file in previous.files]
    for block in reversed(blocks_of([part for part in parts if part is not None])):
        yield block.range, block.owners().cast(pl.String).str.zfill(9)


def _numbers(rows: pl.DataFrame) -> Floats:
    result: Floats = rows[VALUE].drop_nulls().cast(pl.Float64).to_numpy()
    return result


def _of_values(rows: pl.DataFrame, values: tuple[str, ...], blocks: Codes, count: int) -> Codes:
    """Counts of each of `values`, and of all others in a last cell."""
    places = {value: place for place, value in enumerate(values)}
    codes = rows.select(
        pl.col(VALUE).cast(pl.String).replace_strict(places, default=len(values), return_dtype=pl.Int64)
    ).to_series()
    width = len(values) + 1
    return np.bincount(blocks * width + codes.to_numpy(), minlength=count * width).reshape(count, width)
