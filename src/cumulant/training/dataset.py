"""The rows that are learned from: features, labels, and when each was known."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from cumulant.core.errors import DataError, DefinitionError, not_found
from cumulant.core.servable import Task
from cumulant.training import tasks
from cumulant.training.evaluation.leakage import check_leakage
from cumulant.training.evaluation.traffic_rows import TrafficRows
from cumulant.training.policy import TrainingPolicy
from cumulant.training.spec import DecisionCost

Floats = NDArray[np.float64]
Micros = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class TrainingSet:
    """Labelled rows, in the order given.

    features: [n, k] frame of flags, numbers and texts.
    target: [n] 0 or 1, the position in `classes`, or the number.
    at, known: [n] microseconds since 1970 UTC of the prediction, and of when its label was known; or None.
    groups: [n] codes of what rows depend on each other (a customer); or None.
    slices: [n, ...] columns by whose values metrics are reported.
    false_negative, false_positive: [n] costs of a wrong decision; or None.
    reviewed: [n] whether the label came from the review queue: such rows are learned from and never judged by; or None.
    weight: [n] how many rows each stands for when it is learned from; or None for one each.
    sampling_weight: [n] how many rows of the traffic each stands for, by the chance with which it was drawn; or None
    for one each.
    traffic: rows of the same time without a label, which a capacity or a rate counts too; or None.
    identity: [n] hashes of what identifies each row, where rows without times are split by it; or None.
    rows: [n] positions in the frame given, which also held `unlabelled` rows.
    notes: what was assumed or left out, for a person. warnings: what a person should not overlook.
    """

    features: pl.DataFrame
    target: Floats
    task: Task
    classes: tuple[str, ...] = ()
    at: Micros | None = None
    known: Micros | None = None
    groups: NDArray[np.int64] | None = None
    slices: pl.DataFrame | None = None
    false_negative: Floats | None = None
    false_positive: Floats | None = None
    reviewed: NDArray[np.bool_] | None = None
    weight: Floats | None = None
    sampling_weight: Floats | None = None
    traffic: TrafficRows | None = None
    identity: NDArray[np.uint64] | None = None
    rows: NDArray[np.int64]
    unlabelled: int = 0
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.target)

    @property
    def rate(self) -> float:
        """The share of positives (binary)."""
        return float(self.target.mean()) if len(self) else 0.0

    def take(self, index: NDArray[Any]) -> TrainingSet:
        """The rows at positions `index`, or where it is true. No row is copied where all are taken, or rows that follow
        each other.
        """
        if index.dtype == bool and bool(index.all()):
            return self
        chosen = _positions(index)
        return replace(
            self,
            features=_taken(self.features, chosen),
            target=self.target[chosen],
            at=_at(self.at, chosen),
            known=_at(self.known, chosen),
            groups=_at(self.groups, chosen),
            slices=None if self.slices is None else _taken(self.slices, chosen),
            false_negative=_at(self.false_negative, chosen),
            false_positive=_at(self.false_positive, chosen),
            reviewed=_at(self.reviewed, chosen),
            weight=_at(self.weight, chosen),
            sampling_weight=_at(self.sampling_weight, chosen),
            identity=_at(self.identity, chosen),
            rows=self.rows[chosen],
        )

    def without_columns(self) -> TrainingSet:
        """The rows without features and slices: what is left to say of them once they are encoded."""
        return replace(self, features=pl.DataFrame(), slices=None)

    def sample(self, share: float, *, seed: int = 0, counted: bool = False) -> TrainingSet:
        """A random `share` of the rows, in their order, with every class kept in its share. Each stands for as many as
        it was drawn from; or, where the others are `counted`, they become traffic.
        """
        # Without unlabelled rows nothing is there that reviewed rows were drawn from: they are to stay apart.
        counted = counted and not (self.traffic is None and self.reviewed is not None and bool(self.reviewed.any()))
        generator, chosen = np.random.default_rng(seed), np.zeros(len(self), dtype=bool)
        stands = np.ones(len(self)) if self.sampling_weight is None else self.sampling_weight.copy()
        strata = [self.target == number for number in range(len(self.classes))] or [np.ones(len(self), dtype=bool)]
        for stratum in strata:
            places = np.flatnonzero(stratum)
            count = min(len(places), max(round(share * len(places)), tasks.LEAST_OF_A_CLASS))
            chosen[generator.choice(places, size=count, replace=False)] = True
            stands[places] *= 1 if counted else len(places) / max(count, 1)
        traffic = None if self.traffic is None else self.traffic.at_most(_part(self.traffic, share), seed=seed)
        if counted:
            traffic = self._with_others(np.flatnonzero(~chosen), stands)
        return replace(
            replace(self, sampling_weight=stands).take(chosen),
            traffic=traffic,
            notes=(*self.notes, f"a random {share:.0%} of the rows: learned from {chosen.sum():,} of {len(self):,}"),
        )

    def _with_others(self, places: NDArray[np.int64], stands: Floats) -> TrafficRows:
        """The traffic with the rows at `places`."""
        others = TrafficRows(features=self.features[places], at=_at(self.at, places), sampling_weight=stands[places])
        return others if self.traffic is None else TrafficRows.joined([self.traffic, others])

    def at_most(self, most: int) -> TrainingSet:
        """All rows, or as many drawn at random with a fixed seed, in their order, whatever their class."""
        if len(self) <= most:
            return self
        return self.take(np.sort(np.random.default_rng(0).choice(len(self), most, replace=False)))


def _part(traffic: TrafficRows, share: float) -> int:
    return max(1, round(share * len(traffic)))


def _positions(index: NDArray[Any]) -> NDArray[Any] | slice:
    """The positions, as a slice where they follow each other: rows of a time lie together in most sources."""
    chosen = np.flatnonzero(index) if index.dtype == bool else index
    if len(chosen) and chosen[-1] - chosen[0] == len(chosen) - 1 and bool((chosen[1:] > chosen[:-1]).all()):
        return slice(int(chosen[0]), int(chosen[-1]) + 1)
    return chosen


def _taken(frame: pl.DataFrame, chosen: NDArray[Any] | slice) -> pl.DataFrame:
    """The rows `chosen`; of a frame without columns none."""
    return frame[chosen] if frame.width else frame


def _at(values: NDArray[Any] | None, chosen: NDArray[Any] | slice) -> NDArray[Any] | None:
    return None if values is None else values[chosen]


def training_set(
    features: pl.DataFrame,
    target: pl.Series,
    *,
    spec: TrainingPolicy,
    at: pl.Series | None = None,
    known: pl.Series | None = None,
    groups: pl.Series | None = None,
    slices: pl.DataFrame | None = None,
    costs: pl.DataFrame | None = None,
    reviewed: pl.Series | None = None,
    weight: pl.Series | None = None,
    identity: NDArray[np.uint64] | None = None,
    leakage: bool = True,
) -> TrainingSet:
    """Gather rows for training.

    All arguments have one value a row, in one order; times are Datetime columns (naive ones are UTC). `costs` holds
    the columns that `spec.cost` names, `reviewed` says whose label came from the review queue, `weight` how many rows
    each stands for, `identity` a hash of what identifies it. Rows without a label are left out and counted; of a binary
    target they are kept as traffic. Without `leakage` no feature is looked at for it, as where a search has done so.

    Raises:
        DataError: the target cannot be learned, or a feature gives it away.
        DefinitionError: no feature is usable.
        NotFoundError: a cost names a column that is not in `costs`.
    """
    usable, notes = _usable(features)
    encoded = tasks.detect(target, name=spec.target, task=spec.task)
    false_negative, false_positive = _costs(spec.cost, costs, len(features), spec.target)
    rows = TrainingSet(
        features=usable,
        target=encoded.values,
        task=encoded.task,
        classes=encoded.classes,
        at=_micros(at),
        known=_known(known, at),
        groups=None if groups is None else _codes(groups),
        slices=slices,
        false_negative=false_negative if encoded.task == "binary" else None,
        false_positive=false_positive if encoded.task == "binary" else None,
        reviewed=None if reviewed is None else reviewed.to_numpy().astype(bool),
        weight=None if weight is None else np.asarray(weight.to_numpy(), dtype=np.float64),
        identity=identity,
        rows=np.arange(len(features), dtype=np.int64),
        unlabelled=int((~encoded.labelled).sum()),
        notes=notes,
    )
    timed = _timed(rows.at)
    labelled = rows.take(encoded.labelled & timed)
    if encoded.task == "binary":
        labelled = replace(labelled, traffic=_unlabelled(rows, ~encoded.labelled & timed))
    if leakage:
        suspicious = check_leakage(labelled.features, labelled.target, labelled.task, spec=spec)
        return replace(labelled, warnings=(*labelled.warnings, *suspicious))
    return labelled


def _unlabelled(rows: TrainingSet, which: NDArray[np.bool_]) -> TrafficRows | None:
    """The rows that have no label, which a model would have scored all the same."""
    places = np.flatnonzero(which)
    if not len(places):
        return None
    return TrafficRows(features=rows.features[places], at=_at(rows.at, places), sampling_weight=np.ones(len(places)))


def _usable(features: pl.DataFrame) -> tuple[pl.DataFrame, tuple[str, ...]]:
    """What a model can read; a feature without any value is left out."""
    keep, notes = [], []
    for name, kind in features.schema.items():
        if name.startswith("__"):
            continue
        empty = kind == pl.Null or (features.height > 0 and features[name].null_count() == features.height)
        if empty:
            notes.append(f"{name} is null in every row and is not used")
        elif kind in (pl.Boolean, pl.String) or kind.is_numeric() or isinstance(kind, (pl.Categorical, pl.Enum)):
            keep.append(name)
        else:
            notes.append(
                f"{name} is of type {kind}, which no model reads, and is not used: take a part or a difference"
            )
    if not keep:
        raise DefinitionError(
            "there is no feature to learn from",
            hint="; ".join(notes) or "define some in the features file, or list columns of the source",
        )
    return features.select(keep), tuple(notes)


def _micros(series: pl.Series | None) -> Micros | None:
    """Microseconds of a time column; the smallest integer stands for null."""
    if series is None:
        return None
    values = series.cast(pl.Datetime("us")).cast(pl.Int64).fill_null(np.iinfo(np.int64).min)
    return np.asarray(values.to_numpy(), dtype=np.int64)


def _known(known: pl.Series | None, at: pl.Series | None) -> Micros | None:
    """When labels were known; a label without such a time came with its row."""
    known_at, moments = _micros(known), _micros(at)
    if known_at is None or moments is None:
        return None
    return np.where(known_at == np.iinfo(np.int64).min, moments, known_at)


def _timed(at: Micros | None) -> Any:
    return True if at is None else at != np.iinfo(np.int64).min


def _codes(series: pl.Series) -> NDArray[np.int64]:
    ranked = series.cast(pl.String).fill_null("").rank("dense").cast(pl.Int64) - 1
    return np.asarray(ranked.to_numpy(), dtype=np.int64)


def _costs(
    cost: DecisionCost | None, columns: pl.DataFrame | None, count: int, target: str
) -> tuple[Floats | None, Floats | None]:
    if cost is None:
        return None, None
    return _cost(cost.false_negative, columns, count, target), _cost(cost.false_positive, columns, count, target)


def _cost(value: float | str, columns: pl.DataFrame | None, count: int, target: str) -> Floats:
    if not isinstance(value, str):
        if value < 0:
            raise DataError(f"a cost of {value} for a wrong decision about {target} is negative", subject=target)
        return np.full(count, float(value))
    known = [] if columns is None else columns.columns
    if columns is None or value not in known:
        raise not_found("cost column", value, known)
    if not (columns[value].dtype.is_numeric() or columns[value].dtype == pl.Boolean):
        raise DataError(
            f"the cost column {value} holds {columns[value].dtype}, and a cost is a number",
            subject=value,
            hint="name a column of numbers, or make one in `prepare`",
        )
    costs = columns[value].cast(pl.Float64)
    if costs.null_count() or bool((costs < 0).any()) or bool(costs.is_nan().any()):
        raise DataError(
            f"the cost column {value} is null, negative or no number in some rows",
            subject=value,
            hint="give it a rule under data, or use a number",
        )
    return np.asarray(costs.to_numpy(), dtype=np.float64)
